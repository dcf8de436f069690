"""Reads a run directory on a thread and hands over one coalesced Batch per tick.

Decides how much is read at once: a file of at most 16 MiB whole, a longer one as an even sample of
its past and its whole end, so that a run of a million steps is on the screen within a second. What
the screen does not take stays in the files. Knows no screen, and no widget is touched from here.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from profiles.runs import parts
from profiles.runs.journal import Record, Tail, decode
from profiles.runs.state import Status, heartbeat, status
from tui.follow import describe

if TYPE_CHECKING:
    from pathlib import Path

    from profiles.runs.rundir import RunDir

POLL_SECONDS = 1.0
_WHOLE_BYTES = 16 << 20
_END_BYTES = 512 << 10
_NUM_EXCERPTS = 256
_EXCERPT_BYTES = 8 << 10
_MOST_POINTS = 100_000
"""Untaken points after which reading waits for the screen."""
_MOST_EVENTS = 200


class StepPoint(NamedTuple):
    """One optimizer step."""

    attempt: int
    step: int
    unix_seconds: float
    seconds: float
    tokens: int
    phases: dict[str, float]
    peak_bytes: int


class Event(NamedTuple):
    """Something a person wants to know of."""

    unix_seconds: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Everything since the last batch."""

    status: Status
    phase: str
    """Of the worker's heartbeat: loading, training..."""
    steps: tuple[StepPoint, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    """Step and loss; not a number where the loss was not finite."""
    memory: tuple[tuple[float, float], ...] = ()
    """Time and resident bytes of the run's processes."""
    sample: Record | None = field(default=None)
    """The newest sample."""
    events: tuple[Event, ...] = ()
    went_on_at: float = 0.0
    """Unix time of the newest end of a pause; 0 if there is none."""
    newest: float = 0.0
    """Unix time of the newest record of training itself."""
    num_damaged: int = 0
    """Lines of all files that could not be read, so far."""

    @property
    def num_points(self) -> int:
        """How much is waiting."""
        return len(self.steps) + len(self.losses) + len(self.memory)

    def then(self, later: Batch) -> Batch:
        """Both as one."""
        return replace(
            later,
            steps=self.steps + later.steps,
            losses=self.losses + later.losses,
            memory=self.memory + later.memory,
            sample=later.sample or self.sample,
            events=(self.events + later.events)[-_MOST_EVENTS:],
            went_on_at=max(self.went_on_at, later.went_on_at),
            newest=max(self.newest, later.newest),
        )


class Source:
    """One file of records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = Tail(path)
        self._begun = False
        self._num_damaged = 0

    @property
    def num_damaged(self) -> int:
        """Lines that could not be read."""
        return self._num_damaged + self._tail.num_damaged

    def poll(self) -> list[Record]:
        """Read what is new; at first, the past."""
        if self._begun:
            return self._tail.poll(_WHOLE_BYTES)
        size = parts.size(self._path)
        self._begun = size > 0
        if size <= _WHOLE_BYTES:
            return self._tail.poll(_WHOLE_BYTES)
        return self._excerpts(size - _END_BYTES) + self._tail.poll()

    def _excerpts(self, end: int) -> list[Record]:
        """Lines at even distances up to about `end`, where the tail then begins."""
        records: list[Record] = []
        # One byte is no line: the tail learns which file it follows, and stays at its start.
        self._tail.poll(1)
        for number in range(_NUM_EXCERPTS):
            offset = number * (end - _EXCERPT_BYTES) // (_NUM_EXCERPTS - 1)
            lines = parts.read(self._path, offset, _EXCERPT_BYTES).split(b"\n")[1:-1]
            found = [decode(line) for line in lines]
            records += [record for record in found if record is not None]
            self._num_damaged += found.count(None)
        self._tail.offset = end + parts.read(self._path, end, _END_BYTES).find(b"\n") + 1
        return records


class Reader:
    """Turns the files of a run into batches; not safe for two threads at once."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._metrics = Source(run.metrics)
        self._samples = Source(run.samples)
        self._events = Source(run.worker_events)

    def poll(self) -> Batch:
        """Read what is new."""
        metrics, samples = self._metrics.poll(), self._samples.poll()
        events = self._events.poll()
        now = status(self._run)
        return Batch(
            status=now,
            phase=heartbeat(self._run)[2],
            steps=tuple(point for r in metrics if (point := _step(r)) is not None),
            losses=tuple(loss for r in metrics if (loss := _loss(r)) is not None),
            memory=tuple(pair for r in samples if (pair := _memory(r)) is not None),
            sample=samples[-1] if samples else None,
            events=tuple(event for r in events if (event := _event(r)) is not None)[-_MOST_EVENTS:],
            went_on_at=max((e["t"] for e in events if e["kind"] == "unpaused"), default=0.0),
            newest=max([now.since, *(float(r.get("t", 0.0)) for r in metrics[-1:] + events[-1:])]),
            num_damaged=sum(s.num_damaged for s in (self._metrics, self._samples, self._events)),
        )


def _step(record: Record) -> StepPoint | None:
    """Read a step; device times where there are some, for there the host only queues work."""
    if record.get("kind") != "step":
        return None
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        seconds = float(record["seconds"])
        phases = {str(k): float(v) for k, v in record["phases"].items()}
        if device := record.get("gpu_phases"):
            phases = {str(k): float(v) for k, v in device.items()}
            phases["other"] = max(0.0, seconds - sum(phases.values()))
        peak = record.get("reserved_peak_bytes") or record.get("rss_peak_bytes") or 0
        return StepPoint(
            attempt=int(record["a"]),
            step=int(record["step"]),
            unix_seconds=float(record["t"]),
            seconds=seconds,
            tokens=int(record.get("tokens", 0)),
            phases=phases,
            peak_bytes=int(peak),
        )
    return None


def _loss(record: Record) -> tuple[int, float] | None:
    if record.get("kind") != "loss":
        return None
    with suppress(KeyError, TypeError, ValueError):
        loss = record["loss"]
        return int(record["step"]), math.nan if loss is None else float(loss)
    return None


def _memory(record: Record) -> tuple[float, float] | None:
    with suppress(KeyError, TypeError, ValueError):
        return float(record["t"]), float(record["rss_bytes"])
    return None


def _event(record: Record) -> Event | None:
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        text = describe(record)
        return Event(float(record["t"]), text) if text else None
    return None


class Feed(threading.Thread):
    """Polls once a second until it is closed; `take` gives what came since."""

    def __init__(self, run: RunDir, *, poll_seconds: float = POLL_SECONDS) -> None:
        super().__init__(daemon=True, name=f"feed {run.id}")
        self._reader = Reader(run)
        self._poll_seconds = poll_seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._waiting: Batch | None = None
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why the last poll failed; empty if it did not."""
        return self._fault

    def take(self) -> Batch | None:
        """Everything since the last call as one batch, or None."""
        with self._lock:
            batch, self._waiting = self._waiting, None
            return batch

    def close(self) -> None:
        """Stop polling soon."""
        self._closed.set()

    def run(self) -> None:
        """Poll; what cannot be read now may be readable later."""
        while not self._closed.is_set():
            try:
                self._poll()
                self._fault = ""
            except Exception as error:  # noqa: BLE001  # a dead thread would show old news as new
                self._fault = f"{type(error).__name__}: {error}"
            self._closed.wait(self._poll_seconds)

    def _poll(self) -> None:
        waiting = self._waiting
        if waiting is not None and waiting.num_points > _MOST_POINTS:
            return
        batch = self._reader.poll()
        with self._lock:
            self._waiting = self._waiting.then(batch) if self._waiting else batch
