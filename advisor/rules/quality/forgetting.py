"""Q02: what the base model could and this one cannot as well."""

from __future__ import annotations

from advisor.rules.case import Finding
from advisor.rules.quality.training import Training
from profiles.run_facts import Change


def check(training: Training) -> Finding | None:
    """Fires if the loss on another evaluation set is clearly above the base model's."""
    worse = training.result.worse_on
    if not worse:
        return None
    told = ", ".join(f"{one.data} {_what(one)}" for one in worse)
    return Finding(
        id="Q02",
        title="forgetting",
        severity="warning",
        confidence="exact",
        sentence=f"worse on {told}: mix such rows into the training data, train for "
        "fewer steps, or adapt fewer weights",
        evidence={f"loss_on_{one.data}": one.loss for one in worse if one.loss is not None},
    )


def _what(one: Change) -> str:
    """What got worse there, from where to where."""
    if one.scores:
        first = one.scores[0]
        return f"({first.name} from {first.before:.3f} to {first.value:.3f})"
    return f"(loss from {one.base_loss:.4f} to {one.loss:.4f})"
