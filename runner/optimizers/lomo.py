"""LOMO (arXiv 2306.09782): plain descent, made for each weight while the gradients are computed.

No gradient is kept, so nothing can be clipped, added up over micro-batches or tried again.
"""

from __future__ import annotations

import torch
from lomo_optim import Lomo
from torch import nn

from runner.optimizers.weights import Asked


def make(model: nn.Module, asked: Asked) -> torch.optim.Optimizer:
    """With the decay of the recipe, on every weight: the library knows one for all."""
    made: torch.optim.Optimizer = Lomo(model, lr=asked.rate, weight_decay=asked.decay)
    for group in made.param_groups:
        group["weight_decay"] = asked.decay  # where other optimizers have it
    return made
