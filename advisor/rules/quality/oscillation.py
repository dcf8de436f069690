"""Q05: the training loss swings instead of falling."""

from __future__ import annotations

from statistics import fmean, pstdev

from advisor.rules.case import Finding
from advisor.rules.quality.training import Training

_WINDOWS = 16
_FEWEST_IN_A_WINDOW = 3
_SWING = 0.05
"""Of the mean loss: smaller swings are no trouble. A heuristic."""
_ABOVE_NOISE = 3.0
"""Times the spread that the batches alone would give to the windows' means. A heuristic."""


def check(training: Training) -> Finding | None:
    """Fires if means of consecutive steps swing by far more than their batches explain."""
    curve = training.curves.training
    curve = curve[len(curve) // 10 :]  # the warm-up has its own course
    losses = [loss for _, loss in curve]
    size = len(losses) // _WINDOWS
    if size < _FEWEST_IN_A_WINDOW:
        return None
    num_steps = curve[size][0] - curve[0][0]
    windows = [losses[first * size : (first + 1) * size] for first in range(_WINDOWS)]
    means = [fmean(window) for window in windows]
    # Against the line between both neighbours, a steady fall is no swing.
    swings = [b - (a + c) / 2 for a, b, c in zip(means, means[1:], means[2:], strict=False)]
    noise = fmean([pstdev(window) for window in windows]) * (1.5 / size) ** 0.5
    swing, level = pstdev(swings, 0.0), fmean(means)
    if level <= 0 or swing < _SWING * level or swing < _ABOVE_NOISE * noise:
        return None
    return Finding(
        id="Q05",
        title="the loss oscillates",
        severity="warning",
        confidence="exact",
        sentence=f"the training loss swings by {swing / level:.0%} of its mean from one "
        f"{num_steps} steps to the next: the learning rate is too high, or the warm-up too short",
        evidence={"swing": swing, "noise": noise, "mean_loss": level},
        change=training.lower_rate,
        side_effects="training takes smaller steps",
    )
