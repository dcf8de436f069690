"""Q03: the training loss falls on while the evaluation loss rises."""

from __future__ import annotations

from advisor.rules.case import Finding
from advisor.rules.quality.training import NOTABLE, Training

_MOST_DROPOUT = 0.3
_MORE_DROPOUT = 0.1


def check(training: Training) -> Finding | None:
    """Fires if all evaluations after the best are above it, by 1 % in the end."""
    result = training.result
    best, last = result.best_step, result.last_step
    if best is None or last is None or result.best_loss is None or result.last_loss is None:
        return None
    risen = result.last_loss / result.best_loss - 1 if result.best_loss > 0 else 0.0
    before, after = training.training_near(best), training.training_near(last)
    if last == best or risen < NOTABLE or before is None or after is None:
        return None
    if after > before * (1 - NOTABLE):  # both rise: that is another trouble
        return None
    return Finding(
        id="Q03",
        title="over-fitting",
        severity="warning",
        confidence="exact",
        sentence=f"since step {best} the evaluation loss rose from {result.best_loss:.4f} to "
        f"{result.last_loss:.4f} while the training loss fell from {before:.4f} to {after:.4f}",
        evidence={
            "best_step": best,
            "best_loss": result.best_loss,
            "last_loss": result.last_loss,
            "training_loss_at_best": before,
            "training_loss_at_last": after,
        },
        change=_change(training),
        side_effects="less is learnt by heart; more rows would help most",
    )


def _change(training: Training) -> dict[str, tuple[object, object]]:
    train, settings = training.recipe.train, training.recipe.method.settings
    if train.early_stopping is None:
        return {"train.early_stopping": (None, 3)}
    dropout = getattr(settings, "dropout", None)
    if dropout is not None and dropout < _MOST_DROPOUT:
        more = min(_MOST_DROPOUT, dropout + _MORE_DROPOUT)
        return {"method.dropout": (dropout, round(more, 2))}
    return {"train.weight_decay": (train.weight_decay, min(1.0, 10 * train.weight_decay or 0.1))}
