"""LLaMA-Adapter: gated prompts beside the attention of each layer but the first ones (PEFT)."""

from __future__ import annotations

from functools import partial
from typing import Any

from peft import AdaptionPromptConfig, TaskType, get_peft_model

from advisor.plan import Plan
from advisor.registry.adapters import Gated
from runner.methods import parts


def load_options(plan: Plan) -> dict[str, Any]:
    """As beside other small parts."""
    return parts.load_options(plan)


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its prompts, in fp32 unless all is to be in 16 bits.

    PEFT's wrapper keeps the `forward` that the model had as it was made; TRL replaces that later.
    """
    settings = plan.settings
    assert isinstance(settings, Gated)
    config = AdaptionPromptConfig(
        task_type=TaskType.CAUSAL_LM,
        adapter_len=settings.prompts,
        adapter_layers=model.config.num_hidden_layers - settings.skipped_layers,
    )
    adapted = get_peft_model(model, config)
    adapted.base_model.forward = partial(model)
    return parts.in_full(adapted, plan)
