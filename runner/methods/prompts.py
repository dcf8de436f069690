"""Prompt tuning and P-tuning: vectors before the input, drawn or made by an encoder (PEFT)."""

from __future__ import annotations

from typing import Any

from peft import PromptEncoderConfig, PromptTuningConfig, TaskType, get_peft_model

from advisor.plan import Plan
from advisor.registry.prompts import ENCODER_WIDTH, P_TUNING
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
    if plan.method is P_TUNING:
        width = ENCODER_WIDTH * model.config.hidden_size
        return get_peft_model(model, PromptEncoderConfig(**told, encoder_hidden_size=width))
    return get_peft_model(model, PromptTuningConfig(**told))
