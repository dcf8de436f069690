"""All tapes of a model under a plan, played once and remembered.

A batch changes none of them, so the search over batches and a what-if read the same profiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

from advisor.graph.head import loss_tape, norm_tape
from advisor.graph.layer import (
    Kind,
    any_devices,
    is_masked,
    kinds,
    layer_tape,
)
from advisor.graph.play import Profile, play
from advisor.precision import stream_width
from advisor.tape import NOTHING, Matrix, Size, Tape, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model


@dataclass(frozen=True, slots=True)
class Layers:
    """Equal layers of a model."""

    kind: Kind
    profile: Profile
    matrices: tuple[Matrix, ...]
    """Of one layer."""
    masked: bool
    pinned: Size = NOTHING
    """What is kept of each though its activations are recomputed."""


@dataclass(frozen=True, slots=True)
class Network:
    """Profiles of everything between the embedding and the loss."""

    entry: Size
    """Bytes of the residual stream."""
    layers: tuple[Layers, ...]
    first: Profile
    """Of the first layer with a graph, where its input needs no gradient."""
    norm: Profile
    loss: Profile

    @property
    def graphs(self) -> tuple[Layers, ...]:
        """Of the layers, those that gradients pass through."""
        return tuple([layers for layers in self.layers if layers.kind.has_graph])

    @property
    def lowest(self) -> Layers:
        """Of them, the first that the method treats, where it treats any."""
        return next((one for one in self.graphs if one.kind.is_adapted), self.graphs[0])

    @property
    def masked(self) -> bool:
        """Some layer's attention reads an explicit mask."""
        return any(layers.masked for layers in self.layers)


@lru_cache(maxsize=256)  # one estimate asks many times for one plan
def network(model: Model, plan: Plan) -> Network:
    """The profiles of `plan`, whatever its batch, its devices and its optimizer."""
    plan = any_devices(model, plan)
    # With checkpoints the layers before the first that is treated may have a graph as well
    layers = plan.settings.adapted_layers(model.num_layers)
    asks = plan.method.asks_for_input and bool(layers) and layers[0] > 0
    checkpointing = plan.checkpointing and asks
    return _network(model, replace(plan, checkpointing=checkpointing, checkpointed_layers=None))


def _quantized_inputs(tape: Tape) -> Size:
    """What MatMul4Bit keeps of one layer: see `Framework.keeps_quantized_input`."""
    linears = {matrix.name for matrix in tape.matrices if matrix.quantizable}
    kept = {x.storage: x.storage.size for op in tape.ops if op.name in linears for x in op.saved}
    return reduce(Size.plus, kept.values(), NOTHING)


@lru_cache(maxsize=4096)
def _network(model: Model, plan: Plan) -> Network:
    stream = stream_width(model, plan)
    reentrant = plan.framework.reentrant_checkpoints
    found: list[Layers] = []
    lingering: list[Size] = []
    for kind in kinds(model, plan):
        tape = layer_tape(model, plan, kind, stream=stream, first=not kind.has_graph)
        masked = is_masked(model, plan, kind)
        lingering.append(_quantized_inputs(tape))
        # LLM.int8 keeps its inputs where checkpoints do not find them (bitsandbytes 0.50)
        pinned = lingering[-1] if plan.base_bits == 8 else NOTHING
        played = play(tape, reentrant=reentrant)
        found.append(Layers(kind, played, tuple(tape.matrices), masked, pinned))
    lowest = next((one.kind for one in found if one.kind.has_graph), found[0].kind)
    first = layer_tape(model, plan, lowest, stream=stream, first=True)
    norm = norm_tape(model, plan, stream=stream)
    carried = NOTHING
    if plan.framework.carried_logits:
        carried = per_token(norm.output.width * model.hidden_size)
        for layers, kept in zip(found, lingering, strict=True):
            carried = carried.plus(kept.times(layers.kind.count))
    loss = loss_tape(model, plan, width=norm.output.width, carried=carried)
    profiles = (play(first, reentrant=reentrant), play(norm), play(loss))
    return Network(norm.entry.size, tuple(found), *profiles)
