"""What one device of several keeps, gathers and sends: DDP, ZeRO-1 to 3, FSDP2, and offload."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from advisor.cost.weights import (
    adapter_bytes,
    base_bytes,
    embedding_params,
    gradient_bytes,
    num_embeddings,
    optimizer_bytes,
    scale_bytes,
)
from advisor.precision import autocasts, base_width, flow_width

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model


class Gathered(NamedTuple):
    """Whole copies beside the shards, in bytes."""

    outside: float
    """Embedding and head, which stay gathered; DDP's buckets."""
    layers: float
    """The layer at work, the next one, and the gradients on their way."""
    unit: float = 0.0
    """One layer's weights."""
    head: float = 0.0
    """While the head and the loss go backward: what is outside, and the last layer, which is
    gathered ahead."""


class Shares(NamedTuple):
    """By how many devices each kind is divided, and what share stays on the device at all."""

    weights: int
    gradients: int
    states: int
    weights_here: float
    states_here: float
    adapters: int


def shares_of(plan: Plan) -> Shares:
    """The division that an engine makes."""
    n, divides = plan.num_gpus, plan.engine.divides
    weights = n if "weights" in divides else 1
    gradients = n if "gradients" in divides else 1
    states = n if "states" in divides else 1
    if plan.framework.replicated_adapters and not plan.method.trains_base:
        gradients = states = 1
    return Shares(
        weights,
        gradients,
        states,
        0.0 if plan.offload == "parameters" else 1.0,
        0.0 if plan.offload else 1.0,
        1 if plan.framework.replicated_adapters else weights,
    )


def weights_here(model: Model, plan: Plan) -> float:
    """Base weights on one device. Scales of quantized weights are no parameters: never sharded."""
    shares, scales = shares_of(plan), scale_bytes(model, plan)
    sharded = (base_bytes(model, plan) - scales) / shares.weights
    return (sharded + scales) * shares.weights_here


def gradients_here(model: Model, plan: Plan, *, reduced: bool = False) -> float:
    """Gradients of all that trains on one device: between micro-batches, or `reduced` at last."""
    if plan.updates_in_backward or plan.offload == "parameters":
        return 0.0  # used, or sent to the host, as soon as they are made
    total, shares = float(gradient_bytes(model, plan)), shares_of(plan)
    flat = plan.framework.flat_parameters and plan.shards_weights
    if flat:
        total = flow_width(plan) * model.num_params
    if flat and not plan.method.trains_base:
        total = gathered(model, plan).unit * model.num_layers
    whole = plan.framework.no_sync and plan.accumulation > 1 and plan.shards_weights
    return total if whole and not reduced else total / shares.gradients


def resident_states(model: Model, plan: Plan) -> float:
    """Optimizer states that stay on one device."""
    shares = shares_of(plan)
    return optimizer_bytes(model, plan)[0] / shares.states * shares.states_here


def paged_states(model: Model, plan: Plan) -> float:
    """Optimizer states that are there for the step alone."""
    return optimizer_bytes(model, plan)[1] / shares_of(plan).states


def gathered(model: Model, plan: Plan) -> Gathered:
    """Copies that a step makes of what is sharded (§3.6)."""
    streams = plan.offload == "parameters"
    if plan.num_gpus < 2 and not streams:
        return Gathered(0, 0)
    if shares_of(plan).weights == 1 and not streams:
        buckets = gradient_bytes(model, plan)
        return Gathered(buckets, 0, head=buckets)
    copies = num_embeddings(model, plan)
    outside = embedding_params(model) * copies * flow_width(plan)
    whole = base_bytes(model, plan) - scale_bytes(model, plan)
    whole += 0 if plan.framework.replicated_adapters else adapter_bytes(model, plan)
    narrow = flow_width(plan) / base_width(plan) if autocasts(plan) else 1.0
    rest = max(0.0, whole - embedding_params(model) * copies * base_width(plan))
    layer = narrow * rest / model.num_layers
    if plan.framework.fsdp1:
        # A layer's own gradients are whole meanwhile: its profile has them.
        ahead = 0 if plan.framework.reentrant_checkpoints else layer
        return Gathered(outside, layer + ahead, layer, outside + ahead)
    reduce = gradient_bytes(model, plan) / model.num_layers
    if plan.framework.outer_units:
        return Gathered(0, 2 * layer + reduce, layer, outside / copies + layer)
    return Gathered(outside, 2 * layer + reduce, layer, outside + layer)
