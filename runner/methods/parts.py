"""IA3, BitFit and LayerNorm tuning: small parts of a model, or vectors that scale them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import IA3Config, LNTuningConfig, TaskType, get_peft_model

from advisor.plan import Plan
from advisor.registry.parts import BITFIT, IA3, SCALED_INPUT, SCALED_OUTPUTS, Parts
from runner.methods import beside
from runner.methods.base import COMPUTE_DTYPES
from runner.methods.low_rank import HEADS


def load_options(plan: Plan) -> dict[str, Any]:
    """The frozen base in the type of the products."""
    return {"dtype": COMPUTE_DTYPES[plan.precision]}


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its parts trained, in fp32 unless all is to be in 16 bits."""
    return in_full(
        _with_biases(model, plan) if plan.method is BITFIT else _with_vectors(model, plan), plan
    )


def in_full(adapted: Any, plan: Plan) -> Any:
    """The model, what trains of it in fp32 unless all is to be in 16 bits."""
    for parameter in adapted.parameters():
        if parameter.requires_grad and plan.precision != "bf16_pure":
            parameter.data = parameter.data.float()
    return adapted


def _with_biases(model: Any, plan: Plan) -> Any:
    """Of linears and norms, where they are, and a new head whole (arXiv 2106.10199)."""
    heads = () if plan.task.head == "lm" else HEADS
    is_chosen = _chosen(model, plan)
    for name, parameter in model.named_parameters():
        is_head = not set(heads).isdisjoint(name.split("."))
        parameter.requires_grad = is_head or (name.endswith(".bias") and is_chosen(name))
    return model


def _with_vectors(model: Any, plan: Plan) -> Any:
    """PEFT's; a new head is trained whole and saved."""
    told: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM}
    if plan.task.head != "lm":
        told = {"task_type": TaskType.SEQ_CLS, "modules_to_save": list(HEADS[2:])}
    if plan.method is IA3:
        config: Any = IA3Config(
            **told,
            target_modules=_linears(model, plan, *SCALED_OUTPUTS, SCALED_INPUT),
            feedforward_modules=_linears(model, plan, SCALED_INPUT),
        )
    else:
        config = LNTuningConfig(**told, target_modules=_norms(model, plan))
    return get_peft_model(model, config)


def _chosen(model: Any, plan: Plan) -> Callable[[str], bool]:
    """Whether what has this name is in a layer that trains."""
    assert isinstance(plan.settings, Parts)
    if plan.settings.layers == "all":
        return lambda _name: True
    num_layers = model.config.num_hidden_layers
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList)]
    (stack,) = (name for name, m in lists if len(m) == num_layers)
    numbers = plan.settings.adapted_layers(num_layers)
    inside = tuple(f"{stack}.{number}." for number in numbers)
    return lambda name: name.startswith(inside)


def _linears(model: Any, plan: Plan, *names: str) -> list[str]:
    """Of all layers, which is what their last names mean to PEFT, or of those that train."""
    assert isinstance(plan.settings, Parts)
    if plan.settings.layers == "all":
        return list(names)
    is_chosen = _chosen(model, plan)
    return [n for n, _ in model.named_modules() if n.endswith(names) and is_chosen(n)]


def _norms(model: Any, plan: Plan) -> list[str]:
    """Names of the norms as wide as the model; those of single heads are left as they are."""
    is_chosen = _chosen(model, plan)
    return [name for name in beside.norms(model) if is_chosen(name)]
