"""One attempt of a run, as the code that trains sees it: where it writes, and who watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from profiles.runs.journal import Journal
from profiles.runs.records.worker import Phase
from profiles.runs.rundir import RunDir
from runner.training.stopping import StopFlag


class Progress(Protocol):
    """What the heartbeat shows."""

    phase: str
    """What is being done: loading, tokenising, evaluating, training, checkpoint, finishing."""

    def during(self, phase: str, total: int = 0) -> AbstractContextManager[None]:
        """What goes on inside; `total`: how many ticks it takes, 0 if nobody knows."""

    def expect(self, total: int) -> None:
        """So many ticks from here on, in the same phase."""

    def end_step(self, step: int, seconds: float) -> None:
        """An optimizer step is done; it took this long."""

    def tick(self, number: int = 1) -> None:
        """Something smaller than a step is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Everything that an attempt tells and is told."""

    run: RunDir
    events: Journal
    """Silent on every rank but the first."""
    metrics: Journal
    evaluations: Journal
    layers: Journal
    progress: Progress
    stop: StopFlag
    began: float = field(default_factory=time.monotonic)
    """When the attempt began, by the monotonic clock."""

    @contextmanager
    def during(self, phase: str, total: int = 0) -> Iterator[None]:
        """A part of the start or of the end: told as it begins, and shown while it goes on."""
        self.events.append(Phase(phase=phase, total=total))
        with self.progress.during(phase, total):
            yield
