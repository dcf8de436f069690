"""Which weights train, and which of them are the matrices of layers, updated as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn


class Asked(NamedTuple):
    """What the recipe asks of an optimizer."""

    rate: float
    decay: float
    decays: Collection[str]
    """Names of the weights that decay."""
    betas: tuple[float, float]
    eps: float
    spec: Any
    """The OptimizerSpec."""


def layer_matrices(model: nn.Module) -> Iterator[str]:
    """Names of the weights of linears, the output's left out; what they are in is not asked.

    A mixture's experts are tensors of three dimensions, so they are not among them.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield f"{name}.weight" if name else "weight"


def groups(model: nn.Module, asked: Asked, **of_matrices: Any) -> list[dict[str, Any]]:
    """Parameter groups: matrices of layers with these settings, and the rest; each by its decay."""
    matrices = set(layer_matrices(model))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    found = []
    for is_matrix in (True, False):
        for decays in (True, False):
            chosen: list[torch.Tensor] = [
                p
                for name, p in trained
                if (name in matrices, name in asked.decays) == (is_matrix, decays)
            ]
            more = of_matrices if is_matrix else {}
            decay = asked.decay if decays else 0.0
            if chosen:
                found.append({"params": chosen, "weight_decay": decay, **more})
    return found
