"""Loading a base model, which all methods share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.integrations import sdpa_attention

from advisor.registry.task_spec import Head
from profiles.models.safe_config import CODE_KEY

_FLASH_CAPABILITY = (8, 0)
COMPUTE_DTYPES = {
    "bf16": torch.bfloat16,
    "bf16_pure": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def load_base(model_dir: Path, head: Head = "lm", **options: Any) -> PreTrainedModel:
    """Load from local safetensors only, never running code that came with the model.

    `head`: as a task has it; a score head is new. `options`: from_pretrained's, the type among
    them. transformers takes SDPA for attention, or eager attention where a family has no other.
    """
    _repeat_heads_where_needed()
    model = (_classifier if head == "score" else _language_model)(model_dir, **options)
    _refuse_foreign(model)
    name_experts(model.config.get_text_config())
    model.config.use_cache = False
    return model


def layers_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The layers of a model's text part, from the embedding to the head.

    RuntimeError for a model that has no such list, which no family that is known here is.
    """
    number = model.config.get_text_config().num_hidden_layers
    for module in model.modules():  # outer ones first
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return module
    raise RuntimeError(f"{type(model).__name__} has no list of {number} layers")


def _language_model(model_dir: Path, **options: Any) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model_dir,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )
    return model


def _classifier(model_dir: Path, **options: Any) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        model_dir,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        **options,
    )
    return model


def _refuse_foreign(model: PreTrainedModel) -> None:
    """Only transformers' own classes are trained; what is saved names no code beside the weights.

    RuntimeError if another one was loaded, which no configuration that was let through leads to.
    """
    for part in (model, model.config):
        if not type(part).__module__.startswith("transformers."):
            raise RuntimeError(f"{type(part).__name__} is not transformers' own class")
    if hasattr(model.config, CODE_KEY):
        delattr(model.config, CODE_KEY)


def name_experts(config: PreTrainedConfig) -> None:
    """TRL asks every mixture for `num_experts`, which some families name otherwise.

    Another name of a value belongs to the class: nothing of it is saved.
    """
    if hasattr(config, "num_local_experts") and not hasattr(config, "num_experts"):
        names = {"num_experts": "num_local_experts"}
        type(config).attribute_map = type(config).attribute_map | names


def _repeat_heads_where_needed() -> None:
    """Before Ampere no fused kernel shares key heads: SDPA would make whole fp32 scores."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < _FLASH_CAPABILITY:
        sdpa_attention.use_gqa_in_sdpa = lambda *_args: False
