"""GaLore (arXiv 2403.03507): AdamW on gradients that are projected onto few directions.

The library's own, with groups of ours: the Trainer's leave out the weight decay and project the
output's matrix too.
"""

from __future__ import annotations

from typing import Any

import torch
from galore_torch import GaLoreAdamW
from galore_torch.galore_projector import GaLoreProjector
from torch import nn

from runner.optimizers.weights import Asked, groups

_GAP = 200
"""Steps after which the directions are chosen anew."""
_SCALE = 0.25


def make(model: nn.Module, asked: Asked) -> torch.optim.Optimizer:
    """Its states hold objects of the library: torch is told to load those from a checkpoint."""
    torch.serialization.add_safe_globals([GaLoreProjector])
    projected: dict[str, Any] = {
        "rank": asked.spec.projected_rank,
        "update_proj_gap": _GAP,
        "scale": _SCALE,
        "proj_type": "std",
    }
    made: torch.optim.Optimizer = GaLoreAdamW(
        groups(model, asked, **projected),
        lr=asked.rate,
        betas=asked.betas,
        eps=asked.eps,
        no_deprecation_warning=True,
    )
    return made
