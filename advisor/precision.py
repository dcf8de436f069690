"""Bytes an element of each kind of tensor, after a plan's precision and a framework's casts.

Mirrors Trainer's autocast, PEFT's adapter types, TRL's for a quantized base, and PEFT's preparation
for k-bit training. It counts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model


def autocasts(plan: Plan) -> bool:
    """Linears cast their inputs and weights to 16 bits."""
    return plan.framework.autocast and plan.precision in {"bf16", "fp16"}


def base_width(plan: Plan) -> int:
    """Of the linears of the base, where they are not quantized."""
    if plan.precision == "fp32" or (plan.method.trains_base and trained_width(plan) == 4):
        return 4
    return 4 if plan.framework.fp32_base and plan.base_bits == 16 else 2


def frozen_width(plan: Plan) -> int:
    """The same of those that do not train beside others that do."""
    return flow_width(plan) if plan.method.trains_base else base_width(plan)


def leftover_width(plan: Plan) -> int:
    """Of embeddings, head and biases."""
    return 4 if plan.framework.fp32_leftovers and plan.base_bits < 16 else base_width(plan)


def outer_width(plan: Plan) -> int:
    """Of embeddings and head as the network sees them: FSDP gathers in the computation's type."""
    return flow_width(plan) if plan.shards_weights else leftover_width(plan)


def norm_width(plan: Plan) -> int:
    """The same of norms, and of the residual stream that quantized linears return to."""
    return 4 if plan.framework.fp32_norms and plan.base_bits < 16 else outer_width(plan)


def trained_width(plan: Plan) -> int:
    """Of weights that train."""
    narrow = plan.base_bits < 16 and plan.framework.quantized_adapters_16bit
    if plan.precision == "fp32" and not narrow:
        return 4
    if plan.precision == "bf16_pure" or not plan.framework.trained_fp32:
        return 2
    return 2 if narrow else 4


def whole_width(plan: Plan) -> int:
    """The same of what trains whole beside adapters, on a quantized base too."""
    return 2 if plan.precision == "bf16_pure" else 4


def flow_width(plan: Plan) -> int:
    """Of what 16-bit linears return: the autocast type, or the base's own."""
    return 2 if autocasts(plan) else base_width(plan)


def stream_width(model: Model, plan: Plan) -> int:
    """Of the residual stream between layers.

    Quantized linears return the type that they were given: fp32, after a LayerNorm under autocast.
    """
    if plan.method.trains_base and not plan.method.trains_embedding:
        return frozen_width(plan)
    layer_norm = model.norm != "rms" and not model.model_type.startswith("cohere")
    if layer_norm and plan.base_bits < 16 and autocasts(plan):
        return 4
    return norm_width(plan)
