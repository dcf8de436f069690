"""LoRA and QLoRA: low-rank adapters beside frozen weights, 16-bit or NF4."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, TaskType
from transformers import BitsAndBytesConfig

from advisor.plan import Plan
from advisor.registry.low_rank import LowRank
from runner.methods.base import COMPUTE_DTYPES

ATTENTION_LINEARS = (
    r".*\.(self_attn|self_attention|attention|attn)\."
    r"(\w*_proj|\w*_proj_with_mqa|query_key_value|dense|Wqkv|c_attn)"
)
"""The linears of attention by the names that transformers' families give them."""


def load_options(plan: Plan) -> dict[str, Any]:
    """The base in 16 bits, or in four: NF4 with quantized scales."""
    dtype = COMPUTE_DTYPES[plan.precision]
    if plan.base_bits == 16:
        return {"dtype": dtype}
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # What is divided must be of one float type: 4-bit storage that looks like the rest
        bnb_4bit_quant_storage=dtype if plan.engine.float_shards else None,
    )
    return {"dtype": dtype, "quantization_config": quantization}


def peft_config(plan: Plan) -> LoraConfig:
    """The adapters."""
    settings = plan.settings
    assert isinstance(settings, LowRank)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(settings),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )


def _targets(settings: LowRank) -> str | list[str]:
    """In PEFT's terms: its word for all linears, a pattern, or the names as given."""
    words = {"all": "all-linear", "attention": ATTENTION_LINEARS}
    return words[settings.targets] if isinstance(settings.targets, str) else list(settings.targets)
