"""IA3, BitFit and LayerNorm tuning: small parts of a model, or vectors that scale them."""

from __future__ import annotations

from typing import Any

import torch
from peft import IA3Config, LNTuningConfig, TaskType, get_peft_model

from advisor.plan import Plan
from advisor.registry.parts import BITFIT, IA3, SCALED_INPUT, SCALED_OUTPUTS
from runner.methods.base import COMPUTE_DTYPES


def load_options(plan: Plan) -> dict[str, Any]:
    """The frozen base in the type of the products."""
    return {"dtype": COMPUTE_DTYPES[plan.precision]}


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its parts trained, in fp32 unless all is to be in 16 bits."""
    return in_full(
        _with_biases(model) if plan.method is BITFIT else _with_vectors(model, plan), plan
    )


def in_full(adapted: Any, plan: Plan) -> Any:
    """The model, what trains of it in fp32 unless all is to be in 16 bits."""
    for parameter in adapted.parameters():
        if parameter.requires_grad and plan.precision != "bf16_pure":
            parameter.data = parameter.data.float()
    return adapted


def _with_biases(model: Any) -> Any:
    """Of linears and norms, where they are (arXiv 2106.10199)."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.endswith(".bias")
    return model


def _with_vectors(model: Any, plan: Plan) -> Any:
    """PEFT's."""
    if plan.method is IA3:
        config: Any = IA3Config(
            task_type=TaskType.CAUSAL_LM,
            target_modules=[*SCALED_OUTPUTS, SCALED_INPUT],
            feedforward_modules=[SCALED_INPUT],
        )
    else:
        config = LNTuningConfig(task_type=TaskType.CAUSAL_LM, target_modules=_norms(model))
    return get_peft_model(model, config)


def _norms(model: Any) -> list[str]:
    """Names of the norms as wide as the model; those of single heads are left as they are."""
    width = model.config.hidden_size

    def is_norm(module: torch.nn.Module) -> bool:
        weight = getattr(module, "weight", None)
        return "Norm" in type(module).__name__ and weight is not None and weight.shape == (width,)

    return [name for name, module in model.named_modules() if is_norm(module)]
