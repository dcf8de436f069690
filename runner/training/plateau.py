"""The schedule that follows the evaluations: the rate is lowered where their loss stays.

Ours, because torch's `ReduceLROnPlateau` has no warm-up and forgets what a resumed run has found
since its checkpoint: here the share follows from the run's evaluations alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from advisor.registry.schedules import PLATEAU_FACTOR, PLATEAU_PATIENCE
from runner.training.selection import Selection


def share_of(selection: Selection, rising: int) -> Callable[[int], float]:
    """Number of steps made -> share of the rate, after a warm-up of `rising` steps.

    Of the evaluations only those of earlier steps count: the rate of the next step is set before
    the evaluation of this one, in a run that was resumed there as in one that was not.
    """

    def share(step: int) -> float:
        warm = min(1.0, step / rising) if rising else 1.0
        return warm * PLATEAU_FACTOR ** _plateaus(selection.losses, step)

    return share


def _plateaus(losses: Mapping[int, float], before: int) -> int:
    """How often so many evaluations in a row had no lower loss than the lowest before them."""
    lowest, waited, found = float("inf"), 0, 0
    for step in sorted(step for step in losses if step < before):
        if losses[step] < lowest:
            lowest, waited = losses[step], 0
            continue
        waited += 1
        if waited == PLATEAU_PATIENCE:
            found, waited = found + 1, 0
    return found
