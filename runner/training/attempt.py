"""One attempt of a run, as the code that trains sees it: where it writes, and who watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from profiles.runs.journal import Journal
from profiles.runs.rundir import RunDir
from runner.training.stopping import StopFlag


class Progress(Protocol):
    """What the heartbeat shows."""

    phase: str
    """What is being done: loading, tokenising, evaluating, training, checkpoint, finishing."""

    def end_step(self, step: int, seconds: float) -> None:
        """An optimizer step is done; it took this long."""

    def tick(self) -> None:
        """Something smaller than a step is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Everything that an attempt tells and is told."""

    run: RunDir
    events: Journal
    """Silent on every rank but the first."""
    metrics: Journal
    progress: Progress
    stop: StopFlag
