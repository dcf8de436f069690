"""Mixtures of LoRA experts: several adapters on each linear, weighed by a router token by token.

What is published is the experts with their routers, and the code that loads them: PEFT has no such
mixture (X-LoRA runs the base twice a step, and gets no hidden states from TRL's chunked loss).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from advisor.plan import Plan
from advisor.registry.low_rank import ATTENTION_LINEARS
from advisor.registry.mixtures import LoraExperts
from runner.methods import lora_experts_layers as layers
from runner.methods import own_file
from runner.methods.base import COMPUTE_DTYPES, layers_of

_LOADER = "load_lora_experts.py"
_WRAPPED = "base_model.model."
"""Before the names of what PEFT wraps."""
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_LINEARS = (torch.nn.Linear, Conv1D)


def load_options(plan: Plan) -> dict[str, Any]:
    """The frozen base in the type of the products."""
    return {"dtype": COMPUTE_DTYPES[plan.precision]}


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its experts, in fp32 unless all is to be in 16 bits."""
    settings = plan.settings
    assert isinstance(settings, LoraExperts)
    model.requires_grad_(requires_grad=False)
    names = list(_targets(model, settings.targets))
    told = {key: getattr(settings, key) for key in ("experts", "rank", "alpha", "dropout")}
    layers.insert(model, names, **told)
    for name, weight in layers.weights_of(model).items():
        if plan.precision == "bf16_pure":
            weight.data = weight.data.bfloat16()
        weight.requires_grad = ".router." in name or not settings.freeze_experts
    config = {"base": layers.base_of(model), "linears": names, "settings": told | {"dropout": 0.0}}
    own_file.publish_with(model, layers, "lora_experts", _LOADER, config)
    return model


def begin_as(model: Any, folders: Sequence[Path]) -> None:
    """Each expert as one LoRA adapter in PEFT's format; what it does not adapt stays as it began.

    A narrower adapter leaves numbers over, whose B stays 0; how often it counts goes into B.
    """
    for number, folder in enumerate(folders):
        told = json.loads((folder / CONFIG_NAME).read_text())
        tensors = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
        for name, low in tensors.items():
            if _DOWN not in name:
                continue
            part = model.get_submodule(name.removeprefix(_WRAPPED).removesuffix(_DOWN)).lora_experts
            rank, high = len(low), tensors[name.replace(_DOWN, _UP)]
            scaling = told["lora_alpha"] / (math.sqrt(rank) if told.get("use_rslora") else rank)
            begin = number * part.rank
            with torch.no_grad():
                part.down.weight[begin : begin + rank] = low
                part.up.weight[:, begin : begin + rank] = high.float() * scaling / part.scaling


def _targets(model: Any, targets: str | tuple[str, ...]) -> Iterator[str]:
    """Names of the linears that get experts: all in the layers, those of attention, or as named."""
    inside = {id(module) for layer in layers_of(model) for module in layer.modules()}
    for name, module in model.named_modules():
        if id(module) not in inside or not isinstance(module, _LINEARS):
            continue
        is_named = name.rpartition(".")[2] in targets
        is_attention = re.fullmatch(ATTENTION_LINEARS, name) is not None
        if {"all": True, "attention": is_attention}.get(str(targets), is_named):
            yield name
