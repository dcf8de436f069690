"""Records of metrics.jsonl: steps and losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from profiles.runs.records.form import LEFT_OUT
from profiles.runs.records.record import Record

PHASES = ("data", "forward", "backward", "optimizer", "other")
"""What a step's time goes to, in the order of the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Record):
    """One optimizer step. Counts are of all ranks, memory is of the first one."""

    kind: ClassVar[str] = "step"

    step: int
    seconds: float
    phases: dict[str, float]
    """Seconds of the host by phase; on a GPU the host only queues work."""
    rows: int
    padded_tokens: int
    tokens: int
    label_tokens: int
    longest: int
    """Tokens of the longest row."""
    rss_peak_bytes: int
    """Of the process, since its start."""
    allocated_bytes: int | None = field(default=None, metadata=LEFT_OUT)
    """This and the following on a GPU alone, peaks since the start of the process."""
    allocated_peak_bytes: int | None = field(default=None, metadata=LEFT_OUT)
    reserved_peak_bytes: int | None = field(default=None, metadata=LEFT_OUT)
    num_alloc_retries: int | None = field(default=None, metadata=LEFT_OUT)
    gpu_phases: dict[str, float] | None = field(default=None, metadata=LEFT_OUT)
    """Seconds of the device by phase, without `other`."""

    @property
    def phase_seconds(self) -> dict[str, float]:
        """Where the time went: device times where there are some."""
        if not self.gpu_phases:
            return self.phases
        rest = self.seconds - sum(self.gpu_phases.values())
        return {**self.gpu_phases, "other": max(0.0, rest)}

    @property
    def peak_bytes(self) -> int:
        """Memory that nobody else can have: the GPU's, on a CPU the process's."""
        return self.reserved_peak_bytes or self.rss_peak_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Record):
    """What was logged of a step; None for a number that was not finite, or not logged."""

    kind: ClassVar[str] = "loss"

    step: int
    loss: float | None
    """Of the rows."""
    router_loss: float | None = field(default=None, metadata=LEFT_OUT)
    """Of a mixture's router, which is minimised with it."""
    grad_norm: float | None = field(default=None, metadata=LEFT_OUT)
    learning_rate: float | None = field(default=None, metadata=LEFT_OUT)
    epoch: float | None = field(default=None, metadata=LEFT_OUT)
    penalty_loss: float | None = field(default=None, metadata=LEFT_OUT)
    """Of the trained weights alone, which a method minimises with that of the rows."""
    smoothing_loss: float | None = field(default=None, metadata=LEFT_OUT)
    """What label smoothing adds to that of the rows; below 0 where it is less."""


def loss_text(loss: float | None) -> str:
    """A loss in words."""
    return "not finite" if loss is None else f"{loss:.4f}"


def beside_text(router: float | None, penalty: float | None, smoothing: float | None) -> str:
    """What is minimised beside the rows' loss, by whose it is; empty without any of it."""
    parts = {"router": router, "penalty": penalty, "smoothing": smoothing}
    told = [f"{name} {loss:.4f}" for name, loss in parts.items() if loss is not None]
    return f"{' and '.join(told)} beside it" if told else ""
