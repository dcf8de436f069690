"""Fine-tuning of the model's own weights: all of them, or those of some layers.

Under autocast the trained weights stay in fp32: at learning rates near 1e-5 an update is smaller
than the spacing of bf16 numbers and would be lost. `bf16_pure` accepts that for half the memory.
Weights that do not train are in the type of the products, whatever the precision.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from advisor.plan import Plan
from advisor.registry.whole import FREEZE
from runner.methods.base import COMPUTE_DTYPES, layers_of

_BEFORE = re.compile(r"(.*\.)?(\w*embed\w*|wte|wpe|project_in)")
"""What stands before the layers, by the names that transformers' families give it; a head that is
tied to the embedding is one with it."""


def load_options(plan: Plan) -> dict[str, Any]:
    """The type that weights are trained in, or that of the products."""
    if plan.method is FREEZE or plan.precision == "bf16_pure":
        return {"dtype": COMPUTE_DTYPES[plan.precision]}
    return {"dtype": torch.float32}


def adapt(model: Any, plan: Plan) -> Any:
    """The model as it is, or with the layers before and beside those that train frozen."""
    if plan.method is FREEZE:
        _freeze(model, plan)
    return model


def _freeze(model: Any, plan: Plan) -> None:
    """All that stands before the layers, and those that do not train."""
    layers = layers_of(model)
    trained = plan.settings.adapted_layers(len(layers))
    head = model.get_output_embeddings()
    keeps = [layer for number, layer in enumerate(layers) if number not in trained]
    keeps += [one for name, one in model.named_modules() if _is_before(name) and one is not head]
    frozen = {id(parameter) for module in keeps for parameter in module.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) not in frozen
        if parameter.requires_grad and plan.precision != "bf16_pure":
            parameter.data = parameter.data.float()
    # With recomputed activations transformers asks for the embedding's gradient, for which the
    # layers before the first that trains would be computed again and gone back through in vain
    model.enable_input_require_grads = _ask_for_nothing


def _is_before(name: str) -> bool:
    return _BEFORE.fullmatch(name) is not None


def _ask_for_nothing() -> None:
    """In place of a model's own method."""
