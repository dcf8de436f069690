"""Which step's weights are the best so far, and when going on is of no use.

Decided on the evaluation losses of the first evaluation set alone, in the order of the steps, so
that an attempt that was resumed decides as one that was never disturbed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from profiles.runs.records import Record
from profiles.runs.records.evaluation import Evaluated


@dataclass(slots=True, kw_only=True)
class Selection:
    """The evaluations of a run, as far as it has come."""

    patience: int | None = None
    """Evaluations without a lower loss after which training ends; None: it goes on."""
    losses: dict[int, float] = field(default_factory=dict)
    """By step, the base model's left out; infinite if it was not finite."""

    def recall(self, events: Iterable[Record], data: str, until: int) -> None:
        """Take in what earlier attempts found, as far as this one does not find it again."""
        for event in events:
            if isinstance(event, Evaluated) and (event.data or "") == data and event.step <= until:
                self.add(event.step, event.loss)

    def add(self, step: int, loss: float | None) -> None:
        """One evaluation; of a step that was evaluated before, the newer counts."""
        if step > 0:
            is_number = loss is not None and math.isfinite(loss)
            self.losses[step] = loss if is_number and loss is not None else math.inf

    @property
    def best(self) -> int | None:
        """The step with the lowest loss, the first of several; None before any was finite."""
        found = min(self.losses, key=lambda step: (self.losses[step], step), default=None)
        return None if found is None or math.isinf(self.losses[found]) else found

    @property
    def num_since_best(self) -> int:
        """Evaluations after the best one."""
        best = self.best
        return sum(best is None or step > best for step in self.losses)

    @property
    def is_over(self) -> bool:
        """There was no lower loss for as long as the recipe waits."""
        return self.patience is not None and self.num_since_best >= self.patience
