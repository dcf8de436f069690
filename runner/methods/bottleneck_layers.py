"""Bottleneck adapters in the layers of a transformers model: how they compute, and how they load.

This file is published beside each adapter, where it is called load_bottleneck.py, so that whoever
has torch, transformers and safetensors can use the adapter:

    import load_bottleneck
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("the base model")
    model = load_bottleneck.load(base, "the folder of this file")

An adapter adds up(activation(down(x))) to what a module returns. `placement` says to which: after
attention and after the MLP ("houlsby", arXiv 1902.00751), after the MLP alone ("pfeiffer", arXiv
2005.00247), or beside the MLP, from its input ("parallel", arXiv 2110.04366, unscaled).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

CONFIG, WEIGHTS = "bottleneck_config.json", "bottleneck_weights.safetensors"
ATTENTION = ("self_attn", "attn", "attention")
MLP = ("mlp",)
"""By the names that transformers' families give them."""
ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class Bottleneck(nn.Module):  # type: ignore[misc]  # torch is not looked into
    """Down to `inner` numbers and up to `width` again; nothing at first, as `up` begins at 0."""

    def __init__(self, width: int, inner: int, activation: str, *, is_parallel: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = ACTIVATIONS[activation]()
        self.is_parallel = is_parallel
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of shape (..., width), in the type of the adapter or of autocast."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.down.weight.dtype)
        found: torch.Tensor = self.up(self.activation(self.down(x)))
        return found


def insert(model: Any, *, reduction: int, placement: str, activation: str) -> None:
    """Put new adapters into all layers; ValueError for a model whose modules have other names."""
    width = model.config.hidden_size
    names = (ATTENTION, MLP) if placement == "houlsby" else (MLP,)
    for layer in _layers(model):
        for known in names:
            module = next((getattr(layer, name) for name in known if hasattr(layer, name)), None)
            if module is None:
                raise ValueError(
                    f"{type(layer).__name__} has no module called {' or '.join(known)}"
                )
            inner = max(1, width // reduction)
            adapter = Bottleneck(width, inner, activation, is_parallel=placement == "parallel")
            module.bottleneck = adapter.to(next(module.parameters()).device)
            module.register_forward_hook(_add, with_kwargs=True)


def load(model: Any, folder: str | Path) -> Any:
    """The base model with the adapter of a folder; ValueError for another base."""
    told = json.loads((Path(folder) / CONFIG).read_text())
    if told["base"] != base_of(model):
        raise ValueError(f"the adapter is for {told['base']}, this model is {base_of(model)}")
    insert(model, **told["adapter"])
    found, weights = load_file(Path(folder) / WEIGHTS), weights_of(model)
    if found.keys() != weights.keys():
        raise ValueError(f"the adapter has {len(found)} tensors, the model {len(weights)}")
    for name, weight in weights.items():
        weight.data = found[name].to(weight.device)
    return model


def base_of(model: Any) -> dict[str, Any]:
    """What an adapter's base must have in common with another model."""
    names = ("model_type", "hidden_size", "num_hidden_layers")
    return {name: getattr(model.config, name) for name in names}


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> weight of all adapters."""
    return {name: p for name, p in model.named_parameters() if ".bottleneck." in name}


def _add(module: nn.Module, args: Any, named: Any, output: Any) -> Any:
    """A forward hook: what the module returned, and the adapter's part beside it."""
    adapter: Any = module.bottleneck
    result = output[0] if isinstance(output, tuple) else output
    read = result
    if adapter.is_parallel:
        read = args[0] if args else named["hidden_states"]
    total = result + adapter(read).to(result.dtype)
    return (total, *output[1:]) if isinstance(output, tuple) else total


def _layers(model: Any) -> nn.ModuleList:
    number = model.config.num_hidden_layers
    for module in model.modules():  # outer ones first
        if isinstance(module, nn.ModuleList) and len(module) == number:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {number} layers")
