"""LoRA experts on the linears of a transformers model: how they compute, and how they load.

This file is published beside each mixture, where it is called load_lora_experts.py, so that whoever
has torch, transformers and safetensors can use the mixture:

    import load_lora_experts
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained("the base model")
    model = load_lora_experts.load(base, "the folder of this file")

Beside the result of a linear of input x stand n experts of rank r and a router:

    result + sum over experts i of softmax(R x)_i * alpha / r * B_i A_i x

after LoRAMoE (arXiv 2312.09979). All A are one matrix of n r rows, all B one of n r columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

CONFIG, WEIGHTS = "lora_experts_config.json", "lora_experts_weights.safetensors"


class LoraExperts(nn.Module):  # type: ignore[misc]  # torch is not looked into
    """The experts and the router of one linear; nothing at first, as every B begins at 0.

    The router begins at 0 too: every expert counts alike.
    """

    def __init__(  # as many as there are settings
        self, n_in: int, n_out: int, *, experts: int, rank: int, alpha: int, dropout: float
    ) -> None:
        super().__init__()
        self.experts, self.rank, self.scaling = experts, rank, alpha / rank
        self.down = nn.Linear(n_in, experts * rank, bias=False)
        self.up = nn.Linear(experts * rank, n_out, bias=False)
        self.router = nn.Linear(n_in, experts, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))  # as LoRA's A
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.router.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of shape (..., n_out), in the type of the experts or of autocast."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.down.weight.dtype)
        shares = torch.softmax(self.router(x).float(), dim=-1)
        low = self.down(self.dropout(x)).unflatten(-1, (self.experts, self.rank))
        low = (low * shares.to(low.dtype).unsqueeze(-1)).flatten(-2)
        found: torch.Tensor = self.up(low) * self.scaling
        return found


def insert(model: Any, names: Sequence[str], **settings: Any) -> None:
    """Put new experts on the linears of these names; AttributeError if the model has none such."""
    for name in names:
        linear = model.get_submodule(name)
        made = LoraExperts(*_sizes(linear), **settings)
        linear.lora_experts = made.to(linear.weight.device).train(linear.training)
        linear.register_forward_hook(_add)


def _sizes(linear: Any) -> tuple[int, int]:
    """Of what goes in and out; GPT-2's Conv1D has its own names for them."""
    if hasattr(linear, "nf"):
        return linear.nx, linear.nf
    return linear.in_features, linear.out_features


def load(model: Any, folder: str | Path) -> Any:
    """The base model with the experts of a folder; ValueError for another base."""
    told = json.loads((Path(folder) / CONFIG).read_text())
    if told["base"] != base_of(model):
        raise ValueError(f"the experts are for {told['base']}, this model is {base_of(model)}")
    insert(model, told["linears"], **told["settings"])
    found, weights = load_file(Path(folder) / WEIGHTS), weights_of(model)
    if found.keys() != weights.keys():
        raise ValueError(f"the experts have {len(found)} tensors, the model {len(weights)}")
    for name, weight in weights.items():
        weight.data = found[name].to(weight.device)
    return model


def base_of(model: Any) -> dict[str, Any]:
    """What the experts' base must have in common with another model."""
    names = ("model_type", "hidden_size", "num_hidden_layers")
    return {name: getattr(model.config, name) for name in names}


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> weight of all experts and routers."""
    return {name: p for name, p in model.named_parameters() if ".lora_experts." in name}


def _add(linear: Any, args: Any, result: torch.Tensor) -> torch.Tensor:
    """A forward hook: what the linear gave, and the experts' part beside it."""
    return result + linear.lora_experts(args[0]).to(result.dtype)
