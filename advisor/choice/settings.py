"""The hyper-parameters to start from, each with its reason (documents §3 and §4).

Ranges are the documents'; where in a range to start is a heuristic on rank, model size and rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from advisor.choice.ladder import num_lora_experts
from advisor.choice.tree import Leaf
from advisor.choice.upcycle import AUX_LOSS
from advisor.choice.wants import MANY_ROWS
from advisor.plan import ALL_TARGETS, MLP_TARGETS, SOFT_PROMPTS, WHOLE_METHODS, Plan
from profiles.facts import Dataset, Machine, Model

WEIGHT_DECAY: Final = 0.01
MAX_GRAD_NORM: Final = 1.0
SCHEDULER: Final = "cosine"
_WARMUP_SHARE: Final = 0.1
_WARMUP_STEPS: Final = 100
_LARGE, _SMALL = 30_000_000_000, 1_000_000_000
"""Parameters: large models want lower learning rates, small ones bear higher ones."""
_HIGH_RANK: Final = 64
_FEW_ROWS: Final = 1000
_SOME_DROPOUT: Final = 0.05

_ADAPTER_RANGE: Final = "documents: LoRA 1e-4 to 5e-4"
_FULL_RANGE: Final = "documents: full fine-tuning 5e-6 to 2e-5"
_RATES: Final = {
    "adapter": (5e-4, "documents: adapters 3e-4 to 1e-3"),
    "prompt_tuning": (4e-3, "documents: soft prompts 3e-3 to 5e-3"),
    "prefix_tuning": (4e-3, "documents: soft prompts 3e-3 to 5e-3"),
    "p_tuning": (4e-3, "documents: soft prompts 3e-3 to 5e-3"),
    "ia3": (3e-3, "the IA3 paper's; the documents give none"),
    "bitfit": (4e-4, "the BitFit paper: 1e-4 to 1e-3; the documents give none"),
    "ln_tuning": (1e-4, "a guess below adapters'; the documents give none"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A proposed hyper-parameter and its reason."""

    name: str
    value: str
    reason: str


def learning_rate(model: Model, plan: Plan) -> tuple[float, str]:
    """Where in the method's range to start, and why."""
    if plan.method in _RATES:
        return _RATES[plan.method]
    if plan.method in WHOLE_METHODS:
        if model.num_params >= _LARGE:
            return 5e-6, f"{_FULL_RANGE}; the lower end for a large model"
        if model.num_params <= _SMALL:
            return 2e-5, f"{_FULL_RANGE}; the upper end for a small model"
        return 1e-5, _FULL_RANGE
    if model.num_params >= _LARGE or plan.rank >= _HIGH_RANK:
        return 1e-4, f"{_ADAPTER_RANGE}; the lower end for a large model or a high rank"
    return 2e-4, _ADAPTER_RANGE


