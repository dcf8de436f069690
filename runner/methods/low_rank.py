"""LoRA and QLoRA: low-rank adapters beside frozen weights of 16 bits, NF4 or LLM.int8.

Adapters that start as a part of the weights (PiSSA, OLoRA) leave a changed base, which is made
again by a resume. What is published is an ordinary adapter of twice the rank, the start subtracted,
and loads on the untouched base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

from advisor.plan import Plan
from advisor.registry.low_rank import ATTENTION_LINEARS, LowRank
from runner.methods import beside, new_tokens
from runner.methods.base import COMPUTE_DTYPES
from runner.methods.expert_targets import places, put_on
from runner.methods.products import Product, undivided, weight_of

HEADS = ("classifier", "score", "pre_classifier", "pooler")
"""Modules behind the layers, by the names that transformers gives them; not all models have all."""
_ADAPTER = "default"
_MAGNITUDES = ".lora_magnitude_vector."
"""In the names of DoRA's, which stay fp32: steps of a small learning rate are lost in 16 bits."""
_NEW_HEAD = ".modules_to_save."
"""In the names of weights that PEFT trains whole beside its adapters."""
_COUNTED = "e_score_correction_bias"
"""Of some routers, in a parameter's name: it follows from how busy experts are, not a gradient."""


def load_options(plan: Plan) -> dict[str, Any]:
    """The base in 16 bits, or quantized."""
    dtype = COMPUTE_DTYPES[plan.precision]
    if plan.base_bits == 16:
        return {"dtype": dtype}
    # A new head is trained whole; transformers itself leaves out an LM head alone
    heads = None if plan.task.head == "lm" else list(HEADS)
    if plan.base_bits == 8:
        int8 = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=heads)
        return {"dtype": dtype, "quantization_config": int8}
    _keep_the_storage_format()
    _with_experts(quantized=plan.quantizes_experts)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # What divides floating-point tensors alone takes 4-bit storage that looks like them
        bnb_4bit_quant_storage=dtype if plan.engine.float_shards else None,
        llm_int8_skip_modules=heads,
    )
    return {"dtype": dtype, "quantization_config": nf4}


def peft_config(plan: Plan, model: Any) -> LoraConfig:
    """The adapter in PEFT's terms.

    All that stands behind the layers is trained whole and saved: a base may come without it, and
    then it is drawn at random. PEFT knows but the first two.
    """
    settings = plan.settings
    assert isinstance(settings, LowRank)
    chosen = places(model, settings, targets_of(settings.targets))
    copied = beside.named(model, plan)
    whole = copied.names + chosen.modules_to_save
    whole += () if plan.task.head == "lm" else HEADS[2:]
    return LoraConfig(
        r=settings.rank,
        rank_pattern=dict(settings.ranks) | chosen.rank_pattern,
        alpha_pattern=dict(chosen.alpha_pattern),
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights=True if settings.init == "kaiming" else settings.init,
        target_modules=chosen.target_modules,
        target_parameters=chosen.target_parameters,
        exclude_modules=left_out(settings, model.config.get_text_config().num_hidden_layers),
        bias=settings.bias,
        trainable_token_indices=new_tokens.indices(model, copied.names),
        modules_to_save=list(whole) or None,
        ensure_weight_tying=copied.ties,
        task_type=TaskType.CAUSAL_LM if plan.task.head == "lm" else TaskType.SEQ_CLS,
    )


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its adapter, in the type that it is trained in.

    fp32, which is PEFT's choice for adapters and ours for a new head; 16 bits on a quantized base,
    as QLoRA's authors had it (arXiv 2305.14314, section 3), and where all is to be in 16 bits.
    """
    settings = plan.settings
    assert isinstance(settings, LowRank)
    adapted = put_on(model, peft_config(plan, model))
    new_tokens.finish(adapted)
    beside.finish(adapted)
    if settings.changes_base:
        adapted.start = _start(adapted)
    if settings.dora and plan.base_bits < 16:
        _return_what_came(adapted)
    is_pure = plan.precision == "bf16_pure"
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            is_whole = _NEW_HEAD in name or new_tokens.OF_ROWS in name
            is_narrow = is_pure or (plan.base_bits < 16 and not is_whole)
            is_narrow = is_narrow and _MAGNITUDES not in name
            parameter.data = parameter.data.to(torch.bfloat16 if is_narrow else torch.float32)
            stays = _COUNTED in name or (settings.freeze_a and ".lora_A." in name)
            parameter.requires_grad = not stays
            parameter.stays_wide = not is_narrow  # TRL would make it bf16 beside few bits
    return adapted


def _return_what_came(adapted: Any) -> None:
    """Under autocast PEFT leaves the fp32 that magnitudes make, which all layers would go on in."""
    for module in adapted.modules():
        if getattr(module, "lora_magnitude_vector", None):
            module.register_forward_hook(lambda _, given, result: result.to(given[0].dtype))


def _start(adapted: Any) -> dict[str, torch.Tensor]:
    """The matrices of all adapters as they are, under the names they are saved with."""
    tensors = get_peft_model_state_dict(adapted).items()  # a new head's too
    matrices = (".lora_A.", ".lora_B.")
    return {n: t.detach().cpu().clone() for n, t in tensors if any(m in n for m in matrices)}


def divide_rates(optimizer: torch.optim.Optimizer, model: Any, plan: Plan) -> None:
    """B learns `b_rate` times as fast as A (LoRA+, arXiv 2402.12354)."""
    settings = plan.settings
    assert isinstance(settings, LowRank)
    if settings.b_rate == 1:
        return
    faster = {id(p) for name, p in model.named_parameters() if ".lora_B." in name}
    for group in list(optimizer.param_groups):
        chosen = [p for p in group["params"] if id(p) in faster]
        group["params"] = [p for p in group["params"] if id(p) not in faster]
        rate = group["lr"] * settings.b_rate
        if chosen:
            optimizer.add_param_group({**group, "params": chosen, "lr": rate})


def state(model: Any) -> dict[str, torch.Tensor]:
    """What a checkpoint needs beside the trained weights: the start that was taken out."""
    return getattr(model, "start", {})


def restore(model: Any, found: dict[str, torch.Tensor]) -> str:
    """Why the weights of a checkpoint cannot be put beside this base; empty if they can."""
    ours = state(model)
    if found.keys() == ours.keys() and all(torch.equal(found[n], t) for n, t in ours.items()):
        return ""
    return "its adapters began with other parts of the weights than they would here"


def updates(model: Any) -> Iterator[Product]:
    """What each adapter has added to its weight since it began, experts' by expert."""
    start = state(model)
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            yield _of_experts(name, module)
        elif isinstance(module, LoraLayer) and _ADAPTER in module.lora_A:
            yield _of_linear(name, module, start)


