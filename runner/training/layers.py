"""What the layers of the model do, told every so many steps: layers.jsonl.

A record is also due before a checkpoint, so that an attempt that goes on from it leaves no step
out.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from transformers import TrainerCallback, TrainerState

from advisor.plan import Plan
from profiles.layer_facts import ExpertUse, LinearNorms, together
from profiles.runs.records.layers import Moved, Routed
from runner import methods
from runner.methods import products
from runner.training.routing import RouterHooks

_PERIODS = 100
"""In a run."""
_FEWEST_STEPS = 10


def interval(every: int | None, num_steps: int) -> int:
    """Steps between records: as asked for, or a hundred times in a run and not before ten steps."""
    return every or max(_FEWEST_STEPS, -(-num_steps // _PERIODS))


class Norms:
    """How far adapters have moved, against the weights that they are added to."""

    def __init__(self) -> None:
        self._of_weights: list[float | None] | None = None

    def look(self, model: Any, plan: Plan) -> list[LinearNorms]:
        """On every rank; frozen weights are looked at once."""
        found = methods.updates(model, plan)
        if self._of_weights is None:
            self._of_weights = [products.norm_of(one.weight()) for one in found]
        return list(products.by_linear(found, products.norms(found), self._of_weights))


class LayerStats(TrainerCallback):  # type: ignore[misc]
    """Looks at the layers while they are trained."""

    def __init__(self, trainer: Any, every: int | None) -> None:
        self._trainer = trainer
        self._asked = every
        self._since = 0
        """The step of the last record, or that the attempt began with."""
        self._routers: RouterHooks | None = None
        self._norms = Norms()

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
        journal = self._trainer.attempt.layers
        for use in self._uses():
            journal.append(Routed(step=step, since=since, use=use), sync=False)
        for linear in self._norms.look(self._trainer.model, self._trainer.plan):
            journal.append(Moved(step=step, since=since, linear=linear), sync=False)
        journal.sync()

    def _uses(self) -> list[ExpertUse]:
        """Of all ranks."""
        if self._routers is None or not self._routers.num_layers:
            return []
        return _summed(self._trainer.ranks.gathered(self._routers.take()))


def _summed(of_ranks: list[list[ExpertUse]]) -> list[ExpertUse]:
    """Of all ranks together, layer by layer; one that had no tokens on a rank is not there."""
    uses: dict[int, list[ExpertUse]] = {}
    for use in (use for of_rank in of_ranks for use in of_rank):
        uses.setdefault(use.layer, []).append(use)
    return [reduce(together, of_layer) for _, of_layer in sorted(uses.items())]
