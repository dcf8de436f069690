"""Into how many pieces a micro-batch is divided: more after each shortage of memory, never fewer.

Every change is an event, from which people, reports and later attempts know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from profiles.quantities import bytes_text
from profiles.runs.records.worker import OutOfMemory
from runner.training import oom
from runner.training.attempt import Attempt

During = Literal["train", "eval"]
DURING: tuple[During, ...] = ("train", "eval")


@dataclass(slots=True, kw_only=True)
class Division:
    """The pieces of training and of evaluation, each on its own."""

    attempt: Attempt
    device: torch.device
    rows: int
    """Rows of a whole micro-batch on this device."""
    accumulation: int
    lighter: Sequence[str]
    """Changes of the recipe that save memory, cheapest first."""
    pieces: dict[During, int] = field(default_factory=lambda: {"train": 1, "eval": 1})

    def reason_of(self, error: Exception) -> str:
        """First line of an error that fewer rows at a time would have prevented; else empty."""
        lacking = oom.shortage(error)
        is_ours = lacking is oom.Shortage.GPU or (self.device.type == "cpu" and lacking is not None)
        return (str(error).split("\n", maxsplit=1)[0] or type(error).__name__) if is_ours else ""

    def divide(self, during: During, reason: str, *, rows: int, step: int, is_alone: bool) -> None:
        """Twice as many pieces from here on; OutOfMemoryError if this process cannot go on.

        `rows`: the most that one of the failed batches has. `is_alone`: no other rank waits for
        this one in a collective.
        """
        pieces = 2 * self.pieces[during]
        is_possible = pieces < 2 * rows
        if not (is_possible and is_alone and oom.is_sane(self.device)):
            raise self._out_of_memory(reason, pieces, can_restart=is_possible)
        self.set(during, pieces, reason, step=step)

    def set(self, during: During, pieces: int, reason: str, *, step: int) -> None:
        """Use this many pieces, and say so."""
        self.pieces[during] = pieces
        smaller = -(-self.rows // pieces)
        accumulation = self.accumulation * (pieces if during == "train" else 1)
        whose = "effective batch unchanged" if during == "train" else "evaluation only"
        divided = OutOfMemory(
            step=step,
            during=during,
            pieces=pieces,
            micro_batch=smaller,
            accumulation=accumulation,
            error=reason[:500],
            what=f"out of memory: micro-batch {smaller} (was {self.rows}), "
            f"accumulation {accumulation}; {whose}",
        )
        self.attempt.events.append(divided)

    def _out_of_memory(
        self, reason: str, pieces: int, *, can_restart: bool
    ) -> oom.OutOfMemoryError:
        peak = ""
        if self.device.type == "cuda":
            peak = f"; the peak was {bytes_text(torch.cuda.max_memory_allocated())}"
        return oom.OutOfMemoryError(
            reason + peak,
            on_cpu=self.device.type == "cpu",
            do="a clean process goes on from the last checkpoint with a smaller micro-batch"
            if can_restart
            else "one row at a time is too much; cheapest first: " + "; ".join(self.lighter),
            where=str(self.attempt.run.console),
            pieces=pieces,
            clean_restart=can_restart,
        )
