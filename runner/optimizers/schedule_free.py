"""Schedule-free AdamW (arXiv 2405.15682): an average of the weights in place of a schedule.

It trains at one point and is evaluated, saved and published at another.
"""

from __future__ import annotations

import torch
from schedulefree import AdamWScheduleFree
from torch import nn

from runner.optimizers.weights import Asked, groups

_TRAINED = "trained_at"


class ScheduleFree(AdamWScheduleFree):  # type: ignore[misc]
    """The library's, which goes back to the very numbers that it trained at.

    The library computes them from the averaged ones, with rounding: a run that is evaluated or
    saved would not be the run that is not.
    """

    def eval(self) -> None:
        """To the averaged weights; those that it trains at are kept among the states."""
        for group in self.param_groups:
            for weight in group["params"] if group["train_mode"] else ():
                if "z" in self.state[weight]:
                    self.state[weight][_TRAINED] = weight.detach().clone()
        super().eval()

    def train(self) -> None:
        """Back to where it trains."""
        super().train()
        with torch.no_grad():
            for weight, state in self.state.items():
                if _TRAINED in state:
                    weight.copy_(state.pop(_TRAINED))


def make(model: nn.Module, asked: Asked) -> torch.optim.Optimizer:
    """The warm-up is the schedule's."""
    made: torch.optim.Optimizer = ScheduleFree(
        groups(model, asked), lr=asked.rate, betas=asked.betas, eps=asked.eps
    )
    return made
