"""Direct Preference Optimization: the chosen reply becomes likelier than the rejected one.

Rafailov et al., arXiv 2305.18290, equation 7.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from advisor.registry.tasks import Beta
from runner.training.on_pairs import RunOnPairs, preferred
from runner.training.on_rows import arguments
from runner.training.pairs import columns
from runner.training.row_losses import RowValues

__all__ = ["TRAINER", "arguments", "columns"]


class RunDpo(RunOnPairs):
    """One attempt of a run that trains on preference pairs."""

    def row_losses(self, model: Any, inputs: Any) -> RowValues:
        """-log sigmoid(beta * how much further the replies lie apart than in the reference)."""
        assert isinstance(self.goal, Beta)
        with self.reference() as before:  # first, so that no activations are kept meanwhile
            reference, _ = self.log_probs(before, inputs)
        sums, counts = self.log_probs(model, inputs)
        chosen, rejected = (sums - reference).chunk(2)
        losses = -logsigmoid(self.goal.beta * (chosen - rejected))
        better, worse = (sums / counts).chunk(2)
        return RowValues(losses, torch.ones_like(losses), preferred(better - worse))


TRAINER = RunDpo
