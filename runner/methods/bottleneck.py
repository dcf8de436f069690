"""Bottleneck adapters: small layers behind or beside the modules of each layer.

What is published is the adapter alone, with the code that loads it: no folder that transformers or
PEFT would take for one of theirs.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from advisor.plan import Plan
from runner.methods import bottleneck_layers, own_file
from runner.methods.base import COMPUTE_DTYPES

_LOADER = "load_bottleneck.py"


def load_options(plan: Plan) -> dict[str, Any]:
    """The frozen base in the type of the products."""
    return {"dtype": COMPUTE_DTYPES[plan.precision]}


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its adapters, in fp32 unless all is to be in 16 bits."""
    model.requires_grad_(requires_grad=False)
    told = asdict(plan.settings)
    bottleneck_layers.insert(model, **told)
    if plan.precision == "bf16_pure":
        for weight in bottleneck_layers.weights_of(model).values():
            weight.data = weight.data.bfloat16()
    config = {"base": bottleneck_layers.base_of(model), "adapter": told}
    own_file.publish_with(model, bottleneck_layers, "bottleneck", _LOADER, config)
    return model