def rank(leaf: Leaf, model: Model, dataset: Dataset | None) -> int:
    """The documents' range: its upper end for much data; never above a quarter of the width."""
    low, high = leaf.ranks or (8, 16)
    much = dataset is not None and dataset.num_rows >= MANY_ROWS
    return max(1, min(high if much else low, model.hidden_size // 4))


def dropout(dataset: Dataset | None) -> float:
    """None, unless rows are so few that they will be learned by heart."""
    return _SOME_DROPOUT if dataset is not None and dataset.num_rows < _FEW_ROWS else 0.0


def warmup(dataset: Dataset | None, epochs: float, effective_batch: int) -> float:
    """Share of the steps: a tenth, but no more than 100 steps."""
    if dataset is None:
        return _WARMUP_SHARE
    steps = max(1.0, dataset.num_rows * epochs / effective_batch)
    return round(min(_WARMUP_SHARE, _WARMUP_STEPS / steps), 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be set up: a rung's plan, for the model that it trains."""

    rung: str
    plan: Plan
    model: Model
    leaf: Leaf
    num_tasks: int


def settings(
    choice: Choice, machine: Machine, dataset: Dataset | None, epochs: float
) -> tuple[Setting, ...]:
    """Everything to start from, in the order in which people ask."""
    model, plan = choice.model, choice.plan
    rate, reason = learning_rate(model, plan)
    share = warmup(dataset, epochs, plan.effective_batch)
    rows = "the data's size is not known" if dataset is None else f"{dataset.num_rows} rows"
    return (
        _setting("learning rate", f"{rate:g}", reason),
        *_of_method(choice, dataset),
        *_of_mixture(choice),
        _setting("scheduler", SCHEDULER, "documents: cosine or linear"),
        _setting("warm-up", f"{share:.3g} of the steps", "documents: 10 %, or 100 steps"),
        _setting("weight decay", f"{WEIGHT_DECAY:g}", "documents"),
        _setting("gradient clipping", f"{MAX_GRAD_NORM:g}", "documents"),
        _precision(machine, plan),
        _setting("epochs", f"{epochs:g}", rows),
        _setting(
            "early stopping",
            "by hand, after 3 evaluations",
            "documents: no better in 3 of them; `advisor stop` saves",
        ),
    )


def _setting(name: str, value: str, reason: str) -> Setting:
    return Setting(name=name, value=value, reason=reason)


def _of_method(choice: Choice, dataset: Dataset | None) -> tuple[Setting, ...]:
    plan = choice.plan
    if plan.adapts:
        return _of_adapters(choice, dataset)
    if plan.method in SOFT_PROMPTS:
        bits = f", base in {plan.bits} bits" if plan.bits else ""
        return (_setting("virtual tokens", f"{plan.virtual_tokens}{bits}", "documents: 10 to 20"),)
    if plan.method == "adapter":
        return (_setting("reduction", str(plan.reduction), "documents: 4 to 16; 16 is smallest"),)
    if plan.method == "freeze":
        words = f"the first {plan.frozen_layers} of {choice.model.num_layers}"
        return (_setting("frozen layers", words, "as few as fit, by halves"),)
    return ()


def _of_adapters(choice: Choice, dataset: Dataset | None) -> tuple[Setting, ...]:
    plan, ranks = choice.plan, choice.leaf.ranks
    heuristic = "a heuristic, not a measurement"
    reason = f"small adapters for a light change; {heuristic}"
    if ranks is not None:
        reason = f"documents: {ranks[0]} to {ranks[1]} here; {heuristic}"
    dropout_words = "costs a copy of every adapted input; raise to 0.1 if it over-fits"
    if plan.dropout and dataset is not None:
        dropout_words = f"only {dataset.num_rows} rows: they could be learned by heart"
    whole = set(plan.targets) >= set(ALL_TARGETS)
    value = str(plan.rank)
    if choice.rung == "lora_experts":
        count = num_lora_experts(choice.num_tasks)
        value = f"{plan.rank // count} in each of {count} adapters"
    return (
        _setting("rank", value, reason),
        _setting("alpha", str(plan.alpha), "twice the rank, the usual choice"),
        _setting("dropout", f"{plan.dropout:g}", dropout_words),
        _setting(
            "targets",
            "all linears" if whole else ", ".join(plan.targets),
            "attention and MLP; more targets help more than a higher rank",
        ),
    )


def _of_mixture(choice: Choice) -> tuple[Setting, ...]:
    """The router, and what keeps the experts in balance."""
    plan, experts = choice.plan, choice.model.experts
    if experts is None:
        return ()
    if plan.method not in WHOLE_METHODS:
        count = f"{experts.num_experts} experts, {experts.top_k} a token"
        adapted = set(plan.targets).issuperset(MLP_TARGETS)
        router = "PEFT adapts it with the experts" if adapted else "its balance holds"
        word = "adapted" if adapted else "frozen"
        return (
            _setting("experts", word, f"{count}; all are in memory"),
            _setting("router", word, router),
        )
    if choice.rung.startswith("moe_upcycling"):
        value, reason = f"{AUX_LOSS:g}", "documents: for a router that starts from nothing"
    else:
        value, reason = "the model's own", "router_aux_loss_coef of its config: it was trained so"
    return (
        _setting("router", "trained", "with all other weights"),
        _setting("aux loss", value, reason),
    )


def _precision(machine: Machine, plan: Plan) -> Setting:
    reasons = {
        "bf16": "the GPU has it; what stays in fp32 may use TF32",
        "fp16": "with loss scaling: the GPU has no bf16",
        "fp32": "no fast 16-bit arithmetic on a CPU",
    }
    reason = reasons.get(plan.precision, "")
    if plan.precision == "fp32" and machine.gpus:
        reason = "asked for"
    return _setting("precision", plan.precision, reason)
