"""A reward model: one number for a text, higher for the chosen reply than for the rejected one.

Bradley and Terry's model of preferences, as in Ouyang et al., arXiv 2203.02155, equation 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from runner.training.data import Splits
from runner.training.on_pairs import RunOnPairs, preferred
from runner.training.on_rows import arguments
from runner.training.pairs import columns
from runner.training.row_losses import RowValues

__all__ = ["TRAINER", "arguments", "columns"]


class RunReward(RunOnPairs):
    """One attempt of a run that trains a reward model."""

    @staticmethod
    def head(_splits: Splits) -> dict[str, Any]:
        """One number."""
        return {"num_labels": 1}

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """-log sigmoid(reward of the chosen text - that of the rejected one)."""
        chosen, rejected = self.outputs(model, inputs)[:, 0].chunk(2)
        losses = -logsigmoid(chosen - rejected)
        return RowValues(losses, torch.ones_like(losses), preferred(chosen - rejected))


TRAINER = RunReward
