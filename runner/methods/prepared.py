"""What a method hands to the trainer, and the loading that all methods share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations import sdpa_attention

_FLASH_CAPABILITY = (8, 0)
COMPUTE_DTYPES = {
    "bf16": torch.bfloat16,
    "bf16_pure": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A loaded base model, and the adapter to put on it if the method has one."""

    model: PreTrainedModel
    peft_config: PeftConfig | None


def load_base(model_dir: Path, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """Load from local safetensors only, never running code that came with the model.

    transformers takes SDPA for attention, or eager attention where a family has no other.
    """
    _repeat_heads_where_needed()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model_dir,
        dtype=dtype,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )
    model.config.use_cache = False
    return model


def _repeat_heads_where_needed() -> None:
    """Before Ampere no fused kernel shares key heads: SDPA would make whole fp32 scores."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < _FLASH_CAPABILITY:
        sdpa_attention.use_gqa_in_sdpa = lambda *_args: False
