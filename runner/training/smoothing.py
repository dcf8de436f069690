"""Label smoothing (arXiv 1512.00567, section 7), with the loss without it beside."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import log_softmax, nll_loss

from runner.training.batches import IGNORED_LABEL


class Sums(NamedTuple):
    """Over all labels that count, in nats."""

    plain: torch.Tensor
    """Negative log-probability of the label."""
    uniform: torch.Tensor
    """The mean of that of all tokens of the vocabulary."""

    def smoothed(self, share: float) -> torch.Tensor:
        """As torch's cross_entropy(label_smoothing=share, reduction="sum")."""
        return (1 - share) * self.plain + share * self.uniform


def sums(logits: torch.Tensor, labels: torch.Tensor) -> Sums:
    """Of logits of shape (rows, tokens, vocabulary) and the labels that they predict."""
    log_probs = log_softmax(logits.flatten(0, 1).float(), dim=-1)
    flat = labels.flatten()
    plain = nll_loss(log_probs, flat, ignore_index=IGNORED_LABEL, reduction="sum")
    counted = (flat != IGNORED_LABEL).to(log_probs)
    return Sums(plain, -(log_probs.mean(dim=-1) * counted).sum())
