"""APOLLO (arXiv 2412.05270): each matrix goes along its gradient, as far as AdamW would go.

How far is told by AdamW's states of a gradient that is projected at random onto few rows; the
projection is drawn anew from its seed in each step, so it needs no memory. Ours, after algorithm 1
of the paper: the authors' package may not be used commercially.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from runner.optimizers.weights import Asked, groups

_GAP = 200
"""Steps after which another projection is drawn."""
_MOST_GROWTH = 1.01
"""Of an update's norm from one step to the next (arXiv 2410.01623)."""
_MANY = 1_000_003
"""More than a model has matrices; not a power of 2, because a CPU takes 32 bits of a seed."""
_TINY = 1e-8


class Apollo(torch.optim.Optimizer):  # type: ignore[misc]
    """AdamW for groups of rank 0; others go along their gradients."""

    def __init__(self, found: list[dict[str, Any]], asked: Asked) -> None:
        """`found`: groups with `rank`, `scale` and `tensorwise`: one factor for a whole matrix."""
        defaults = {"lr": asked.rate, "betas": asked.betas, "eps": asked.eps}
        super().__init__(found, defaults | {"rank": 0, "scale": 1.0, "tensorwise": False})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """One step for every weight that has a gradient."""
        assert closure is None, "the Trainer hands over none"
        seed = 0
        for group in self.param_groups:
            for weight in group["params"]:
                seed += 1
                if weight.grad is not None:
                    update = self._update(weight, group, seed)
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-group["lr"])

    def _update(self, weight: torch.Tensor, group: dict[str, Any], seed: int) -> torch.Tensor:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        made = state.get("step", 0)
        if not group["rank"]:
            return _adam(state, gradient, group)
        wide = gradient if gradient.shape[0] <= gradient.shape[1] else gradient.T
        low = _projection(wide, group["rank"], seed, made // _GAP) @ wide
        step, axis = _adam(state, low, group), None if group["tensorwise"] else 0
        factor = _norm(step, axis) / (_norm(low, axis) + _TINY) * math.sqrt(group["scale"])
        update = _limited(state, wide * factor)
        return update if wide is gradient else update.T


def _norm(matrix: torch.Tensor, axis: int | None) -> torch.Tensor:
    return torch.linalg.vector_norm(matrix, dim=axis)


def _projection(wide: torch.Tensor, rank: int, seed: int, epoch: int) -> torch.Tensor:
    """[rank, rows] of a normal distribution that keeps lengths, the same for the same seed."""
    rows = wide.shape[0]
    used = min(rank, rows)
    generator = torch.Generator(wide.device).manual_seed(epoch * _MANY + seed)
    drawn = torch.randn(used, rows, generator=generator, device=wide.device, dtype=torch.float32)
    return (drawn / math.sqrt(used)).to(wide.dtype)


def _adam(state: dict[str, Any], gradient: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """AdamW's step at a rate of 1, without decay; its states go on."""
    if not state:
        state.update(step=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
    state["step"] += 1
    (of_mean, of_square), mean, square = group["betas"], state["mean"], state["square"]
    mean.lerp_(gradient, 1 - of_mean)
    square.mul_(of_square).addcmul_(gradient, gradient, value=1 - of_square)
    root = (square / (1 - of_square ** state["step"])).sqrt_().add_(group["eps"])
    return mean / (1 - of_mean ** state["step"]) / root


def _limited(state: dict[str, Any], update: torch.Tensor) -> torch.Tensor:
    """No longer than a little more than the last one."""
    norm = _norm(update, None)
    if (last := state.get("norm")) is not None:
        factor = (_MOST_GROWTH * last / (norm + _TINY)).clamp(max=1)
        update, norm = update * factor, norm * factor
    state["norm"] = norm
    return update


def make(model: nn.Module, asked: Asked) -> torch.optim.Optimizer:
    """Projected for the matrices of layers alone."""
    projected = {"rank": asked.spec.projected_rank, **asked.spec.options}
    return Apollo(groups(model, asked, **projected), asked)
