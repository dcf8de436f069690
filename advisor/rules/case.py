"""What a rule is given, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from advisor.cost.memory import MemoryEstimate
from advisor.plan import Plan
from advisor.recipe import Recipe
from profiles.facts import Model
from profiles.run_facts import Run

Severity = Literal["critical", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The worst first."""
Confidence = Literal["exact", "bound", "modelled", "published"]
Range = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run with what was asked of it."""

    run: Run
    recipe: Recipe
    model: Model
    plan: Plan
    """The recipe on the machine of the run, with the longest row that was seen."""
    memory: MemoryEstimate
    """Predicted for the plan."""

    @property
    def padding_share(self) -> float:
        """Share of the processed tokens that were padding."""
        return 1 - self.run.tokens / self.run.padded_tokens if self.run.padded_tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One piece of advice, with its evidence and what it would gain."""

    id: str
    """B01 to B28, as in the reference on bottlenecks."""
    title: str
    severity: Severity
    confidence: Confidence
    sentence: str
    """The evidence in words."""
    evidence: dict[str, float]
    change: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Recipe key -> (old, new)."""
    peak_delta_bytes: int = 0
    time_factor: Range = (1.0, 1.0, 1.0)
    """Training time after the change over before: least, likely and most gain."""
    side_effects: str = "none on the result"

    @property
    def best_gain(self) -> float:
        """For ranking: the share of time saved at most, or of 64 GiB of memory."""
        return max(1 - self.time_factor[2], -self.peak_delta_bytes / (64 << 30))


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """A rule could not be applied."""

    text: str
