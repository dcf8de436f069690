"""B10: whole logits in fp32 dominate the peak; computing the loss in tiles removes them."""

from __future__ import annotations

from dataclasses import replace

from advisor.cost import memory
from advisor.rules.case import Case, Finding

_WARN, _CRITICAL = 0.15, 0.30


def check(case: Case) -> Finding | None:
    """Fires where the loss backward is the peak and logits hold at least 15 % of it."""
    estimate = case.memory
    held = sum(t.num_bytes for t in estimate.peak.terms if t.component == "logits")
    share = held / estimate.allocated_bytes
    if case.recipe.train.loss == "chunked" or estimate.winner != "loss_backward" or share < _WARN:
        return None
    plan = case.plan
    after = memory.estimate(case.model, replace(plan, loss="chunked"))
    return Finding(
        id="B10",
        title="logits and loss",
        severity="critical" if share >= _CRITICAL else "warning",
        confidence="exact",
        sentence=f"logits and loss take {held / 2**30:.2f} GiB, {share:.0%} of the peak, for "
        f"{plan.tokens_per_micro_batch} tokens x {case.model.vocab_size} vocabulary",
        evidence={
            "logits_bytes": held,
            "share": share,
            "tokens": plan.tokens_per_micro_batch,
            "vocabulary": case.model.vocab_size,
        },
        change={"train.loss": ("full", "chunked")},
        peak_delta_bytes=after.allocated_bytes - estimate.allocated_bytes,
        time_factor=(1.03, 1.015, 1.0),
        side_effects="none on the result; the head's product is computed twice",
    )
