"""What the layers of the model do, told every so many steps: layers.jsonl.

A record is also due before a checkpoint, so that an attempt that goes on from it leaves no step
out.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from transformers import TrainerCallback, TrainerState

from profiles.layer_facts import ExpertUse, together
from profiles.runs.records.layers import Routed
from runner.training.routing import RouterHooks

_PERIODS = 100
"""In a run."""
_FEWEST_STEPS = 10


def interval(every: int | None, num_steps: int) -> int:
    """Steps between records: as asked for, or a hundred times in a run and not before ten steps."""
    return every or max(_FEWEST_STEPS, -(-num_steps // _PERIODS))


class LayerStats(TrainerCallback):  # type: ignore[misc]
    """Looks at the layers while they are trained."""

    def __init__(self, trainer: Any, every: int | None) -> None:
        self._trainer = trainer
        self._asked = every
        self._since = 0
        """The step of the last record, or that the attempt began with."""
        self._routers: RouterHooks | None = None

    def on_train_begin(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """The first step comes next: what was computed before is not training."""
        self._since = state.global_step
        self._routers = RouterHooks(self._trainer.model)

    def forget_step(self) -> None:
        """The step that is being made is made again."""
        if self._routers is not None:
            self._routers.forget()

    def on_step_end(self, _args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """The step counts; a record may be due."""
        assert self._routers is not None
        self._routers.end_step()
        step, every = state.global_step, interval(self._asked, state.max_steps)
        if step % every == 0 or step >= state.max_steps:
            self.tell(step)

    def tell(self, step: int) -> None:
        """Write what there is to tell of the steps since the last record, on every rank."""
        if self._routers is None or step == self._since:
            return
        since, self._since = self._since, step
        ranks, metrics = self._trainer.ranks, self._trainer.attempt.layers
        for use in _summed(ranks.gathered(self._routers.take())):
            metrics.append(Routed(step=step, since=since, use=use), sync=False)
        metrics.sync()


def _summed(of_ranks: list[list[ExpertUse]]) -> list[ExpertUse]:
    """Of all ranks together, layer by layer; one that had no tokens on a rank is not there."""
    uses: dict[int, list[ExpertUse]] = {}
    for use in (use for of_rank in of_ranks for use in of_rank):
        uses.setdefault(use.layer, []).append(use)
    return [reduce(together, of_layer) for _, of_layer in sorted(uses.items())]
