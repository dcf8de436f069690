"""Bottleneck adapters: small layers behind or beside the modules of each layer.

What is published is the adapter alone, with the code that loads it: no folder that transformers or
PEFT would take for one of theirs.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from advisor.plan import Plan
from runner.methods import bottleneck_layers
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
    # The Trainer would write a whole model, which loads as one that was never adapted
    model.save_pretrained = functools.partial(_save, model, told)
    return model


def _save(model: Any, told: dict[str, Any], folder: str | Path, **_options: Any) -> None:
    """Weights and settings of the adapters, and the code that puts them on a base."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    weights = bottleneck_layers.weights_of(model).items()
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights}
    save_file(tensors, place / bottleneck_layers.WEIGHTS, metadata={"format": "pt"})
    config = {"base": bottleneck_layers.base_of(model), "adapter": told}
    (place / bottleneck_layers.CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    shutil.copyfile(bottleneck_layers.__file__, place / _LOADER)
