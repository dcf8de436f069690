"""B02: tokens that are only padding cost as much as real ones."""

from __future__ import annotations

from advisor.rules.case import Case, Finding

_WARN, _CRITICAL = 0.10, 0.30


def check(case: Case) -> Finding | None:
    """Fires from 10 % padding; the linear part of a step shrinks by that share."""
    share = case.padding_share
    if share < _WARN or case.recipe.data.packing:
        return None
    rows = case.recipe.train.micro_batch
    alone = rows > 1 and case.plan.num_gpus == 1
    if alone and case.run.device == "cpu":
        # Packing needs block masks that a CPU computes in full; rows one by one need no padding
        change = {
            "train.micro_batch": (rows, 1),
            "train.accumulation": (
                case.recipe.train.accumulation,
                case.recipe.train.accumulation * rows,
            ),
        }
        effects = "none: the same rows in each optimizer step"
    else:
        change = {"data.packing": (False, True)}
        effects = "fewer, fuller optimizer steps: look at the number of steps"
    return Finding(
        id="B02",
        title="padding",
        severity="critical" if share >= _CRITICAL else "warning",
        confidence="exact",
        sentence=f"{share:.0%} of the processed tokens are padding "
        f"({case.run.padded_tokens - case.run.tokens} of {case.run.padded_tokens})",
        evidence={
            "padding_share": share,
            "tokens": case.run.tokens,
            "padded_tokens": case.run.padded_tokens,
        },
        change=change,
        time_factor=(1 - 0.5 * share, 1 - 0.75 * share, 1 - share),
        side_effects=effects,
    )
