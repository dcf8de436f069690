"""Learning rates that a run would never have, or that are another optimizer's: told before it."""

from __future__ import annotations

import math
from typing import Final

from advisor.recipe import Recipe
from advisor.registry.lookup import OPTIMIZERS
from profiles.errors import ExitCode, UserError

_FAR: Final = 4.0
"""Times the rate to start from, or a part of it: less is a choice."""


def refuse_too_short(recipe: Recipe, num_rows: int) -> None:
    """UserError if the run cannot have as many steps as its method needs, whatever is packed."""
    most = _most_steps(recipe, num_rows)
    if most and (why := recipe.method.settings.too_short(most)):
        raise UserError(
            f"the run is too short for {recipe.method.spec.title}",
            why=f"{why}; its {num_rows} rows to train on make no more",
            do="raise train.epochs, or write train.max_steps",
            where="train.epochs",
            code=ExitCode.BAD_RECIPE,
        )


def _most_steps(recipe: Recipe, num_rows: int) -> int:
    train = recipe.train
    batch = train.micro_batch * train.accumulation * recipe.hardware.gpus
    return train.max_steps or math.ceil(math.ceil(num_rows / batch) * train.epochs)


def warnings(recipe: Recipe, num_rows: int) -> list[str]:
    """Of a recipe that trains on so many rows; packed ones make fewer steps, never more."""
    train, most = recipe.train, _most_steps(recipe, num_rows)
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
