"""What the frameworks of published runs do differently from our own runner, as `Framework`s.

Each function reads a framework's own settings from a row and says which documented differences of
its code follow. A framework that is not known here is refused, not guessed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from models import Skip

from advisor.framework import Framework
from profiles.models.parameters import count_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from advisor.plan import Plan
    from profiles.facts import Model

Row = dict[str, Any]
Setup = tuple["Model", "Plan"]


def refusal_of(row: Row) -> Skip | None:
    """Why a row's work is none that the estimator describes, whatever its model."""
    name = str(row.get("framework"))
    if re.search("GRPO", name):
        return Skip("GRPO: rollouts, reference and a sleeping sampler are no step of fine-tuning")
    if re.search(r"DPO", name):
        return Skip("preference training runs two passes of two models")
    if not any(re.search(pattern, name) for pattern, _ in _FRAMEWORKS):
        return Skip(f"framework {name} is not described")
    return None


def setup_of(row: Row, model: Model, plan: Plan) -> Setup | Skip:
    """The model as the row's framework builds it, and the plan as it carries it out."""
    name = str(row.get("framework"))
    function = next(made for pattern, made in _FRAMEWORKS if re.search(pattern, name))
    made = function(row, model, plan)
    return made if isinstance(made, Skip) else (made[0], _default_allocator(made[1]))


def _default_allocator(plan: Plan) -> Plan:
    """None of these frameworks asks for expandable segments."""
    return replace(plan, framework=replace(plan.framework, expandable_segments=False))


def _version(row: Row, library: str, default: str) -> tuple[int, ...]:
    said = str((row.get("software") or {}).get(library) or default)
    return _numbers(said) or _numbers(default)


def _numbers(version: object) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(version))[:2])


def _is_fp16(row: Row) -> bool:
    return "float16" in re.sub("bfloat16", "", str(row.get("weight_dtype")))


def _foreach(row: Row) -> bool:
    """torch.optim's default on CUDA, unless the fused kernels were asked for."""
    return not re.search("fused|8.?bit|paged|adafactor", str(row.get("optimizer")), re.IGNORECASE)


# transformers' Trainer: fms-hf-tuning

GPTQ_WITHOUT_GROUPS: Final = ("llama-2-70b", "mixtral-8x7b")
"""TheBloke's main branches have no groups where 128 would not fit the usual cards."""


def _transformers(row: Row, default: str) -> dict[str, Any]:
    """Fields of a framework that follow from the version of transformers."""
    version = _version(row, "transformers", default)
    return {
        "upcast_in_model": version < (4, 46),
        "shifted_logits": version < (4, 50),
        "expert_modules": version < (5, 0),
        "quantized_adapters_16bit": False,
    }


def _fms(row: Row, model: Model, plan: Plan) -> Setup | Skip:
    """fms-acceleration on TRL's SFTTrainer (plugins foak, peft, padding-free)."""
    found = re.search(r'"(.*)"', str(row.get("framework")))
    config = found[1] if found else ""
    if "moe" in config:
        return Skip("ScatterMoE kernels are not described")
    quantized, shards, foak = plan.base_bits < 16, plan.engine.name == "fsdp", "foak" in config
    # The field copies accelerate.yaml; every quantized scenario passes --fp16 or --bf16.
    autocast = quantized or "no autocast" not in str(row.get("precision_mode"))
    old_mistral = model.model_type in {"mistral", "mixtral"}
    fields = _transformers(row, "4.45")
    framework = Framework(
        autocast=autocast,
        # accelerate makes flat parameters fp32 under mixed precision; Trainer leaves weights alone.
        trained_fp32=not plan.method.trains_base or (shards and autocast),
        fp32_norms=config.startswith("baseline") and not shards,
        gptq_group=_gptq_group(row),
        fused_norm=foak,
        fused_rope=foak,
        fused_adapters=foak and quantized,
        expanded_kv=old_mistral and _version(row, "transformers", "4.45") < (4, 48),
        liger_fp32="liger" in config,
        reentrant_checkpoints=True,
        foreach_optimizer=_foreach(row),
        fsdp1=shards,
        no_sync=shards,
        replicated_adapters=foak and quantized,
        **fields,
    )
    loss = "liger" if "liger" in config else "fused" if foak else "full"
    precision = "fp16" if _is_fp16(row) else "bf16"
    return model, replace(plan, loss=loss, precision=precision, framework=framework)


def _gptq_group(row: Row) -> int:
    if "gptq" not in str(row.get("quant_type")).lower():
        return 0
    name = str(row.get("model")).lower()
    return -1 if any(known in name for known in GPTQ_WITHOUT_GROUPS) else 128


# Plain loops over transformers and PEFT


def _loop(row: Row, model: Model, plan: Plan) -> Setup:
    """The measure.py of fitcheck and fitscout: no autocast, no padding, outputs kept a step."""
    old_gpu = "T4" in str(row.get("gpu_type"))
    framework = Framework(
        autocast=False,
        fp32_leftovers=True,
        unmasked=True,
        expanded_kv=True,
        efficient_attention=old_gpu,
        returned_logits="step",
        foreach_optimizer=_foreach(row),
        first_step="single step" in str(row.get("peak_memory_measures")),
        **_transformers(row, "5.0"),
    )
    return model, replace(plan, precision="fp16", framework=framework)


