"""What several instants of a training step have in common, for one model and plan on one device.

Weights, gradients and optimizer states as they lie there, and what all layers keep between the
forward and the backward pass. At which instant how much of it is alive is moments.py's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.cost.sharding import (
    Gathered,
    Shares,
    gathered,
    gradients_here,
    resident_states,
    shares_of,
    weights_here,
)
from advisor.cost.weights import (
    adapter_bytes,
    embedding_params,
    reference_bytes,
)
from advisor.graph.attention import attention_of, keys_per_query
from advisor.graph.modules import INDEX
from advisor.graph.network import Layers, Network, network
from advisor.graph.outer import outer
from advisor.graph.play import Profile, Stage
from advisor.precision import flow_width, trained_width
from advisor.tape import NOTHING, Size, once, per_pair, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model


NUM_INDICES: Final = 3
"""Of a token in a batch: its id, its label, its place in the attention mask."""


class Candidate(NamedTuple):
    """One instant: where it is, bytes by component, and their sum."""

    name: str
    place: str
    """The operation that is at work."""
    shares: dict[str, Size]
    total: Size
    has_tile: bool
    """The fused head's tile is alive, which no linear form describes."""


class Standing:
    """What several candidates need, computed once."""

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.network: Network = network(model, plan)
        self.shares: Shares = shares_of(plan)
        self.gathered: Gathered = gathered(model, plan)
        self.entry = self.network.entry
        self.checkpoint = NOTHING if plan.framework.offloaded_checkpoints else self.entry
        """What a recomputed layer keeps."""
        self.recomputes = plan.checkpointing and plan.checkpointed_layers != 0
        asks = plan.method.asks_for_input and self.recomputes
        self.outer = outer(model, plan)
        self.spares_first = plan.method.spares_first and not asks and not self.outer.embedding
        self.mask = self._mask()
        # Checkpoints keep it as an argument of the layers.
        self.shared = self._shared().plus(self.mask if self.recomputes else NOTHING)
        self.saved = self.cached = NOTHING
        for layers in self.network.layers:
            self.saved = self.saved.plus(self._saved(layers))
            self.cached = self.cached.plus(layers.profile.cached.times(layers.kind.count))
        if not self.recomputes and self.spares_first:
            # Nothing before the first layer that trains does, so less of it is needed.
            usual = self.kept(self.network.lowest.profile)
            self.saved = self.saved.minus(usual).plus(self.network.first.saved)
        self.accumulates = plan.accumulation > 1 and not plan.framework.first_step
        self.accumulates = self.accumulates or plan.method.penalizes
        self.gradients = gradients_here(model, plan)
        self.head_gradient, self.late_gradients = self._outer_gradients()
        self.retained = self.network.loss.retained
        self.static = self._static()

    def _outer_gradients(self) -> tuple[float, float]:
        """Of the head, and what of all gradients is not there before the embedding's are."""
        model, plan = self.model, self.plan
        of_embedding, of_head = (trains == "whole" for trains in self.outer[:2])
        if not of_head and not of_embedding:
            return 0.0, 0.0
        table = embedding_params(model)
        width = trained_width(plan) if plan.method.trains_base else self.outer.width
        sharded = table * width / self.shares.gradients
        if plan.task.head != "lm":
            return 0.0, sharded if of_embedding else 0.0
        late = of_embedding and not model.tied_embeddings
        if plan.updates_in_backward:
            return sharded if model.tied_embeddings else 0.0, 0.0
        if plan.framework.fsdp1:
            # The root unit's gradient is whole and in the type of the computation until its end.
            return table * flow_width(plan), sharded * (2 if late else 1)
        return sharded if of_head else 0.0, sharded if late else 0.0

    def _shared(self) -> Size:
        """What all layers read and the backward pass needs: indices, rotary tables."""
        tables = 0 if self.model.num_positions else 2 * self.model.head_dim * flow_width(self.plan)
        return per_token(NUM_INDICES * INDEX + tables)

    def _mask(self) -> Size:
        """Of all layers, alive in the forward pass: booleans for SDPA, numbers if eager."""
        masked = [layers for layers in self.network.layers if layers.masked]
        shapes = len({layers.kind.is_sliding for layers in masked})
        eager = attention_of(self.model, self.plan) == "eager"
        width = flow_width(self.plan) if eager else 1
        return per_pair(shapes * width * keys_per_query(self.plan))

    def kept(self, profile: Profile) -> Size:
        """What one layer keeps when its activations are not recomputed."""
        return profile.saved.plus(self.entry) if profile.saves_input else profile.saved

    def _saved(self, layers: Layers) -> Size:
        """What all layers of one make keep: their input, or all."""
        count = layers.kind.count
        if not layers.kind.has_graph:
            return NOTHING
        if not self.recomputes:
            return self.kept(layers.profile).times(count)
        recomputed = count
        if self.plan.checkpointed_layers is not None:
            recomputed = count * self.plan.checkpointed_layers // self.model.num_layers
        whole = self.kept(layers.profile).times(count - recomputed)
        return self.checkpoint.plus(layers.pinned).times(recomputed).plus(whole)

    def _static(self) -> dict[str, Size]:
        model, plan, shares = self.model, self.plan, self.shares
        self.states = once(resident_states(model, plan))
        return {
            "weights": once(weights_here(model, plan) + reference_bytes(model, plan)),
            "adapters": once(adapter_bytes(model, plan) / shares.adapters * shares.weights_here),
            "optimizer": NOTHING if plan.framework.first_step else self.states,
        }

    def own_gradients(self, stage: Stage) -> Size:
        """Gradients that the piece at work has made; accumulated ones are only passing by.

        Those of a flat parameter's parts wait for each other.
        """
        passing = self.accumulates and not self.plan.framework.flat_parameters
        passing = passing or self.plan.updates_in_backward
        return stage.op_grads if passing else stage.weight_grads

    def work(self, stage: Stage) -> Size:
        """All that is neither saved nor a gradient of weights."""
        return stage.total.minus(stage.saved).minus(stage.weight_grads)

    def candidate(
        self, name: str, place: str, *, has_tile: bool = False, **shares: Size
    ) -> Candidate:
        """With what every instant has: weights, adapters, optimizer states."""
        total, static = NOTHING, self.static
        if name == "optimizer_step":
            static = static | {"optimizer": self.states}
        for size in (*static.values(), *shares.values()):
            total = total.plus(size)
        return Candidate(name, place, static | shares, total, has_tile)
