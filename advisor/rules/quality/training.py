"""What a rule on quality is given: the curves of a run, and what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advisor.recipe import Recipe
from profiles.layer_facts import NO_LAYERS, Layers
from profiles.run_facts import Curves, Result

_LOWER_TO = 1e-4
"""The documents' learning rate for a loss that oscillates or rises; below it a third."""
NOTABLE = 0.01
"""Share of a loss: a smaller change is taken for none. A heuristic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A run as far as it has come."""

    curves: Curves
    result: Result
    recipe: Recipe
    layers: Layers = NO_LAYERS

    @property
    def lower_rate(self) -> dict[str, tuple[Any, Any]]:
        """The change to a lower learning rate."""
        rate = self.recipe.learning_rate
        lower = _LOWER_TO if rate > _LOWER_TO else float(f"{rate / 3:.1g}")
        return {"train.learning_rate": (rate, lower)}

    def training_near(self, step: int) -> float | None:
        """Mean training loss of the logged steps around one; None without any."""
        reach = max(1, self.curves.num_steps // 20)
        near = [loss for at, loss in self.curves.training if abs(at - step) <= reach]
        return sum(near) / len(near) if near else None