# lit-gpt


def _litgpt(row: Row, model: Model, plan: Plan) -> Setup | Skip:
    """lit-gpt on Fabric: one GPT block for all models, adapters in the type of the base."""
    mixed = "mixed" in str(row.get("precision_mode"))
    recent = str(row.get("framework")).startswith("litgpt")  # 2024; "lit-gpt" in 2023
    shards, quantized = plan.engine.name == "fsdp", plan.base_bits < 16
    wide_heads = model.head_dim > 192 and not re.search("A100|H100", str(row.get("gpu_type")))
    framework = Framework(
        fp32_base=mixed,
        quantizes_subclasses=True,
        quantized_head=quantized,
        keeps_quantized_input=quantized,  # it pins bitsandbytes 0.41, then 0.42
        dequantizes_twice=quantized,
        grouped_adapters=True,
        heads_first=True,
        expanded_kv=True,
        unmasked=True,
        narrow_math=True,
        efficient_attention=wide_heads,
        upcast_in_model=True,
        returned_logits="step",
        carried_logits=recent and not shards,
        foreach_optimizer=_foreach(row),
        first_step=not recent,
        fsdp1=shards,
        flat_parameters=shards,
        no_sync=shards,
    )
    precision = "bf16" if mixed else "bf16_pure"
    # Until 2024 a single key head went to SDPA as it was, which no kernel takes.
    alone = not recent and model.num_kv_heads == 1 < model.num_heads
    plan = replace(plan, attention="math" if alone else "sdpa", loss="listed")
    return _litgpt_model(model), replace(plan, precision=precision, framework=framework)


def _litgpt_model(model: Model) -> Model:
    """Its block: q, k and v in one linear, a head of its own, a vocabulary that kernels like."""
    vocabulary = -(-model.vocab_size // 64) * 64
    sliding = model.num_sliding_layers if model.model_type in {"gemma2", "gemma3_text"} else 0
    made = replace(
        model,
        # Its activations and norms are torch's kernels and Llama's.
        model_type=model.model_type if model.model_type.startswith("gemma") else "litgpt",
        vocab_size=vocabulary,
        tied_embeddings=False,
        fused_qkv=True,
        fused_gate_up=False,
        num_sliding_layers=sliding,
        other_params=0,
    )
    return replace(made, num_params=count_params(made))


def _trainer(row: Row, model: Model, plan: Plan) -> Setup:
    """A plain Trainer of transformers, from the time of reentrant checkpoints."""
    autocast = bool(re.search("autocast|bf16|fp16|amp", str(row.get("precision_mode"))))
    shards = plan.shards_weights
    framework = Framework(
        autocast=autocast,
        trained_fp32=not plan.method.trains_base or (shards and autocast),
        fp32_leftovers=plan.base_bits < 16,
        expanded_kv=model.num_kv_heads < model.num_heads,
        reentrant_checkpoints=plan.checkpointing,
        foreach_optimizer=_foreach(row),
        fsdp1=shards,
        no_sync=shards,
        **_transformers(row, "4.36"),
    )
    precision = "fp16" if _is_fp16(row) else "bf16"
    return model, replace(plan, precision=precision, framework=framework)


# torchtune


def _torchtune(row: Row, model: Model, plan: Plan) -> Setup:
    """Recipes of torchtune, "dtype: bf16": all weights, adapters too, in 16 bits.

    Its configs ask AdamW for "foreach: False", later for "fused: True".
    """
    extra = " ".join(row.get("extra") or ())
    version, strategy = _numbers(row.get("framework_version")), str(row.get("strategy"))
    compiled, offloads = "torch.compile" in extra, "CPU offload" in strategy
    # Where a row was completed from the recipe, what it leaves unsaid is the recipe's: since 0.3.
    looked_up = row.get("defaults_looked_up") or ()
    silent = looked_up and "loss" not in looked_up and "full logits" not in extra
    chunked = "chunked" in extra or (bool(silent) and version >= (0, 3))
    framework = Framework(
        # Inductor keeps what the norm and SwiGLU read, and computes the rest again.
        fused_norm=compiled,
        fused_rope=compiled,
        fused_mlp=compiled,
        expanded_kv=True,
        unmasked=True,
        upcast_logits=not (compiled and chunked),
        upcast_in_model=True,
        shifted_logits=version < (0, 2),
        returned_logits="step" if version < (0, 2) else "loss",
        chunked_head=chunked,
        offloaded_checkpoints="offload" in str(row.get("gradient_checkpointing")),
        optimizer_in_backward="in_bwd" in str(row.get("optimizer")),
        fsdp1="FSDP1" in strategy,
        outer_units=offloads,  # 70B_full.yaml and its like ask for both
    )
    plan = replace(
        plan,
        offload="parameters" if offloads else "",
        loss="fused" if compiled and chunked else "full",
        precision="bf16_pure",
        framework=framework,
    )
    return model, plan


_FRAMEWORKS: Final[tuple[tuple[str, Callable[..., Setup | Skip]], ...]] = (
    (r"fms-", _fms),
    (r"^fit(check|scout)", _loop),
    (r"^lit-?gpt", _litgpt),
    (r"^torchtune", _torchtune),
    (r"HF Trainer\)?( \(|$)|SFTTrainer|\(transformers\+peft\)|LLaMA-Factory HF|peft ex", _trainer),
)
