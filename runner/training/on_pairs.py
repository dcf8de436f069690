"""Tasks whose rows are preference pairs: what they share."""

from __future__ import annotations

from typing import Any

import torch

from runner.training import pairs
from runner.training.on_rows import RunOnRows, padding_of


class RunOnPairs(RunOnRows):
    """Rows are pairs, judged by what the model makes of both replies."""

    batches = pairs.PairBatches()

    def __init__(self, *args: Any, processing_class: Any, **kw: Any) -> None:
        """As RunOnRows has it."""
        collator = pairs.Collator(padding_of(processing_class))
        super().__init__(*args, processing_class=processing_class, data_collator=collator, **kw)


def preferred(margins: torch.Tensor) -> dict[str, torch.Tensor]:
    """The scores of pairs: by how much the chosen reply is ahead, and whether it is."""
    return {"margin": margins.detach(), "accuracy": (margins.detach() > 0).float()}
