"""What of a plan cannot be started, alone or together: each with its recipe key and what goes.

It reads specs and settings; what a recipe says beside them is checked in `recipe`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from advisor.registry.conflicts import (
    Together,
    conflicts,
    no_head,
    packed,
    recomputed,
    unlearnt_tokens,
    unshifted,
)
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS, is_ready
from advisor.registry.low_rank import LORA
from advisor.registry.optimizers import ADAMW
from advisor.registry.spec import keys_of
from advisor.registry.tasks import SFT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from advisor.plan import Plan
    from advisor.registry.engine_spec import EngineSpec


def unstartable(plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of all that is known and cannot be started."""
    yield from _not_built(plan)
    yield from _of_settings(plan)
    yield from _beside_the_method(plan)
    yield from conflicts(
        Together(plan.method, plan.settings, plan.optimizer, plan.engine, plan.task)
    )


def _not_built(plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of what is known and has no builder."""
    for key, entry, instead, registry in (
        ("task", plan.task, SFT.name, TASKS),
        ("method.name", plan.method, LORA.name, METHODS),
        ("train.optimizer", plan.optimizer, ADAMW.name, OPTIMIZERS),
        ("hardware.strategy", plan.engine, _nearest(plan.engine), ENGINES),
    ):
        if not is_ready(entry):
            can_be = f'it runs {", ".join(registry.ready)}: take {key} = "{instead}"'
            yield key, f"this version does not run {entry.name} yet; {can_be}"


def _nearest(engine: EngineSpec) -> str:
    """Of those that run on as many devices, the one that divides what this one does."""
    able = [one for one in ENGINES if is_ready(one) and one.several == engine.several]
    return min(able, key=lambda one: len(one.divides ^ engine.divides)).name


def _of_settings(plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of values of [method] that no builder takes."""
    for name, (_, about) in keys_of(plan.method.settings).items():
        value = getattr(plan.settings, name)
        if value in about.not_yet:
            able = [choice for choice in about.choices if choice not in about.not_yet]
            instead = f"take method.{name} = {json.dumps(able[-1])}"
            yield f"method.{name}", f"this version does not run {value} yet; {instead}"


def _beside_the_method(plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of what the method cannot be trained with."""
    if reason := no_head(plan.method, plan.task):
        yield "method.name", reason
    if plan.num_new_tokens and (reason := unlearnt_tokens(plan.method, plan.engine)):
        yield "model.new_tokens", reason
    if plan.shifted_attention and (reason := unshifted(plan.method, plan.settings, plan.task)):
        yield "train.shifted_attention", f"{reason}; leave it out"
    if plan.label_smoothing and plan.loss == "chunked":
        why = "label smoothing is taken over whole logits, which are never held chunked"
        yield "objective.label_smoothing", f'{why}: take train.loss = "full", or leave it out'
    if plan.packing and (reason := packed(plan.method, plan.settings)):
        yield "data.packing", f"{reason}; leave it out"
    if plan.checkpointing and (reason := recomputed(plan.method)):
        why = f"{reason}; leave it out"
        yield "train.checkpointing", f"{why}, and lower data.max_length if memory runs out"
