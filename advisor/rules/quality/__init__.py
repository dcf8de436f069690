"""Whether the model got better, and what its curves say: one small module a symptom.

The symptoms and remedies are those of the documents (monitoring and diagnosis). A rule takes a
Training and answers with a Finding, or with None where it has nothing to say; it needs no model
and no machine, so the report and the live screen share it.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.rules.case import SEVERITIES, Finding
from advisor.rules.quality import (
    forgetting,
    gain,
    movement,
    oscillation,
    overfitting,
    routing,
    underfitting,
)
from advisor.rules.quality.training import Training

RULES: tuple[Callable[[Training], Finding | None], ...] = (
    gain.check,
    forgetting.check,
    overfitting.check,
    oscillation.check,
    underfitting.check,
    routing.check,
    movement.check,
)


def findings(training: Training) -> tuple[Finding, ...]:
    """Of all rules, the worst first."""
    found = [one for rule in RULES if (one := rule(training)) is not None]
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))
