"""LoRA and QLoRA: low-rank adapters beside frozen weights, 16-bit or NF4."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import BitsAndBytesConfig

from advisor.plan import Plan
from advisor.registry.low_rank import LowRank
from runner.methods.base import COMPUTE_DTYPES

ATTENTION_LINEARS = (
    r".*\.(self_attn|self_attention|attention|attn)\."
    r"(\w*_proj|\w*_proj_with_mqa|query_key_value|dense|Wqkv|c_attn)"
)
"""The linears of attention by the names that transformers' families give them."""
_NEW_HEAD = ".modules_to_save."
"""In the names of weights that PEFT trains whole beside its adapters."""


def load_options(plan: Plan) -> dict[str, Any]:
    """The base in 16 bits, or quantized."""
    dtype = COMPUTE_DTYPES[plan.precision]
    if plan.base_bits == 16:
        return {"dtype": dtype}
    _keep_the_storage_format()
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # What divides floating-point tensors alone takes 4-bit storage that looks like them
        bnb_4bit_quant_storage=dtype if plan.engine.float_shards else None,
        # A new head is trained whole; transformers itself leaves out an LM head alone
        llm_int8_skip_modules=None if plan.task.head == "lm" else ["score", "classifier"],
    )
    return {"dtype": dtype, "quantization_config": quantization}


def peft_config(plan: Plan) -> LoraConfig:
    """The adapter in PEFT's terms."""
    settings = plan.settings
    assert isinstance(settings, LowRank)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets_of(settings.targets),
        bias="none",
        task_type=TaskType.CAUSAL_LM if plan.task.head == "lm" else TaskType.SEQ_CLS,
    )


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its adapter, in the type that it is trained in.

    fp32, which is PEFT's choice for adapters and ours for a new head; 16 bits on a quantized base,
    as QLoRA's authors had it (arXiv 2305.14314, section 3), and where all is to be in 16 bits.
    """
    adapted = get_peft_model(model, peft_config(plan))
    is_pure = plan.precision == "bf16_pure"
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            is_narrow = is_pure or (plan.base_bits < 16 and _NEW_HEAD not in name)
            parameter.data = parameter.data.to(torch.bfloat16 if is_narrow else torch.float32)
    return adapted


def targets_of(targets: str | tuple[str, ...]) -> str | list[str]:
    """In PEFT's terms: its word for all linears, a pattern, or the names as given."""
    words = {"all": "all-linear", "attention": ATTENTION_LINEARS}
    return words[targets] if isinstance(targets, str) else list(targets)


def _keep_the_storage_format() -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights in evaluation mode.

    Its backward pass reads repacked weights wrongly (bitsandbytes 0.50), and a linear with a bias
    fails.
    """
    import bitsandbytes.nn  # noqa: PLC0415  # wanted by quantized methods alone

    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
