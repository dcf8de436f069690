"""What a plan's precision makes of each kind of tensor: bytes an element, and what is cast.

Mirrors Trainer's autocast, PEFT's adapter types and TRL's for a quantized base. It counts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advisor.plan import Plan


def element_bytes(plan: Plan) -> int:
    """Of the tensors that flow between linears: the autocast type, or fp32."""
    return 4 if plan.precision == "fp32" else 2


def stream_bytes(plan: Plan) -> int:
    """Of the residual stream: fp32 weights make it fp32 under autocast too."""
    return 4 if autocasts_weights(plan) or plan.precision == "fp32" else 2


def base_element_bytes(plan: Plan) -> int:
    """Per parameter that is never quantized."""
    return 4 if autocasts_weights(plan) or plan.precision == "fp32" else 2


def adapter_element_bytes(plan: Plan) -> int:
    """Per adapter weight: fp32, or 16 bits for a quantized or a purely 16-bit base."""
    return 4 if autocasts_adapters(plan) or plan.precision == "fp32" else 2


def autocasts_weights(plan: Plan) -> bool:
    """Trained weights are kept in fp32 and cast at use."""
    return plan.method == "full" and plan.precision in {"bf16", "fp16"}


def autocasts_adapters(plan: Plan) -> bool:
    """PEFT keeps adapters of a 16-bit base in fp32; TRL makes those of a quantized base bf16."""
    return plan.method == "lora" and plan.precision in {"bf16", "fp16"}
