"""Odds Ratio Preference Optimization: the chosen reply is learnt, and told from the rejected one.

Hong et al., arXiv 2403.07691, equations 6 and 7. All of it is taken on replies, a mean over the
tokens of each: TRL's trainer learns the prompt as well, and lets long replies count more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from advisor.registry.tasks import Weight
from runner.training.on_pairs import RunOnPairs, preferred
from runner.training.on_rows import arguments
from runner.training.pairs import columns
from runner.training.row_losses import RowValues

__all__ = ["TRAINER", "arguments", "columns"]

_CERTAIN = -1e-6
"""Log-probability from which on the odds are as large as float32 can say."""


class RunOrpo(RunOnPairs):
    """One attempt of a run that learns chosen replies and shuns rejected ones."""

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """Loss of the chosen reply, and beta * -log sigmoid(log odds ratio of both)."""
        assert isinstance(self.goal, Weight)
        sums, counts = self.log_probs(model, inputs)
        better, worse = (sums / counts).chunk(2)
        ratio = logsigmoid(log_odds(better) - log_odds(worse))
        losses = -better - self.goal.beta * ratio
        return RowValues(losses, torch.ones_like(losses), preferred(better - worse))


def log_odds(log_prob: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of log p."""
    certain = log_prob.clamp(max=_CERTAIN)
    return certain - torch.log(-torch.expm1(certain))


TRAINER = RunOrpo
