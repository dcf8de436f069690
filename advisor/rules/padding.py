"""B02: tokens that are only padding cost as much as real ones."""

from __future__ import annotations

from typing import Any

from advisor.graph.attention import READ_ACROSS
from advisor.rules.case import Case, Finding

_WARN, _CRITICAL = 0.10, 0.30


def check(case: Case) -> Finding | None:
    """Fires from 10 % padding; the linear part of a step shrinks by that share."""
    share = case.padding_share
    if share < _WARN or case.recipe.data.packing:
        return None
    change, effects = _remedy(case)
    family = case.model.model_type
    left = "" if change else f"; {family} cannot be packed, fewer rows at once would be padded less"
    return Finding(
        id="B02",
        title="padding",
        severity="critical" if share >= _CRITICAL else "warning",
        confidence="exact",
        sentence=f"{share:.0%} of the processed tokens are padding "
        f"({case.run.padded_tokens - case.run.tokens} of {case.run.padded_tokens}){left}",
        evidence={
            "padding_share": share,
            "tokens": case.run.tokens,
            "padded_tokens": case.run.padded_tokens,
        },
        change=change,
        time_factor=(1 - 0.5 * share, 1 - 0.75 * share, 1 - share) if change else (1.0, 1.0, 1.0),
        side_effects=effects,
    )


def _remedy(case: Case) -> tuple[dict[str, tuple[Any, Any]], str]:
    """What to change against padding, if anything can be, and what else comes of it."""
    train = case.recipe.train
    rows = train.micro_batch
    if rows > 1 and case.plan.num_gpus == 1 and case.run.device == "cpu":
        # Packing needs block masks that a CPU computes in full; rows one by one need no padding
        return {
            "train.micro_batch": (rows, 1),
            "train.accumulation": (train.accumulation, train.accumulation * rows),
        }, "none: the same rows in each optimizer step"
    if case.model.model_type in READ_ACROSS:
        return {}, "none, for nothing is changed"
    return {"data.packing": (False, True)}, "fewer, fuller optimizer steps: look at their number"
