"""Which processes work on a run, as its files tell; whether they live, `identity` says.

The readers here differ from `read_json` and `read_all` in one thing: a file that is there and
cannot be read (EIO, ESTALE, EACCES) is an OSError, so that nobody takes it for a missing one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiles.runs import identity, reading
from profiles.runs.identity import Identity
from profiles.runs.journal import read_all
from profiles.runs.records import Record
from profiles.runs.records.worker import WorkerStarted
from profiles.runs.rundir import RunDir


def is_there(path: Path) -> bool:
    """The file exists; OSError if it does and cannot be read."""
    try:
        with reading.open_regular(path) as file:
            file.read(1)
    except FileNotFoundError:
        return False
    return True


def read_records(path: Path) -> list[Record]:
    """Every sound record of a file, none if it is not there; OSError if it cannot be read."""
    return list(read_all(path)) if is_there(path) else []


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, None if it is missing or damaged; OSError if it cannot be read."""
    try:
        value = json.loads(reading.content(path))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Processes:
    """Who works on the current attempt, as far as it was written down."""

    supervisor: Identity | None = None
    worker: Identity | None = None
    """What the supervisor started: the trainer, or torchrun above it."""
    trainer: Identity | None = None
    """The first training process, by its own word."""

    @property
    def known(self) -> tuple[Identity, ...]:
        """Those that were written down."""
        everybody = (self.supervisor, self.worker, self.trainer)
        return tuple(p for p in everybody if p is not None)

    @property
    def training(self) -> tuple[Identity, ...]:
        """The known ones without which no step is made."""
        return tuple(p for p in (self.worker, self.trainer) if p is not None)


def of_run(run: RunDir) -> Processes:
    """Who works on the current attempt; OSError if the files cannot be read."""
    return of_attempt(run, run.attempt(), read_records(run.worker_events))


def of_attempt(run: RunDir, attempt: int, events: Sequence[Record]) -> Processes:
    """Who works on this attempt; nobody if that was not written down (yet)."""
    written = read_object(run.processes) or {}
    if written.get("attempt") != attempt:
        return Processes()
    supervisor, worker = (identity.from_dict(written.get(k)) for k in ("supervisor", "worker"))
    where = worker or supervisor
    said = [e for e in events if isinstance(e, WorkerStarted) and e.attempt == attempt]
    trainer = None
    if where is not None and said and said[-1].start is not None:
        trainer = replace(where, pid=said[-1].pid, start=said[-1].start)
    return Processes(supervisor, worker, trainer)


def supervisor_is_alive(run: RunDir) -> bool:
    """The supervisor that was last written down lives, of whichever attempt; OSError as above."""
    who = identity.from_dict((read_object(run.processes) or {}).get("supervisor"))
    return who is not None and who.is_alive
