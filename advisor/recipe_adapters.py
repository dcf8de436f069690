"""What does not go with adapters that are there already, which a recipe's [model] names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from advisor.plan import Plan
from advisor.recipe_sections import ModelSection
from advisor.registry.lookup import METHODS
from advisor.registry.spec import Settings, keys_of

MERGE: Final = (
    "add --set model.adapter_use=merge, which adds it to the model, and [method] begins anew"
)
"""What is left to do with an adapter that no run can go on with."""


def refused(asked: ModelSection, plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of all of it."""
    yield from _of_adapter(asked, plan)
    yield from _of_experts(asked, plan)


def _of_adapter(asked: ModelSection, plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of what does not go with an adapter that is there already."""
    method, task = plan.method, plan.task
    if asked.adapter is None:
        if asked.adapter_use is not None:
            yield "model.adapter_use", "there is no model.adapter that it could be about"
        return
    if task.head != "lm":
        why = f"{task.name} has a head of its own, which no adapter goes on with here"
        yield "model.adapter", f"{why}; leave it out, or merge it and name the merged model"
        return
    if asked.merges:
        return
    if asked.new_tokens:
        why = "an adapter that is there has no rows for tokens that are new"
        yield "model.new_tokens", f"{why}: leave it out; or {MERGE}"
    if method.continued is None:
        yield "model.adapter_use", f"{method.title} cannot go on with an adapter; {MERGE}"
    elif task.reference:
        why = f"{task.title} compares with the model without its adapter, which is not the one that"
        yield "model.adapter_use", f"{why} it begins with; {MERGE}"
    yield from _brought(plan.settings)


def _of_experts(asked: ModelSection, plan: Plan) -> Iterator[tuple[str, str]]:
    """(key, why) of what does not go with adapters that experts begin as."""
    named, method, settings = asked.adapters, plan.method, plan.settings
    if method.mixes is None:
        able = [f'"{one.name}"' for one in METHODS if one.mixes]
        if named:
            why = f"{method.title} has no experts that could begin as them"
            yield (
                "model.adapters",
                f"{why}; take method.name = {' or '.join(able)}, or leave it out",
            )
        return
    if named and asked.continues:
        why = "model.adapters are what is begun with"
        yield "model.adapter", f"{why}: leave it out, or {MERGE}"
    if named and len(named) != getattr(settings, "experts", 0):
        yield "method.experts", f"there are {len(named)} model.adapters: write {len(named)}"
    if not named and getattr(settings, "freeze_experts", False):
        why = "new experts add nothing until they learn, so that no router would learn either"
        yield "method.freeze_experts", f"{why}; name model.adapters, or leave it out"


def _brought(settings: Settings) -> Iterator[tuple[str, str]]:
    """(key, why) of settings that make weights, of which an adapter that is there has its own."""
    for name in ("init", "init_text"):
        about = keys_of(type(settings)).get(name)
        if about and getattr(settings, name) != about[0].default:
            why = f"model.adapter brings the weights that method.{name} would make"
            yield f"method.{name}", f"{why}: leave it out; or {MERGE}"
