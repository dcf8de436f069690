"""What state a run is in, derived by every reader from what the writers left.

Nobody keeps a running status that could go stale (run protocol §3.5). Nothing here writes, and
nothing here signals a process.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from profiles import identity
from profiles.journal import Record, read_all
from profiles.rundir import RunDir, created, read_json


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


def is_locked(run: RunDir) -> bool:
    """Some process of the run still lives on this host: the supervisor, a worker or a rank."""
    return is_held(run.lock) or is_held(run.worker_lock)


def is_held(lock: Path) -> bool:
    """Somebody holds this lock, shared or alone."""
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
    """Derive the state of a run from its files and from the processes of this host."""
    attempt = run.attempt()
    events = [*read_all(run.supervisor_events), *read_all(run.worker_events)]
    current = sorted((e for e in events if e.get("a") == attempt), key=lambda e: e["t"])
    ended = read_json(run.exit)
    if ended is not None and ended.get("attempt") != attempt:
        ended = None
    state, reason = _derive(run, current, ended)
    num_steps = max((int(e.get("num_steps", 0)) for e in events), default=0)
    losses = sorted((e for e in events if e.get("kind") == "evaluated"), key=lambda e: e["t"])
    return Status(
        state=state,
        attempt=attempt,
        step=_last_step(run, current, ended),
        num_steps=num_steps,
        resumable_from=newest_checkpoint(run),
        reason=reason,
        exit_code=None if ended is None else int(ended.get("code", 0)),
        since=current[-1]["t"] if current else created(run),
        base_loss=next((e.get("loss") for e in losses if e.get("step") == 0), None),
        eval_loss=losses[-1].get("loss") if losses else None,
    )


def _last_step(run: RunDir, events: list[Record], ended: Record | None) -> int:
    from_events = max((int(e.get("step", 0)) for e in events), default=0)
    beat = heartbeat(run)[1] if events else 0
    return max(from_events, beat, int((ended or {}).get("last_step") or 0))


def _derive(run: RunDir, events: list[Record], ended: Record | None) -> tuple[State, str]:
    if ended is not None:
        return _state_named(ended.get("state")), str(ended.get("what", ""))
    finished = next((e for e in events if e["kind"] == "end"), None)
    processes = read_json(run.processes) or {}
    people = [identity.from_dict(processes.get(k)) for k in ("supervisor", "worker")]
    known = [p for p in people if p is not None and processes.get("attempt") == run.attempt()]
    alive = any(p.is_alive for p in known)
    if alive:
        return _live_state([e["kind"] for e in events]), ""
    if finished is not None:
        why = "the supervisor was lost, the worker came to its end"
        return _state_named(finished.get("state")), why
    return _gone(run, known) if known else _never_started(run)


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


def _gone(run: RunDir, known: list[identity.Identity]) -> tuple[State, str]:
    """Nobody we know of works on it, and nobody recorded an end."""
    if any(p.host != identity.of_this_host() for p in known):
        return State.ELSEWHERE, f"runs on {known[0].host}; look there"
    if is_locked(run):
        return State.RUNNING, "supervisor and worker are gone, a descendant still works"
    rebooted = not any(p.is_local for p in known)
    gone = "the host restarted" if rebooted else "supervisor and worker both disappeared"
    return State.LOST, f"{gone}; the reason was not recorded"


_START_SECONDS = 30.0
"""A supervisor that has not reported after this long never will."""


def _never_started(run: RunDir) -> tuple[State, str]:
    try:
        asked = run.attempt_file.stat().st_mtime
    except OSError:
        asked = 0.0
    if is_locked(run) or time.time() - asked < _START_SECONDS:
        return State.QUEUED, ""
    return State.LOST, "it was never started"
