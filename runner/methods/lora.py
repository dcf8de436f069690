"""LoRA and QLoRA: low-rank adapters beside frozen weights, 16-bit or NF4."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, TaskType
from transformers import BitsAndBytesConfig

from advisor.recipe import Recipe
from advisor.registry.low_rank import LowRank
from runner.methods.prepared import COMPUTE_DTYPES, Prepared, load_base

ATTENTION_LINEARS = (
    r".*\.(self_attn|self_attention|attention|attn)\."
    r"(\w*_proj|\w*_proj_with_mqa|query_key_value|dense|Wqkv|c_attn)"
)
"""The linears of attention by the names that transformers' families give them."""


def prepare(recipe: Recipe, model_dir: Path) -> Prepared:
    """Load the base in 16 bits, or quantized for QLoRA, and describe the adapter."""
    method = recipe.method.settings
    assert isinstance(method, LowRank)
    dtype = COMPUTE_DTYPES[recipe.train.precision]
    options = {}
    if method.base_bits == 4:
        _keep_the_storage_format()
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # FSDP shards tensors of one dtype only: the 4-bit storage must look like the rest
            bnb_4bit_quant_storage=dtype if recipe.hardware.strategy == "fsdp" else None,
        )
    adapter = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_targets(method),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    return Prepared(model=load_base(model_dir, dtype, **options), peft_config=adapter)


def _targets(method: LowRank) -> str | list[str]:
    """In PEFT's terms: its word for all linears, a pattern, or the names as given."""
    words = {"all": "all-linear", "attention": ATTENTION_LINEARS}
    return words[method.targets] if isinstance(method.targets, str) else list(method.targets)


def _keep_the_storage_format() -> None:
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights in evaluation mode.

    Its backward pass reads repacked weights wrongly (bitsandbytes 0.50), and a linear with a bias
    fails.
    """
    import bitsandbytes.nn  # noqa: PLC0415  # wanted by quantized methods alone

    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False
