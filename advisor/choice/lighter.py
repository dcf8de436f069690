"""Changes of a recipe that save memory, for a run that has just run out of it."""

from __future__ import annotations

from advisor.plan import Plan
from advisor.registry.lookup import OPTIMIZERS

_MOST = 3


def lighter(plan: Plan) -> list[str]:
    """Up to three changes, the cheapest in speed and quality first, as a recipe has them."""
    changes = []
    if plan.loss != "chunked":
        changes.append('train.loss = "chunked"')
    if not plan.checkpointing:
        changes.append("train.checkpointing = true")
    if optimizer := _lighter_optimizer(plan):
        changes.append(f'train.optimizer = "{optimizer}"')
    if plan.method.lighter:
        changes.append(f'method.name = "{plan.method.lighter}"')
    changes.append(f"data.max_length = {plan.seq_len // 2}")
    return changes[:_MOST]


def _lighter_optimizer(plan: Plan) -> str:
    """One that runs with as many states in fewer bits; adapters have next to none."""
    own = plan.optimizer
    if not plan.method.trains_base:
        return ""
    same = [OPTIMIZERS[name] for name in OPTIMIZERS.ready if OPTIMIZERS[name].states == own.states]
    return next((one.name for one in same if one.bits < own.bits), "")
