"""A rung made ready: its rank settled, its hyper-parameters, its time and its disk."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.choice import settings, storage, wants, words
from advisor.choice.alternatives import hours
from advisor.choice.fit import Fit
from advisor.choice.options import Options
from advisor.choice.settings import Choice
from advisor.choice.settle import nearest_that_runs
from advisor.choice.tree import Leaf
from advisor.plan import Plan
from advisor.registry.lookup import preset_of
from advisor.registry.spec import Setting
from profiles.facts import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """A rung with everything that its recipe needs."""

    rung: str
    fit: Fit
    settings: tuple[Setting, ...]
    learning_rate: float
    warmup: float
    """Share of the steps."""
    hours: float | None
    disk_bytes: int
    """Checkpoints kept, the final artefact, and the base model's download."""
    kept_checkpoints: int
    why: str
    """Why it is not what the tree recommends; empty if it is."""


def pick(
    rung: str, options: Options, dataset: Dataset | None, leaf: Leaf, *, why: str = ""
) -> Pick:
    """Settle the rung's rank and say how to set it up."""
    if preset_of(rung).is_ranked and options.fit(rung).fits:
        rank = settings.rank(leaf, options.model, dataset)
        options.settle_rank(rung, rank, _dropout(options.fit(rung).plan, options, dataset))
    return _pick(rung, options.fit(rung), options, dataset, leaf, why)


def _dropout(plan: Plan, options: Options, dataset: Dataset | None) -> float:
    """None for adapters on experts: PEFT adds those to the weights, which have no input."""
    on_experts = options.model.experts is not None and plan.method.expert_rank(plan.settings)
    return 0.0 if on_experts else settings.dropout(dataset)


def runnable(chosen: Pick, options: Options, dataset: Dataset | None, leaf: Leaf) -> Pick | None:
    """The chosen one if our runner can run it, else the nearest that it runs."""
    if options.runs(chosen.rung, chosen.fit):
        return chosen
    nearest = nearest_that_runs(chosen.rung, options)
    if nearest is None:
        return None
    rung, found = nearest
    why = words.nearest_runs(chosen.rung, rung)
    if rung != chosen.rung:
        return pick(rung, options, dataset, leaf, why=why)
    return _pick(rung, found, options, dataset, leaf, why)


def _pick(
    rung: str, found: Fit, options: Options, dataset: Dataset | None, leaf: Leaf, why: str
) -> Pick:
    plan, model = found.plan, options.model_of(rung)
    choice = Choice(rung=rung, plan=plan, model=model, leaf=leaf, num_tasks=options.num_tasks)
    epochs = wants.epochs(dataset)
    disk = storage.disk(model, plan)
    scarce = not options.machine.planned and disk.total() > options.machine.disk_free_bytes
    kept = storage.LEAST_KEPT if scarce else storage.KEPT
    return Pick(
        rung=rung,
        fit=found,
        settings=settings.settings(choice, options.machine, dataset, epochs),
        learning_rate=plan.method.rate(model, plan.settings).value,
        warmup=settings.warmup(dataset, epochs, plan.effective_batch),
        hours=hours(found, dataset, epochs),
        disk_bytes=disk.total(kept),
        kept_checkpoints=kept,
        why=why,
    )