def _of_linear(name: str, module: Any, start: dict[str, torch.Tensor]) -> Product:
    """B A; of one that began with B0 A0, B A - B0 A0 = (B - B0) A + B0 (A - A0)."""
    low, high = (undivided(part[_ADAPTER].weight) for part in (module.lora_A, module.lora_B))
    scale, weight = module.scaling[_ADAPTER], partial(weight_of, module.get_base_layer())
    if start:
        low0, high0 = (start[f"{name}.lora_{kind}.weight"].to(low) for kind in "AB")
        low, high = torch.cat([low, low - low0]), torch.cat([high - high0, high0], dim=1)
        weight = partial(_untouched, module, scale * high0, low0)
    return Product(
        name=name,
        left=high,
        right=low,
        scale=scale,
        weight=weight,
    )


def _untouched(module: Any, high: torch.Tensor, low: torch.Tensor) -> torch.Tensor | None:
    """The weight of a linear before its adapter began as a part of it, in fp32."""
    rest = weight_of(module.get_base_layer())
    if rest is None:
        return None
    taken = high @ low
    return undivided(rest) + (taken.mT if module.fan_in_fan_out else taken)


def _of_experts(name: str, module: ParamWrapper) -> Product:
    """PEFT keeps those of all experts in one A and one B."""
    low, high = (undivided(part[_ADAPTER].weight) for part in (module.lora_A, module.lora_B))
    return Product(
        name=f"{name}.{module.parameter_name}",
        left=high.reshape(len(high), -1, module.num_experts).permute(2, 0, 1),
        right=low.reshape(module.num_experts, -1, low.shape[-1]),
        scale=module.scaling[_ADAPTER],
        weight=module.get_param,
    )


def publish(model: Any, folder: Path) -> None:
    """Make the adapter of a folder one for the untouched base: [B, -B0] [A; A0], at rank 2r."""
    if not (start := state(model)):
        return
    weights, config = folder / SAFETENSORS_WEIGHTS_NAME, folder / CONFIG_NAME
    tensors = load_file(weights)
    for name, was in start.items():
        low = ".lora_A." in name
        both = [tensors[name].float(), was if low else -was]
        tensors[name] = torch.cat(both, dim=0 if low else 1).contiguous()
    save_file(tensors, weights, metadata={"format": "pt"})
    told = json.loads(config.read_text())

    def alpha(rank: int) -> float:
        """At twice the rank, which counts the adapter as often as it did."""
        found = 2 * rank * told["lora_alpha"] / rank ** (0.5 if told["use_rslora"] else 1)
        return int(found) if found.is_integer() else found

    plain = {
        "r": 2 * told["r"],
        "lora_alpha": alpha(told["r"]),
        "rank_pattern": {name: 2 * rank for name, rank in told["rank_pattern"].items()},
        "alpha_pattern": {name: alpha(rank) for name, rank in told["rank_pattern"].items()},
        "use_rslora": False,
        "init_lora_weights": True,
    }
    config.write_text(json.dumps({**told, **plain}, indent=2))


def left_out(settings: LowRank, num_layers: int) -> str | None:
    """Pattern of the linears that get no adapter though their names are targets; None for none.

    PEFT's own keys for layers do not go with its word for all linears. The number of a layer is the
    first in a module's name.
    """
    found = [rf".*\.({'|'.join(settings.exclude)})"] if settings.exclude else []
    layers = settings.adapted_layers(num_layers)
    if len(layers) < num_layers:
        numbers = "|".join(map(str, layers))
        found.append(rf"([^.\d][^.]*\.)+(?!({numbers})\.)\d+\..*")
    return "|".join(found) or None


def targets_of(targets: str | tuple[str, ...]) -> str | list[str]:
    """In PEFT's terms: its word for all linears, a pattern, or the names as given."""
    words = {"all": "all-linear", "attention": ATTENTION_LINEARS}
    return words[targets] if isinstance(targets, str) else list(targets)


def _with_experts(*, quantized: bool) -> None:
    """A mixture of experts that is loaded in 4 bits has its experts so too, or in 16."""
    from runner.methods import four_bit_experts  # noqa: PLC0415  # wants bitsandbytes

    four_bit_experts.quantize_on_loading(experts=quantized)


def _keep_the_storage_format() -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights in evaluation mode.

    Its backward pass reads repacked weights wrongly (bitsandbytes 0.50), and a linear with a bias
    fails.
    """
    import bitsandbytes.nn  # noqa: PLC0415  # wanted by quantized methods alone

    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
