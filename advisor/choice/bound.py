"""A lower bound of a plan's device memory, for searches that spare themselves the estimate."""

from __future__ import annotations

from advisor.cost.sharding import shares_of
from advisor.plan import Plan
from advisor.registry.optimizer_spec import OptimizerSpec
from profiles.facts import Model


def least_bytes(model: Model, plan: Plan) -> float:
    """Of parameters alone, as they lie on one device: never more than the estimate says."""
    shares = shares_of(plan)
    if plan.method.trains_embedding:
        width = 2 if plan.precision == "bf16_pure" else 4
        each = width / shares.weights * shares.weights_here + width / shares.gradients
        each += _state_bytes(plan.optimizer, width) / shares.states * shares.states_here
    else:
        each = plan.base_bits / 8 / shares.weights * shares.weights_here
    return each * (model.num_params - model.vision_params)


def _state_bytes(optimizer: OptimizerSpec, width: int) -> int:
    """Of one weight, at least; 0 where states are projected or come for the step alone."""
    if optimizer.projected_rank or optimizer.paged:
        return 0
    states = optimizer.states if optimizer.matrix_states is None else optimizer.matrix_states
    return states * (1 if optimizer.bits == 8 else width)
