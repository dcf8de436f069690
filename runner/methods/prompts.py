"""Soft prompts: vectors before the input or each layer's keys, drawn or encoded (PEFT)."""

from __future__ import annotations

from typing import Any

from peft import (
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)

from advisor.plan import Plan
from advisor.registry.prompts import ENCODER_WIDTH, P_TUNING, EncodedPrefix
from runner.methods import low_rank


def load_options(plan: Plan) -> dict[str, Any]:
    """As beside low-rank adapters."""
    return low_rank.load_options(plan)


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its prompt, which stays in fp32."""
    told = {
        "task_type": TaskType.CAUSAL_LM,
        "num_virtual_tokens": plan.settings.num_virtual_tokens,
    }
    if plan.settings.num_prefix_keys:
        return get_peft_model(model, _prefix(plan))
    if plan.method is P_TUNING:
        width = ENCODER_WIDTH * model.config.hidden_size
        return get_peft_model(model, PromptEncoderConfig(**told, encoder_hidden_size=width))
    return get_peft_model(model, PromptTuningConfig(**told))


def _prefix(plan: Plan) -> PrefixTuningConfig:
    """Keys and values for every layer, drawn or made by an MLP of vectors (arXiv 2110.07602)."""
    settings, encoder = plan.settings, None
    if isinstance(settings, EncodedPrefix):
        encoder = settings.encoder_width
    return PrefixTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=settings.num_prefix_keys,
        prefix_projection=encoder is not None,
        encoder_hidden_size=encoder,
    )
