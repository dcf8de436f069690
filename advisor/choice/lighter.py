"""Changes of a recipe that save memory, for one that did not fit after all."""

from __future__ import annotations

from collections.abc import Iterator

from advisor.plan import Plan
from advisor.registry.conflicts import conflict
from advisor.registry.lookup import METHODS, OPTIMIZERS, PRESETS, is_ready

_MOST = 3


def changes(plan: Plan) -> tuple[str, ...]:
    """As lines of a recipe, the cheapest in speed and quality first; at most three."""
    found = _changes(plan)
    return tuple(change for change, _ in zip(found, range(_MOST), strict=False))


def _changes(plan: Plan) -> Iterator[str]:
    if plan.loss == "full" and plan.task.head == "lm":
        yield 'train.loss = "chunked"'
    if not plan.checkpointing and plan.method.recomputes:
        yield "train.checkpointing = true"
    if plan.method.trains_base and (optimizer := _smaller_states(plan)):
        yield f'train.optimizer = "{optimizer}"'
    if method := _next_method(plan):
        yield f'method.name = "{method}"'
    yield f"data.max_length = {plan.seq_len // 2}"


def _smaller_states(plan: Plan) -> str:
    """The first optimizer that runs and keeps fewer bytes for a weight; empty if none does.

    Of those alone that go with the same learning rate, which the recipe may name.
    """
    mine = plan.optimizer
    kept = mine.states * mine.bits
    for other in OPTIMIZERS:
        fits = not conflict(plan.method, plan.settings, other, plan.engine, plan.task)
        fits = fits and not other.own_schedule and other.rate_factor == mine.rate_factor
        if is_ready(other) and fits and other.states * other.bits < kept:
            return other.name
    return ""


def _next_method(plan: Plan) -> str:
    """The next on the ladder that runs, of less memory than this one; empty if it is the last."""
    ladder = [p.method for p in PRESETS if p.place == "ladder" and is_ready(p)]
    if plan.method.name not in ladder:
        return ""
    below = ladder[ladder.index(plan.method.name) :]
    return next((name for name in below if METHODS[name] is not plan.method), "")
