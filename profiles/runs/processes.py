"""Which processes work on a run, as its files tell; whether they live, `identity` says.

The readers here differ from `read_json` and `read_all` in one thing: a file that is there and
cannot be read (EIO, ESTALE, EACCES) is an OSError, so that nobody takes it for a missing one.
"""

from __future__ import annotations

import os
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
        return reading.json_object(path)
    except FileNotFoundError:
        return None


MARK = "TUNEDECK_RUN_ID"
"""Of the environment: the id of the run that a process belongs to, whatever group it went to."""
_REMOVED = " (deleted)"
"""What the kernel adds to the name of a folder that is gone."""


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

    def elsewhere(self, run: RunDir) -> Path | None:
        """The other run directory that those who live work in: this one is a copy of it."""
        places = (works_elsewhere(who, run) for who in self.known)
        return next((place for place in places if place is not None), None)

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
    return who is not None and who.is_alive and works_elsewhere(who, run) is None


def marked(run: RunDir) -> list[Identity]:
    """Live processes of this user that carry the run's mark; this process is not among them.

    Nor are those of a run that this one is a copy of.
    """
    wanted = f"{MARK}={run.id}".encode()
    pids = [pid for pid in _own_pids() if wanted in _environment(pid)]
    found = [identity.of_process(pid) for pid in pids if pid != os.getpid()]
    live = [who for who in found if who is not None]
    return [who for who in live if works_elsewhere(who, run) is None]


def _own_pids() -> list[int]:
    pids = []
    for entry in os.scandir("/proc") if Path("/proc/self").exists() else ():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == os.getuid():
                pids.append(int(entry.name))
        except OSError:  # ended meanwhile
            continue
    return pids


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def works_elsewhere(who: Identity, run: RunDir) -> Path | None:
    """The run directory that a live process works in, if it is another one than this.

    Copies of a directory name the same processes and carry the same id. A process whose folder
    cannot be seen, or is no run directory, is taken at its word.
    """
    folder = identity.working_folder(who)
    if folder is None or _is_same(folder, run.path):
        return None
    was_removed = folder.name.endswith(_REMOVED)
    return folder if was_removed or reading.is_file(folder / run.manifest.name) else None


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:
        return False
