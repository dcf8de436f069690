"""What state a run is in, derived by every reader from what the writers left.

Nobody keeps a running status that could go stale (run protocol §3.5). Nothing here writes, and
nothing here signals a process. What cannot be read at the moment is said to be so: a run is called
neither alive nor dead on the word of a file that did not open.
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from profiles.run_facts import NOT_EVALUATED, Result
from profiles.runs import advice, caveats, copies, heartbeats, identity, locks, notices, processes
from profiles.runs.identity import Identity
from profiles.runs.journal import last_record
from profiles.runs.processes import Processes, read_object, read_records
from profiles.runs.reading import is_folder, whole, words
from profiles.runs.records import Record
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.supervisor import Restarted, SupervisorStarted
from profiles.runs.records.worker import (
    Checkpoint,
    End,
    Paused,
    SaveBegun,
    SaveFailed,
    StopAccepted,
    TrainBegun,
    Unpaused,
    WorkerStarted,
)
from profiles.runs.result import result_of
from profiles.runs.rundir import RunDir, created, read_json


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
    DAMAGED = "damaged"
    """Nothing that is left in its folder tells of a run."""
    ELSEWHERE = "elsewhere"
    """Belongs to another host or to a live container: not judged from here."""
    UNKNOWN = "unknown"
    """Its files cannot be read at the moment."""

    @property
    def is_over(self) -> bool:
        """No process works on the run any more."""
        return self in _OVER

    @property
    def obeys(self) -> bool:
        """Somebody is there who answers a request from here."""
        return not self.is_over and self not in (State.ELSEWHERE, State.UNKNOWN)


_OVER = {State.STOPPED, State.FINISHED, State.FAILED, State.KILLED, State.LOST, State.DAMAGED}
_STATE_OF_EVENT: dict[type[Record], State] = {
    SupervisorStarted: State.STARTING,
    WorkerStarted: State.STARTING,
    TrainBegun: State.RUNNING,
    SaveBegun: State.CHECKPOINTING,
    Checkpoint: State.RUNNING,
    SaveFailed: State.RUNNING,
    Paused: State.PAUSED,
    Unpaused: State.RUNNING,
    Restarted: State.STARTING,
}
_CHECKPOINT = re.compile(r"step-[0-9]{8}")


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
    result: Result = NOT_EVALUATED
    """Whether the model got better."""


def newest_checkpoint(run: RunDir) -> int | None:
    """Step of the newest committed checkpoint (a final name with a manifest), by name only."""
    try:
        names = [e.name for e in os.scandir(run.checkpoints) if _CHECKPOINT.fullmatch(e.name)]
    except OSError:
        return None
    manifests = {name: run.checkpoints / name / "MANIFEST.json" for name in names}
    whole_ones = [name for name, manifest in manifests.items() if os.path.isfile(manifest)]  # noqa: PTH113  # raises nothing
    return max((int(name.removeprefix("step-")) for name in whole_ones), default=None)


def is_locked(run: RunDir) -> bool:
    """Some process of the run still lives on this host: the supervisor, a worker or a rank."""
    return locks.is_held(run.lock) or locks.is_held(run.worker_lock)


def status(run: RunDir) -> Status:
    """Derive the state of a run from its files and the processes of this host; never raises."""
    try:
        return _status(run)
    except Exception as error:  # noqa: BLE001  # no content of a file may end a reader
        return Status(
            state=State.UNKNOWN,
            attempt=run.attempt(),
            step=heartbeats.of_worker(run).step,
            num_steps=0,
            resumable_from=newest_checkpoint(run),
            reason="",
            exit_code=None,
            since=created(run),
            notice="; ".join(caveats.unreadable(run)) or _unread(run, error),
        )


def _status(run: RunDir) -> Status:
    processes.is_there(run.attempt_file)
    attempt = run.attempt()
    files = run.supervisor_events, run.worker_events
    # by the monotonic clock of an attempt's host: the other one may be set back meanwhile
    read = (event for file in files for event in read_records(file))
    events = sorted(read, key=lambda e: (e.attempt, e.monotonic_seconds))
    current = [e for e in events if e.attempt == attempt]
    ended = read_object(run.exit)
    found = _derive(run, attempt, current, ended)
    ended = found.record
    losses = [e for e in events if isinstance(e, Evaluated)]
    metric = last_record(run.metrics, Record)
    newest = [metric] if metric is not None and metric.attempt == attempt else []
    start = (newest_checkpoint(run) or 0) if attempt > 1 else 0
    beat = heartbeats.of_worker(run).step if current else 0
    return Status(
        state=found.state,
        attempt=attempt,
        step=max(
            start, beat, whole(ended or {}, "last_step"), *(e.reached for e in [*current, *newest])
        ),
        num_steps=max((e.num_steps for e in events if isinstance(e, TrainBegun)), default=0),
        resumable_from=newest_checkpoint(run),
        reason=found.reason if ended is None else advice.told_here(run, found.reason),
        exit_code=_exit_code(ended),
        since=max((e.unix_seconds for e in current[-1:] + newest), default=created(run)),
        base_loss=next((e.loss for e in losses if e.step == 0), None),
        eval_loss=losses[-1].loss if losses else None,
        notice="; ".join(filter(None, [found.notice, *_caveats(run, found.state)])),
        result=result_of(events),
    )


def _caveats(run: RunDir, state: State) -> list[str]:
    """Of a run that is being made nothing is missing yet; of a damaged one the reason tells it."""
    return [] if state in (State.QUEUED, State.DAMAGED) else caveats.of(run)


def _unread(run: RunDir, error: Exception) -> str:
    """Which file, and why; it may be read the next time."""
    number = error.errno if isinstance(error, OSError) else None
    name = errno.errorcode.get(number or 0, type(error).__name__)
    file = getattr(error, "filename", None)
    what = os.path.relpath(os.fsdecode(file), run.path) if file else "status"
    return f"cannot read {what} ({name}), retrying"


def _exit_code(ended: dict[str, Any] | None) -> int | None:
    code = (ended or {}).get("code")
    return code if type(code) is int and 0 <= code <= 255 else None


@dataclass(frozen=True, slots=True)
class _Found:
    """What the files and processes amount to."""

    state: State
    reason: str = ""
    notice: str = ""
    record: dict[str, Any] | None = None
    """The content of exit.json, where that is the end that is told."""


def _derive(
    run: RunDir, attempt: int, events: list[Record], ended: dict[str, Any] | None
) -> _Found:
    if ended is not None and ended.get("attempt") == attempt:
        return _Found(_state_named(ended.get("state")), words(ended, "what"), record=ended)
    who = processes.of_attempt(run, attempt, events)
    if (there := who.elsewhere(run)) is not None:
        return _Found(State.LOST, f"copied while it worked in {there}, where it goes on")
    supervised = who.supervisor is not None and who.supervisor.is_alive
    if any(p.is_alive for p in who.training) or (supervised and not who.training):
        lost = notices.SUPERVISOR_LOST if who.supervisor is not None and not supervised else ""
        full = _disk_notice(run)
        told = "; ".join(filter(None, [full or notices.newest(events), lost]))
        paused = full and heartbeats.of_worker(run).phase == "paused"  # its event waits for room
        state = State.PAUSED if paused else _live_state(events)
        return _Found(state, notice=told)
    if supervised:
        return _Found(State.STOPPING, notice=notices.ENDING)
    finished = next((e for e in events if isinstance(e, End)), None)
    if finished is not None:
        why = "the supervisor was lost, the worker came to its end"
        return _Found(_state_named(finished.state), why)
    return _gone(run, who) if who.known else _not_begun(run, attempt, ended)


_LITTLE_BYTES = 64 << 10


def _disk_notice(run: RunDir) -> str:
    """A full disk keeps the events that would tell of it from being written."""
    room = os.statvfs(run.path)
    is_full = room.f_blocks > 0 and room.f_bavail * room.f_frsize < _LITTLE_BYTES
    return notices.DISK_FULL if is_full else ""  # some network file systems count no blocks


def _state_named(name: object) -> State:
    """A record of an unknown state, by another version perhaps, counts as a failure.

    So does one that says that the run works: whoever follows it would wait for ever.
    """
    known = {str(state): state for state in _OVER}
    return known.get(str(name), State.FAILED)


def _live_state(events: list[Record]) -> State:
    """The newest event decides, but a run that has accepted a stop stays "stopping"."""
    if any(isinstance(e, StopAccepted) for e in events):
        return State.STOPPING
    known = [_STATE_OF_EVENT[type(e)] for e in events if type(e) in _STATE_OF_EVENT]
    return known[-1] if known else State.STARTING


def _gone(run: RunDir, who: Processes) -> _Found:
    """Nobody we know of works on it, and nobody recorded an end."""
    if not any(p.is_local for p in who.known):
        return _gone_from_here(run, who.known[0])
    lost = _lost(run, "supervisor and worker disappeared")
    if not is_locked(run):
        return lost
    holders = processes.marked(run)
    if not holders:
        return _Found(State.ELSEWHERE, notices.HELD)
    if who.trainer is not None:  # what holds the lock trains nothing: it died
        ends = f"{advice.command('stop', run, '--now')} ends them"
        return _Found(State.LOST, f"{lost.reason}; {notices.holding(holders)}: {ends}")
    what = "supervisor and worker are gone, a descendant still works"
    return _Found(State.RUNNING, what, notice=what)


def _gone_from_here(run: RunDir, who: Identity) -> _Found:
    """What it ran on is another machine, another container, or an earlier life of this machine."""
    held = is_locked(run) or heartbeats.is_beating(run)
    is_named_alike = who.host == identity.of_this_host()
    if who.is_of_this_boot:
        if held:
            return _Found(State.ELSEWHERE, "runs in another container of this host; look there")
        return _lost(run, "its container ended")
    if held or not is_named_alike:
        place = f"another machine called {who.host}" if is_named_alike else who.host
        return _Found(State.ELSEWHERE, f"runs on {place}; look there")
    return _lost(run, f"the host restarted at {_clock(identity.boot_time())}")


def _lost(run: RunDir, gone: str) -> _Found:
    what = f"{gone}{_last_sign(run)}; the reason was not recorded"
    return _Found(State.LOST, "; ".join(filter(None, [what, copies.moved(run)])))


def _last_sign(run: RunDir) -> str:
    """Like " (last sign 14:02:10)", by the heartbeats."""
    times = heartbeats.times(run)
    return f" (last sign {_clock(max(times))})" if times else ""


def _clock(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))


_START_SECONDS = 30.0
"""Without a word of its starter, a supervisor that is silent for this long never reports."""


def _not_begun(run: RunDir, attempt: int, ended: dict[str, Any] | None) -> _Found:
    """Nobody works on this attempt yet; `ended` is how an earlier one ended."""
    if is_locked(run) or _is_being_started(run, attempt):
        return _Found(State.QUEUED)
    if ended is not None:
        what = f"{words(ended, 'what')}; a resume did not begin"
        return _Found(_state_named(ended.get("state")), what, record=ended)
    if not _asked(run) and read_json(run.manifest) is None:
        what = f"{run.manifest.name} is missing or damaged"
        return _Found(State.QUEUED) if _is_being_made(run) else _Found(State.DAMAGED, what)
    return _Found(State.LOST, "a resume did not begin" if attempt > 1 else "it was never started")


def _is_being_made(run: RunDir) -> bool:
    """A launcher has made the folders, and writes the first files into them."""
    age = time.time() - run.path.stat().st_mtime
    return age < _START_SECONDS and is_folder(run.requests)


def _is_being_started(run: RunDir, attempt: int) -> bool:
    """By its starter, if this process may judge that one; else by the age of the request."""
    starter = run.starter(attempt)
    if starter is not None and starter.is_local:
        return starter.is_alive
    return time.time() - _asked(run) < _START_SECONDS


def _asked(run: RunDir) -> float:
    """Unix time of the newest start that somebody asked for; 0 if there is none."""
    asked = []
    for path in (run.attempt_file, run.claims / str(run.attempt())):
        try:
            asked.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(asked, default=0.0)
