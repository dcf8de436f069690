"""B27: memory that was left unused could have bought speed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from advisor.cost import memory
from advisor.cost.speed import flops_per_token
from advisor.plan import Plan
from advisor.rules.case import Case, Finding, NotMeasured

_UNUSED = 0.60
_MAY_USE = 0.92
_MAX_TOKENS = 16_384


def check(case: Case) -> Finding | NotMeasured | None:
    """Fires below 60 % of the device: first no recomputation, then a larger micro-batch."""
    run = case.run
    if run.device == "cpu":
        return NotMeasured("B27 headroom: on a CPU more memory buys no speed")
    if run.capacity_bytes == 0:
        return NotMeasured("B27 headroom: the driver gave no sample of the GPU's memory")
    used = run.device_peak_bytes or run.reserved_peak_bytes or run.peak_bytes
    if used > _UNUSED * run.capacity_bytes:
        return None
    plan = case.plan
    better = _without_recomputation(case, plan) or _larger_batch(case, plan)
    if better is None:
        return None
    change, after, factor = better
    return Finding(
        id="B27",
        title="unused memory",
        severity="warning",
        confidence="modelled",
        sentence=f"the peak is {used / 2**30:.1f} GiB of {run.capacity_bytes / 2**30:.1f} GiB",
        evidence={"used_bytes": used, "capacity_bytes": run.capacity_bytes},
        change=change,
        peak_delta_bytes=after - case.memory.expected_bytes,
        time_factor=factor,
        side_effects="none: the same rows in each optimizer step",
    )


Better = tuple[dict[str, tuple[Any, Any]], int, tuple[float, float, float]]


def _without_recomputation(case: Case, plan: Plan) -> Better | None:
    if not plan.checkpointing:
        return None
    kept = replace(plan, checkpointing=False)
    after = memory.estimate(case.model, kept)
    if after.high_bytes > _MAY_USE * case.run.capacity_bytes:
        return None
    before_flops = flops_per_token(case.model, plan).hardware_flops
    saved = 1 - flops_per_token(case.model, kept).hardware_flops / before_flops
    factor = (1 - 0.5 * saved, 1 - 0.75 * saved, 1 - saved)
    return {"train.checkpointing": (True, False)}, after.expected_bytes, factor


def _larger_batch(case: Case, plan: Plan) -> Better | None:
    if plan.accumulation < 2 or plan.accumulation % 2:  # nothing to trade in
        return None
    larger = replace(plan, micro_batch=2 * plan.micro_batch, accumulation=plan.accumulation // 2)
    after = memory.estimate(case.model, larger)
    too_much = after.high_bytes > _MAY_USE * case.run.capacity_bytes
    if too_much or larger.tokens_per_micro_batch > _MAX_TOKENS:
        return None
    change = {
        "train.micro_batch": (plan.micro_batch, larger.micro_batch),
        "train.accumulation": (plan.accumulation, larger.accumulation),
    }
    # How much of a step is launch overhead was not measured: between nothing and the host's share
    gap = case.run.phase_seconds.get("other", 0.0) / case.run.step_seconds
    return change, after.expected_bytes, (1.0, 1 - 0.25 * gap, 1 - 0.5 * gap)
