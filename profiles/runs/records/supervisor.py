"""Records of events.sup.jsonl: how the supervisor starts, watches and ends a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiles.runs.records.record import LastingWarning, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStarted(Record):
    """It has the lock."""

    kind: ClassVar[str] = "sup_started"

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpawned(Record):
    """A worker process was started."""

    kind: ClassVar[str] = "worker_spawned"

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted(LastingWarning):
    """The worker asked for a clean process and gets one."""

    kind: ClassVar[str] = "restarted"

    number: int
    of: int
    """As often as is tried."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEscalated(LastingWarning):
    """A stop was not answered in time."""

    kind: ClassVar[str] = "stop_escalated"

    signal: str
    seconds: int
    """Waited for an answer."""

    @property
    def notice(self) -> str:
        """What was done about it."""
        return "the stop was not answered; the worker got a signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopForced(Record):
    """A "stop now" was not answered in time: the worker is killed."""

    kind: ClassVar[str] = "stop_forced"

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresponsive(LastingWarning):
    """The worker's heartbeat stands still."""

    kind: ClassVar[str] = "unresponsive"

    seconds: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Responsive(Record):
    """The worker's heartbeat goes on."""

    kind: ClassVar[str] = "responsive"
    ends: ClassVar[str] = Unresponsive.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit(Record):
    """How the attempt ended; exit.json says more."""

    kind: ClassVar[str] = "exit"

    state: str
    code: int
    what: str
