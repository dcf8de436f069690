"""The rungs: every method of the documents as a template of a plan, and what our runner can run.

Decides which settings a rung has, in which order its variants are tried, over which devices it can
be spread, and for which models it makes no sense. The batch is chosen by fit.py; which rung is
taken, by settle.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from advisor.choice.upcycle import NUM_EXPERTS, family_of
from advisor.plan import ALL_TARGETS, SOFT_PROMPTS, WHOLE_METHODS, Plan
from profiles.facts import Machine, Model

LADDER: Final = (
    *("full", "full_8bit", "galore", "apollo", "freeze"),
    *("lora", "qlora_8bit", "qlora", "offload"),
)
"""From the most to the least device memory, as the documents order them (§1)."""
BESIDE: Final = (
    *("adapter", "p_tuning", "prefix_tuning", "prompt_tuning"),
    *("ia3", "bitfit", "ln_tuning"),
)
"""Methods that train a small addition or a small part."""
RUNNABLE: Final = ("full", "lora", "qlora")
"""Methods that the runner has; a test holds it against the runner's registry."""
_RUNNABLE_STRATEGIES: Final = frozenset({"single", "ddp", "fsdp"})
_RUNNABLE_OPTIMIZERS: Final = frozenset({"adamw", "adamw_8bit", "paged_adamw_8bit"})
_OPTIMIZER_OF: Final = {
    "full_8bit": "adamw_8bit",
    "galore": "galore",
    "apollo": "apollo",
    "moe_upcycling_8bit": "adamw_8bit",
}
_VIRTUAL_TOKENS: Final = 20
"""The documents' range is 10 to 20 (§3)."""
_REDUCTION: Final = 16
_UNSHARDED: Final = frozenset({"galore", "apollo"})
"""They project whole gradient matrices, which shards are not (transformers' GaLore page)."""


def rungs(model: Model, num_tasks: int) -> tuple[str, ...]:
    """All rungs to show for a model, from the most to the least device memory."""
    mixtures: tuple[str, ...] = ()
    if model.experts:
        mixtures = ("lora_on_experts",)
    elif num_tasks > 1:
        mixtures = ("moe_upcycling", "moe_upcycling_8bit", "lora_experts")
    return (*mixtures, *LADDER[:1], "full_offload", *LADDER[1:], *BESIDE)


def plans(rung: str, model: Model, base: Plan, *, num_tasks: int = 1) -> tuple[Plan, ...]:
    """The rung's plans in the order to try them; `base` is 16-bit LoRA at the wanted length."""
    if rung in {"full", "full_8bit", "galore", "apollo", "moe_upcycling", "moe_upcycling_8bit"}:
        return (replace(_bare(base, "full"), optimizer=_OPTIMIZER_OF.get(rung, "adamw")),)
    if rung == "full_offload":
        return (replace(_bare(base, "full"), offload="optimizer"),)
    if rung == "freeze":
        layers = model.num_layers
        frozen = sorted({layers // 2, layers * 3 // 4} - {0})
        return tuple(replace(_bare(base, "freeze"), frozen_layers=k) for k in frozen)
    if rung in BESIDE:
        return _beside(rung, base)
    return (_adapters(rung, base, num_tasks),)


def _bare(base: Plan, method: str) -> Plan:
    """Without low-rank adapters."""
    return replace(base, method=method, rank=0, alpha=0, dropout=0.0, targets=())


def _beside(rung: str, base: Plan) -> tuple[Plan, ...]:
    plan = _bare(base, rung)
    if rung == "adapter":
        return (replace(plan, reduction=_REDUCTION),)
    if rung not in SOFT_PROMPTS:
        return (plan,)
    plan = replace(plan, virtual_tokens=_VIRTUAL_TOKENS)
    # Backward still passes every layer, so only a quantized base makes a soft prompt small.
    return (plan, replace(plan, bits=8), replace(plan, bits=4))


def _adapters(rung: str, base: Plan, num_tasks: int) -> Plan:
    if rung == "lora_on_experts":
        return replace(base, targets=ALL_TARGETS)  # the MLP's names mean the experts to PEFT
    if rung == "lora_experts":
        # n adapters side by side keep what one of n times the rank keeps.
        rank = base.rank * num_lora_experts(num_tasks)
        return replace(base, rank=rank, alpha=2 * rank)
    if rung == "qlora_8bit":
        return replace(base, method="qlora", bits=8)
    if rung == "qlora":
        return replace(base, method="qlora")
    return replace(base, offload="parameters") if rung == "offload" else base


def num_lora_experts(num_tasks: int) -> int:
    """One adapter a task, up to the documents' number of experts."""
    return min(NUM_EXPERTS, max(2, num_tasks))


def strategies(plan: Plan, num_gpus: int) -> tuple[str, ...]:
    """How a plan may be spread over devices, the least communication first.

    Left out is what the libraries cannot do: 8-bit optimizers under FSDP2 (bitsandbytes #1633),
    LLM.int8 under FSDP (only float types are sharded, bitsandbytes' FSDP-QLoRA page).
    """
    if plan.offload:
        return ("zero3",) if plan.offload == "parameters" else ("zero2", "zero3")
    if num_gpus == 1:
        return ("single",)
    if plan.optimizer in _UNSHARDED:
        return ("ddp",)
    if plan.method in WHOLE_METHODS:
        last = "zero3" if plan.optimizer == "adamw_8bit" else "fsdp"
        return ("ddp", "zero1", "zero2", last)
    if plan.base_bits == 8 or (plan.base_bits == 4 and plan.method in SOFT_PROMPTS):
        return ("ddp",)
    # Adapters have next to no gradients and moments: only sharding the weights helps.
    return ("ddp", "fsdp")


def changes_model(rung: str) -> bool:
    """Another model is made first, or several adapters in one: our runner does neither yet."""
    return rung in {"moe_upcycling", "moe_upcycling_8bit", "lora_experts"}


def runs(plan: Plan) -> bool:
    """Our runner can run this plan today, on the model as it is."""
    return (
        plan.method in RUNNABLE
        and plan.strategy in _RUNNABLE_STRATEGIES
        and plan.optimizer in _RUNNABLE_OPTIMIZERS
        and not plan.offload
        and plan.bits in {None, 4}
    )


def senseless(rung: str, model: Model, machine: Machine) -> str:
    """Why a rung is none for this model or machine, or empty."""
    if rung.startswith("moe_upcycling"):
        return "" if family_of(model) else f"no mixture is known for {model.model_type} models"
    if rung == "bitfit" and not _has_biases(model):
        return "BitFit trains biases and this model has none"
    if rung in {"offload", "full_offload"} and machine.backend != "cuda":
        return "DeepSpeed's offload needs an NVIDIA GPU"
    if _OPTIMIZER_OF.get(rung) == "adamw_8bit" and machine.backend not in {"cuda", "rocm"}:
        return "bitsandbytes' optimizers need a GPU"
    if rung.startswith("qlora") and machine.backend == "mps":
        return "bitsandbytes does not quantize on Apple GPUs"
    return ""


def _has_biases(model: Model) -> bool:
    biases = model.attention_bias or model.output_bias or model.mlp_bias or model.head_bias
    return biases or model.norm == "layer"
