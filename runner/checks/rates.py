"""Learning rates that a run would never have, or that are another optimizer's: told before it."""

from __future__ import annotations

import math
from typing import Final

from advisor.recipe import Recipe
from advisor.registry.lookup import OPTIMIZERS

_FAR: Final = 4.0
"""Times the rate to start from, or a part of it: less is a choice."""


def warnings(recipe: Recipe, num_rows: int) -> list[str]:
    """Of a recipe that trains on so many rows; packed ones make fewer steps, never more."""
    train = recipe.train
    batch = train.micro_batch * train.accumulation * recipe.hardware.gpus
    most = train.max_steps or math.ceil(math.ceil(num_rows / batch) * train.epochs)
    found = []
    if 1 <= most <= train.warmup:
        found.append(
            f"train.warmup is {train.warmup:g} steps and the run makes {most}: the learning rate "
            f"never gets to {recipe.learning_rate:g}; write a share, such as 0.1"
        )
    optimizer, asked = OPTIMIZERS[train.optimizer], train.learning_rate
    own = recipe.default_rate
    if optimizer.rate_factor != 1 and asked and not own / _FAR <= asked <= own * _FAR:
        found.append(
            f"train.learning_rate {asked:g} is far from where {optimizer.title} starts, {own:g}: "
            f"{optimizer.rate_reason}; without the key that is taken"
        )
    return found
