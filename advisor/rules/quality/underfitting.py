"""Q04: the run ended while the evaluation loss was still falling."""

from __future__ import annotations

from advisor.rules.case import Finding
from advisor.rules.quality.training import NOTABLE, Training

_FEWEST = 3
"""Evaluations, the base model's among them, that show a direction."""


def check(training: Training) -> Finding | None:
    """Fires if the last evaluation is the best, by 1 % against the one before."""
    curve = [loss for _, loss in training.result.curve]
    if not training.curves.is_over or len(curve) < _FEWEST:
        return None
    *_, before, last = curve
    if last != min(curve) or last > before * (1 - NOTABLE):
        return None
    train = training.recipe.train
    longer = (
        {"train.max_steps": (train.max_steps, 2 * train.max_steps)}
        if train.max_steps
        else {"train.epochs": (train.epochs, min(1000.0, 2 * train.epochs))}
    )
    return Finding(
        id="Q04",
        title="under-fitting",
        severity="info",
        confidence="modelled",
        sentence=f"the evaluation loss was still falling when the run ended: {before:.4f}, then "
        f"{last:.4f}. Train longer; a higher rank or more target modules if that stops helping",
        evidence={"loss_before": before, "last_loss": last},
        change=dict(longer),
        time_factor=(2.0, 2.0, 2.0),
        side_effects="the learning-rate schedule is stretched over the longer run",
    )
