"""A rung made ready: its rank chosen, its hyper-parameters, its time and its disk."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.choice import defaults, hyperparameters, storage, words
from advisor.choice.duration import Duration, usual
from advisor.choice.fallback import nearest_that_runs
from advisor.choice.fit import Fit
from advisor.choice.hyperparameters import Configured
from advisor.choice.options import Options
from advisor.choice.tree import Leaf
from advisor.plan import Plan
from advisor.registry.lookup import preset_of
from advisor.registry.spec import Hyperparameter
from profiles.facts import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A rung with everything that its recipe needs."""

    rung: str
    fit: Fit
    hyperparameters: tuple[Hyperparameter, ...]
    learning_rate: float
    warmup: float
    """Share of the steps."""
    duration: Duration | None
    """None where the data's tokens or the device's rate are not known."""
    disk_bytes: int
    """Checkpoints kept, the final artefact, the base model's download, a mixture made of it."""
    kept_checkpoints: int
    why: str
    """Why it is not what the tree recommends; empty if it is."""

    @property
    def hours(self) -> float | None:
        """Of the whole run; None if that is not known."""
        return self.duration.hours if self.duration else None


def choose(
    rung: str, options: Options, dataset: Dataset | None, leaf: Leaf, *, why: str = ""
) -> Choice:
    """Choose the rung's rank and say how to set it up."""
    if preset_of(rung).is_ranked and options.fit(rung).fits:
        rank = hyperparameters.rank(leaf, options.model, dataset)
        options.set_rank(rung, rank, _dropout(options.fit(rung).plan, options, dataset))
    return _choice(rung, options.fit(rung), options, dataset, leaf, why)


def _dropout(plan: Plan, options: Options, dataset: Dataset | None) -> float:
    """None for adapters on experts: PEFT adds those to the weights, which have no input."""
    on_experts = options.model.experts is not None and plan.method.expert_rank(plan.settings)
    return 0.0 if on_experts or not plan.task.drops_out else hyperparameters.dropout(dataset)


def runnable(
    chosen: Choice, options: Options, dataset: Dataset | None, leaf: Leaf
) -> Choice | None:
    """The chosen one if our runner can run it, else the nearest that it runs."""
    if chosen.fit.runs:
        return chosen
    nearest = nearest_that_runs(chosen.rung, options)
    if nearest is None:
        return None
    rung, found = nearest
    why = words.nearest_runs(chosen.rung, rung)
    if rung != chosen.rung:
        return choose(rung, options, dataset, leaf, why=why)
    return _choice(rung, found, options, dataset, leaf, why)


def _choice(
    rung: str, found: Fit, options: Options, dataset: Dataset | None, leaf: Leaf, why: str
) -> Choice:
    plan, model = found.plan, options.model_of(rung)
    it = Configured(rung=rung, plan=plan, model=model, leaf=leaf, num_tasks=options.num_tasks)
    epochs = defaults.epochs(dataset)
    disk = options.disk(rung, plan)
    scarce = disk.total() > options.machine.disk_free_bytes
    kept = storage.LEAST_KEPT if scarce else storage.KEPT
    return Choice(
        rung=rung,
        fit=found,
        hyperparameters=hyperparameters.starting_values(it, options.machine, dataset, epochs),
        learning_rate=hyperparameters.rate(plan, model).value,
        warmup=hyperparameters.warmup(dataset, epochs, plan.effective_batch),
        duration=usual(found, model, options.machine, dataset, epochs),
        disk_bytes=disk.total(kept),
        kept_checkpoints=kept,
        why=why,
    )
