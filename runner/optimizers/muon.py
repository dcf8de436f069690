"""Muon (arXiv 2502.16982) for the matrices of layers and AdamW for all else, as one optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from runner.optimizers.weights import Asked, groups


class MuonAndAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """torch's own two, which share the groups and the states of this one.

    Muon's steps are as large as AdamW's ("match_rms_adamw"), so that one rate serves both.
    """

    def __init__(self, found: list[dict[str, Any]], asked: Asked) -> None:
        """`found`: parameter groups, of which those with `is_muon` are matrices."""
        matrices = [group for group in found if group["is_muon"]]
        rest = [group for group in found if not group["is_muon"]]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(matrices, lr=asked.rate, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self._parts.append(
                torch.optim.AdamW(rest, lr=asked.rate, betas=asked.betas, eps=asked.eps)
            )
        super().__init__(found, {"lr": asked.rate})

    def _share(self) -> None:
        for part in self._parts:
            is_muon = isinstance(part, torch.optim.Muon)
            part.param_groups = [g for g in self.param_groups if g["is_muon"] == is_muon]
            part.state = self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Of either kind, as its `is_muon` says."""
        super().add_param_group(param_group)
        self._share()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The two parts go on with the groups and states that are loaded."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> None:
        """One step of each."""
        assert closure is None, "the Trainer hands over none"
        for part in self._parts:
            part.step()


def make(model: nn.Module, asked: Asked) -> torch.optim.Optimizer:
    """Of the weights that train; a low-rank adapter's are matrices too."""
    found = groups(model, asked, is_muon=True)
    return MuonAndAdamW([{"is_muon": False, **group} for group in found], asked)
