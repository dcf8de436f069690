"""Reads a run directory on a thread and hands over one coalesced Batch per tick.

What the screen does not take stays in the files. Knows no screen, and no widget is touched from
here.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from profiles.layer_facts import NO_LAYERS, Layers
from profiles.runs import heartbeats
from profiles.runs.layers import LayerLog
from profiles.runs.records import Record
from profiles.runs.records.metrics import Loss, Step
from profiles.runs.records.sampler import Usage
from profiles.runs.records.worker import Prepared, Unpaused
from profiles.runs.state import Status, status
from tui.follow import describe
from tui.source import Source

if TYPE_CHECKING:
    from profiles.runs.rundir import RunDir

POLL_SECONDS = 1.0
_MOST_POINTS = 100_000
"""Untaken points after which reading waits for the screen."""
_MOST_EVENTS = 200


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
    steps: tuple[Step, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    """Step and loss; not a number where the loss was not finite."""
    router_loss: float | None = None
    """Of a mixture's router, the newest."""
    penalty_loss: float | None = None
    """Of a method's penalty on the weights, the newest."""
    smoothing_loss: float | None = None
    """What label smoothing adds, the newest."""
    layers: Layers = NO_LAYERS
    """What is known of them by now."""
    memory: tuple[tuple[float, float], ...] = ()
    """Time and resident bytes of the run's processes."""
    sample: Usage | None = None
    """The newest one."""
    events: tuple[Event, ...] = ()
    of_rows: tuple[str, ...] = ()
    """What is to be minded of the rows that are trained on, as the newest attempt told it."""
    went_on_at: float = 0.0
    """Unix time of the newest end of a pause; 0 if there is none."""
    num_damaged: int = 0
    """Lines of all files that were passed over, so far."""

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
            router_loss=_newer(self.router_loss, later.router_loss),
            penalty_loss=_newer(self.penalty_loss, later.penalty_loss),
            smoothing_loss=_newer(self.smoothing_loss, later.smoothing_loss),
            memory=self.memory + later.memory,
            sample=later.sample or self.sample,
            events=(self.events + later.events)[-_MOST_EVENTS:],
            of_rows=later.of_rows or self.of_rows,
            went_on_at=max(self.went_on_at, later.went_on_at),
        )


def _newer(old: float | None, new: float | None) -> float | None:
    return old if new is None else new


class Reader:
    """Turns the files of a run into batches; not safe for two threads at once."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._metrics = Source(run.metrics)
        self._samples = Source(run.samples)
        self._events = Source(run.worker_events)
        self._of_layers, self._layers = Source(run.layers), LayerLog()

    def poll(self) -> Batch:
        """Read what is new."""
        metrics, events = self._metrics.poll(), self._events.poll()
        sources = (self._metrics, self._samples, self._events, self._of_layers)
        samples = [r for r in self._samples.poll() if isinstance(r, Usage)]
        losses = [r for r in metrics if isinstance(r, Loss)]
        went_on = [e.unix_seconds for e in events if isinstance(e, Unpaused)]
        return Batch(
            status=status(self._run),
            phase=heartbeats.of_worker(self._run).words,
            steps=tuple(r for r in metrics if isinstance(r, Step)),
            losses=tuple(map(_point, losses)),
            router_loss=losses[-1].router_loss if losses else None,
            penalty_loss=losses[-1].penalty_loss if losses else None,
            smoothing_loss=losses[-1].smoothing_loss if losses else None,
            layers=self._layers.add(self._of_layers.poll()),
            memory=tuple((r.unix_seconds, float(r.rss_bytes)) for r in samples),
            sample=samples[-1] if samples else None,
            events=tuple(event for r in events for event in _told(r))[-_MOST_EVENTS:],
            of_rows=next((r.warnings for r in reversed(events) if isinstance(r, Prepared)), ()),
            went_on_at=max(went_on, default=0.0),
            num_damaged=sum(source.num_damaged for source in sources),
        )


def _point(record: Loss) -> tuple[int, float]:
    return record.step, math.nan if record.loss is None else record.loss


def _told(record: Record) -> list[Event]:
    """An event for each line, for each has a row of its own."""
    return [Event(record.unix_seconds, text) for text in describe(record).splitlines()]


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
