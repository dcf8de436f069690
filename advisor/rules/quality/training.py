"""What a rule on quality is given: the curves of a run, and what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.recipe import Recipe
from profiles.run_facts import Curves, Result

NOTABLE = 0.01
"""Share of a loss: a smaller change is taken for none. A heuristic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A run as far as it has come."""

    curves: Curves
    result: Result
    recipe: Recipe

    def training_near(self, step: int) -> float | None:
        """Mean training loss of the logged steps around one; None without any."""
        reach = max(1, self.curves.num_steps // 20)
        near = [loss for at, loss in self.curves.training if abs(at - step) <= reach]
        return sum(near) / len(near) if near else None
