"""The hyper-parameters to start from, each with its reason (documents §3 and §4).

Ranges are the documents'; where in a range to start is a heuristic on rank, model size and rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from advisor.choice.defaults import MANY_ROWS
from advisor.choice.tree import Leaf
from advisor.choice.upcycle import AUX_LOSS
from advisor.plan import Plan
from advisor.registry.lookup import preset_of
from advisor.registry.low_rank import LowRank
from advisor.registry.mixtures import LoraExperts
from advisor.registry.spec import Hyperparameter, Rate, keys_of
from profiles.facts import Dataset, Machine, Model

WEIGHT_DECAY: Final = 0.01
MAX_GRAD_NORM: Final = 1.0
SCHEDULER: Final = "cosine"
PATIENCE: Final = 3
"""Evaluations without a lower loss after which training ends (documents)."""
_WARMUP_SHARE: Final = 0.1
_WARMUP_STEPS: Final = 100
_FEW_ROWS: Final = 1000
_SOME_DROPOUT: Final = 0.05


def rank(leaf: Leaf, model: Model, dataset: Dataset | None) -> int:
    """The documents' range: its upper end for much data; never above a quarter of the width."""
    return max(1, min(_in_range(leaf.ranks or (8, 16), dataset), model.hidden_size // 4))


def _in_range(ends: tuple[int, int], dataset: Dataset | None) -> int:
    low, high = ends
    return high if dataset is not None and dataset.num_rows >= MANY_ROWS else low


def of_domain(leaf: Leaf, model: Model, dataset: Dataset | None) -> dict[str, Any]:
    """The documents' settings for what the model is for; of a mixture `leaf` says the targets."""
    if leaf.domain is None:
        return {}
    found = {name: _in_range(ends, dataset) for name, ends in leaf.domain.ranges.items()}
    found |= leaf.domain.settings
    found |= {"rank": rank(leaf, model, dataset)} if "rank" in found else {}
    return {k: v for k, v in found.items() if k != "targets" or model.experts is None}


def dropout(dataset: Dataset | None) -> float:
    """None, unless rows are so few that they will be learned by heart."""
    return _SOME_DROPOUT if dataset is not None and dataset.num_rows < _FEW_ROWS else 0.0


def warmup(dataset: Dataset | None, epochs: float, effective_batch: int) -> float:
    """Share of the steps: a tenth, but no more than 100 steps."""
    if dataset is None:
        return _WARMUP_SHARE
    steps = max(1.0, dataset.num_rows * epochs / effective_batch)
    return round(min(_WARMUP_SHARE, _WARMUP_STEPS / steps), 4)


def rate(plan: Plan, model: Model) -> Rate:
    """Where in the method's range to start, as task and optimizer ask for it."""
    found = plan.optimizer.rate(plan.method.rate(model, plan.settings))
    if plan.task.rate_factor == 1:
        return found
    reason = f"{plan.task.rate_factor:g} of that of fine-tuning on replies; {found.reason}"
    return Rate(plan.task.rate(found.value), reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What is to be set up: a rung's plan, for the model that it trains."""

    rung: str
    plan: Plan
    model: Model
    leaf: Leaf
    num_tasks: int


def starting_values(
    configured: Configured, machine: Machine, dataset: Dataset | None, epochs: float
) -> tuple[Hyperparameter, ...]:
    """Everything to start from, in the order in which people ask."""
    model, plan = configured.model, configured.plan
    found = rate(plan, model)
    share = warmup(dataset, epochs, plan.effective_batch)
    rows = "the data's size is not known" if dataset is None else f"{dataset.num_rows} rows"
    return (
        Hyperparameter("learning rate", f"{found.value:g}", found.reason),
        *_of_objective(plan),
        *_of_method(configured, dataset),
        *_of_mixture(configured),
        Hyperparameter("scheduler", SCHEDULER, "documents: cosine or linear"),
        Hyperparameter("warm-up", f"{share:.3g} of the steps", "documents: 10 %, or 100 steps"),
        Hyperparameter("weight decay", f"{WEIGHT_DECAY:g}", "documents"),
        Hyperparameter("gradient clipping", f"{MAX_GRAD_NORM:g}", "documents"),
        _precision(machine, plan),
        Hyperparameter("epochs", f"{epochs:g}", rows),
        Hyperparameter(
            "early stopping",
            f"after {PATIENCE} evaluations",
            "documents: no better in 3 of them; the best step is published",
        ),
        *_afterwards(configured.leaf),
    )


def _of_objective(plan: Plan) -> tuple[Hyperparameter, ...]:
    """The task's own settings, as they are where nobody says otherwise."""
    return tuple(
        Hyperparameter(name, f"{field.default:g}", f"{plan.task.title}: {about.doc}")
        for name, (field, about) in keys_of(plan.task.objective).items()
        if field.default  # what is off is no choice that was made
    )


def _of_method(configured: Configured, dataset: Dataset | None) -> tuple[Hyperparameter, ...]:
    """What the method shows, with the reasons that the data and the tree have."""
    plan, ranks = configured.plan, configured.leaf.ranks
    heuristic = "a heuristic, not a measurement"
    reasons = {"rank": f"small adapters for a light change; {heuristic}"}
    ranked = plan.settings if isinstance(plan.settings, LowRank | LoraExperts) else None
    if ranks and ranked and ranks[0] <= ranked.rank <= ranks[1]:
        reasons["rank"] = f"documents: {ranks[0]} to {ranks[1]} here; {heuristic}"
    if ranked and ranked.dropout and dataset is not None:
        reasons["dropout"] = f"only {dataset.num_rows} rows: they could be learned by heart"
    reasons |= _of_domain(configured, dataset)
    if isinstance(plan.settings, LoraExperts):
        reasons["experts"] = f"documents: one a task; the data have {configured.num_tasks}"
    return tuple(
        Hyperparameter(s.name, s.value, reasons.get(s.name, s.reason))
        for s in plan.method.shows(plan.settings, configured.model)
    )


def _of_domain(configured: Configured, dataset: Dataset | None) -> dict[str, str]:
    """Which settings are the documents' for what the model is for, and what was given up."""
    leaf, reasons = configured.leaf, {}
    if leaf.domain is None:
        return {}
    wanted = of_domain(leaf, configured.model, dataset)
    for name in leaf.domain.keys:
        value = getattr(configured.plan.settings, name, None)
        reason = f"documents, for {leaf.domain.title}: {leaf.domain.words}"
        if name in wanted and value != wanted[name]:
            reason += f"; {wanted[name]} does not fit this machine"
        elif name == "rank" and wanted[name] < leaf.domain.ranges[name][0]:
            reason += "; more than a quarter of the model's width is too much"
        reasons[name.replace("_", " ")] = reason
    return reasons


def _afterwards(leaf: Leaf) -> tuple[Hyperparameter, ...]:
    if leaf.domain is None or not leaf.domain.afterwards:
        return ()
    reason = f"documents, for {leaf.domain.title}: {leaf.domain.words}"
    return (Hyperparameter("afterwards", leaf.domain.afterwards, reason),)


def _of_mixture(configured: Configured) -> tuple[Hyperparameter, ...]:
    """The router, and what keeps the experts in balance."""
    plan, experts = configured.plan, configured.model.experts
    if experts is None:
        return ()
    if not plan.method.trains_base:
        count = f"{experts.num_experts} experts, {experts.top_k} a token"
        adapted = plan.method.expert_rank(plan.settings) > 0
        word = "adapted" if adapted else "frozen"
        return (
            Hyperparameter("experts", word, f"{count}; all are in memory"),
            Hyperparameter("router", "frozen", "its balance holds"),
        )
    if preset_of(configured.rung).upcycles:
        value, reason = f"{AUX_LOSS:g}", "documents: for a router that starts from nothing"
    else:
        value, reason = "the model's own", "router_aux_loss_coef of its config: it was trained so"
    return (
        Hyperparameter("router", "trained", "with all other weights"),
        Hyperparameter("aux loss", value, reason),
    )


def _precision(machine: Machine, plan: Plan) -> Hyperparameter:
    may_use = "; what stays in fp32 may use TF32" if machine.backend == "cuda" else ""
    reasons = {
        "bf16": f"the GPU has it{may_use}",
        "fp16": "with loss scaling: the GPU has no bf16",
        "fp32": "no fast 16-bit arithmetic on a CPU",
    }
    reason = reasons.get(plan.precision, "")
    if plan.precision == "fp32" and machine.gpus:
        reason = "asked for"
    return Hyperparameter("precision", plan.precision, reason)
