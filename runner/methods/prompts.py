"""Soft prompts: vectors before the input or each layer's keys, drawn or encoded (PEFT)."""

from __future__ import annotations

from typing import Any

from peft import (
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    get_peft_model,
)

from advisor.plan import Plan
from advisor.registry.prompts import ENCODER_WIDTH, P_TUNING, EncodedPrefix, Words
from runner.methods import low_rank


def load_options(plan: Plan) -> dict[str, Any]:
    """As beside low-rank adapters."""
    return low_rank.load_options(plan)


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its prompt, which stays in fp32."""
    if plan.settings.num_prefix_keys:
        return get_peft_model(model, _prefix(plan))
    if isinstance(plan.settings, Words) and plan.settings.init_text:
        return _from_words(model, plan.settings)
    told = {
        "task_type": TaskType.CAUSAL_LM,
        "num_virtual_tokens": plan.settings.num_virtual_tokens,
    }
    if plan.method is P_TUNING:
        width = ENCODER_WIDTH * model.config.hidden_size
        return get_peft_model(model, PromptEncoderConfig(**told, encoder_hidden_size=width))
    return get_peft_model(model, PromptTuningConfig(**told))


def _from_words(model: Any, settings: Words) -> Any:
    """PEFT reads the tokenizer beside the model; what is published needs it no more."""
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=settings.num_virtual_tokens,
        prompt_tuning_init=PromptTuningInit.TEXT,
        prompt_tuning_init_text=settings.init_text,
        tokenizer_name_or_path=model.name_or_path,
        tokenizer_kwargs={"local_files_only": True},
    )
    adapted = get_peft_model(model, config)
    config.prompt_tuning_init = PromptTuningInit.RANDOM
    config.tokenizer_name_or_path = config.tokenizer_kwargs = None
    return adapted


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
