"""What state a run is in, derived by every reader from what the writers left.

Nobody keeps a running status that could go stale (run protocol §3.5). Nothing here writes, and
nothing here signals a process. What cannot be read at the moment is said to be so: a run is called
neither alive nor dead on the word of a file that did not open.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from profiles.runs import identity, notices, people
from profiles.runs.journal import Record
from profiles.runs.people import People, read_object, read_records
from profiles.runs.rundir import RunDir, created


class State(StrEnum):
    """What a run is doing, or how it ended."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    CHECKPOINTING = "checkpointing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"
    LOST = "lost"
    ELSEWHERE = "elsewhere"
    """Belongs to another host, or to an earlier life of a container: not judged from here."""
    UNKNOWN = "unknown"
    """Its files cannot be read at the moment."""

    @property
    def is_over(self) -> bool:
        """No process works on the run any more."""
        return self in _OVER


_OVER = {State.STOPPED, State.FINISHED, State.FAILED, State.KILLED, State.LOST}
_STATE_OF_EVENT = {
    "sup_started": State.STARTING,
    "worker_started": State.STARTING,
    "train_begun": State.RUNNING,
    "save_begun": State.CHECKPOINTING,
    "checkpoint": State.RUNNING,
    "save_failed": State.RUNNING,
    "paused": State.PAUSED,
    "unpaused": State.RUNNING,
    "restarted": State.STARTING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a reader can say about a run now."""

    state: State
    attempt: int
    step: int
    num_steps: int
    """Planned optimizer steps; 0 until the worker knows."""
    resumable_from: int | None
    """Step of the newest committed checkpoint."""
    reason: str
    """Why it ended, in words; empty while it runs."""
    exit_code: int | None
    since: float
    """Unix time of the newest sign of the run."""
    base_loss: float | None = None
    """Evaluation loss before training."""
    eval_loss: float | None = None
    """Newest evaluation loss."""
    notice: str = ""
    """The newest thing that a person should know while the run lives; "" if there is none."""


def newest_checkpoint(run: RunDir) -> int | None:
    """Step of the newest committed checkpoint (a final name with a manifest), by name only."""
    try:
        names = [e.name for e in os.scandir(run.checkpoints)]
    except OSError:
        return None
    steps = [
        int(n.removeprefix("step-"))
        for n in names
        if re.fullmatch(r"step-[0-9]{8}", n) and (run.checkpoints / n / "MANIFEST.json").is_file()
    ]
    return max(steps, default=None)


_TRIAL_SECONDS = 0.02


def is_locked(run: RunDir) -> bool:
    """Some process of the run still lives on this host: the supervisor, a worker or a rank."""
    return is_held(run.lock) or is_held(run.worker_lock)


def is_held(lock: Path) -> bool:
    """Somebody holds this lock, shared or alone, for longer than a reader that tries it."""
    if not _is_taken(lock):
        return False
    time.sleep(_TRIAL_SECONDS)
    return _is_taken(lock)


def _is_taken(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def heartbeat(run: RunDir) -> tuple[int, int, str]:
    """(counter, step, phase) of the worker's heartbeat; zeros if there is none."""
    try:
        counter, step, phase = run.worker_heartbeat.read_text().split()
        return int(counter), int(step), phase
    except (OSError, ValueError):
        return 0, 0, ""


def status(run: RunDir) -> Status:
    """Derive the state of a run from its files and the processes of this host; never raises."""
    try:
        return _status(run)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return Status(
            state=State.UNKNOWN,
            attempt=run.attempt(),
            step=heartbeat(run)[1],
            num_steps=0,
            resumable_from=newest_checkpoint(run),
            reason="",
            exit_code=None,
            since=created(run),
            notice=f"cannot read status ({name}), retrying",
        )


def _status(run: RunDir) -> Status:
    people.is_there(run.attempt_file)
    attempt = run.attempt()
    files = run.supervisor_events, run.worker_events
    # by the monotonic clock of an attempt's host: the other one may be set back meanwhile
    events = sorted((e for f in files for e in read_records(f)), key=lambda e: (e["a"], e["m"]))
    current = [e for e in events if e.get("a") == attempt]
    ended = read_object(run.exit)
    if ended is not None and ended.get("attempt") != attempt:
        ended = None
    found = _derive(run, attempt, current, ended)
    losses = [e for e in events if e.get("kind") == "evaluated"]
    return Status(
        state=found.state,
        attempt=attempt,
        step=_last_step(run, current, ended),
        num_steps=max((int(e.get("num_steps", 0)) for e in events), default=0),
        resumable_from=newest_checkpoint(run),
        reason=found.reason,
        exit_code=_exit_code(ended),
        since=current[-1]["t"] if current else created(run),
        base_loss=next((e.get("loss") for e in losses if e.get("step") == 0), None),
        eval_loss=losses[-1].get("loss") if losses else None,
        notice=found.notice,
    )


def _exit_code(ended: Record | None) -> int | None:
    code = (ended or {}).get("code")
    return code if isinstance(code, int) else None


def _last_step(run: RunDir, events: list[Record], ended: Record | None) -> int:
    from_events = max((int(e.get("step", 0)) for e in events), default=0)
    beat = heartbeat(run)[1] if events else 0
    return max(from_events, beat, int((ended or {}).get("last_step") or 0))


@dataclass(frozen=True, slots=True)
class _Found:
    """What the files and processes amount to."""

    state: State
    reason: str = ""
    notice: str = ""


def _derive(run: RunDir, attempt: int, events: list[Record], ended: Record | None) -> _Found:
    if ended is not None:
        return _Found(_state_named(ended.get("state")), str(ended.get("what", "")))
    who = people.of_attempt(run, attempt, events)
    supervised = who.supervisor is not None and who.supervisor.is_alive
    if any(p.is_alive for p in who.training) or (supervised and not who.training):
        lost = notices.SUPERVISOR_LOST if who.supervisor is not None and not supervised else ""
        full = _disk_notice(run)
        told = "; ".join(filter(None, [full or notices.newest(events), lost]))
        paused = full and heartbeat(run)[2] == "paused"  # the event that says so waits for room
        state = State.PAUSED if paused else _live_state([e["kind"] for e in events])
        return _Found(state, notice=told)
    if supervised:
        return _Found(State.STOPPING, notice=notices.ENDING)
    finished = next((e for e in events if e["kind"] == "end"), None)
    if finished is not None:
        why = "the supervisor was lost, the worker came to its end"
        return _Found(_state_named(finished.get("state")), why)
    return _gone(run, who) if who.known else _never_started(run)


_LITTLE_BYTES = 64 << 10


def _disk_notice(run: RunDir) -> str:
    """A full disk keeps the events that would tell of it from being written."""
    room = os.statvfs(run.path)
    return notices.DISK_FULL if room.f_bavail * room.f_frsize < _LITTLE_BYTES else ""


def _state_named(name: object) -> State:
    """A record of an unknown state, by another version perhaps, counts as a failure."""
    known = {str(state): state for state in State}
    return known.get(str(name), State.FAILED)


def _live_state(kinds: list[str]) -> State:
    """The newest event decides, but a run that has accepted a stop stays "stopping"."""
    if "stop_accepted" in kinds:
        return State.STOPPING
    known = [_STATE_OF_EVENT[kind] for kind in kinds if kind in _STATE_OF_EVENT]
    return known[-1] if known else State.STARTING


def _gone(run: RunDir, who: People) -> _Found:
    """Nobody we know of works on it, and nobody recorded an end."""
    elsewhere = [p.host for p in who.known if p.host != identity.of_this_host()]
    if elsewhere:
        return _Found(State.ELSEWHERE, f"runs on {elsewhere[0]}; look there")
    rebooted = not any(p.is_local for p in who.known)
    gone = "supervisor and worker disappeared"
    if rebooted:
        gone = f"the host restarted at {_clock(identity.boot_time())}"
    lost = f"{gone}{_last_sign(run)}; the reason was not recorded"
    if not is_locked(run):
        return _Found(State.LOST, lost)
    if who.trainer is not None:  # what holds the lock trains nothing: it died
        return _Found(State.LOST, f"{lost}; {notices.LEFTOVERS}")
    what = "supervisor and worker are gone, a descendant still works"
    return _Found(State.RUNNING, what, notice=what)


def _last_sign(run: RunDir) -> str:
    """Like " (last sign 14:02:10)", by the heartbeats."""
    times = []
    for path in (run.supervisor_heartbeat, run.worker_heartbeat):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return f" (last sign {_clock(max(times))})" if times else ""


def _clock(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


_START_SECONDS = 30.0
"""A supervisor that has not reported after this long never will."""


def _never_started(run: RunDir) -> _Found:
    if is_locked(run) or time.time() - _asked(run) < _START_SECONDS:
        return _Found(State.QUEUED)
    return _Found(State.LOST, "it was never started")


def _asked(run: RunDir) -> float:
    """Unix time of the newest start that somebody asked for; 0 if there is none."""
    asked = []
    for path in (run.attempt_file, run.claims / str(run.attempt())):
        try:
            asked.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(asked, default=0.0)
