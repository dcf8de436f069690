"""What does not go together, as rules over traits: a new entry needs no table of pairs.

Each rule gives the reason, or nothing. Checked on plans before they are weighed, and on recipes
before anything starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from advisor.registry.spec import EngineSpec, MethodSpec, OptimizerSpec, Settings

    Rule = Callable[[MethodSpec, Settings, OptimizerSpec, EngineSpec], str]


def conflict(
    method: MethodSpec, settings: Settings, optimizer: OptimizerSpec, engine: EngineSpec
) -> str:
    """Why these cannot be used together; empty if they can."""
    return next(filter(None, (rule(method, settings, optimizer, engine) for rule in _RULES)), "")


def _whole_gradients(
    _method: MethodSpec, _settings: Settings, optimizer: OptimizerSpec, engine: EngineSpec
) -> str:
    """Shards of a gradient are no matrices that could be projected (transformers' GaLore page)."""
    if optimizer.projected_rank and engine.divides:
        return f"{optimizer.title} projects whole gradients, {engine.title} divides them"
    return ""


def _whole_states(
    _method: MethodSpec, _settings: Settings, optimizer: OptimizerSpec, engine: EngineSpec
) -> str:
    """Bitsandbytes' optimizers under FSDP2 (bitsandbytes issue 1633)."""
    if optimizer.bits == 8 and engine.float_shards:
        return f"{engine.title} cannot divide the states of {optimizer.title}"
    return ""


def _projected_adapters(
    method: MethodSpec, _settings: Settings, optimizer: OptimizerSpec, _engine: EngineSpec
) -> str:
    """Low-rank weights have no gradient that is worth projecting."""
    if optimizer.projected_rank and not method.trains_base:
        return (
            f"{optimizer.title} projects the gradients of whole matrices, {method.title} has none"
        )
    return ""


def _int8_weights(
    _method: MethodSpec, settings: Settings, _optimizer: OptimizerSpec, engine: EngineSpec
) -> str:
    """Only float types are sharded (bitsandbytes' FSDP-QLoRA page)."""
    if settings.base_bits == 8 and "weights" in engine.divides:
        return f"{engine.title} cannot divide 8-bit weights"
    return ""


def _prompts_on_few_bits(
    _method: MethodSpec, settings: Settings, _optimizer: OptimizerSpec, engine: EngineSpec
) -> str:
    """A prompt's fp32 vectors and 4-bit storage are of two types in one unit."""
    if settings.num_virtual_tokens and settings.base_bits < 16 and "weights" in engine.divides:
        return f"{engine.title} cannot divide a quantized base with a soft prompt"
    return ""


_RULES: Final[tuple[Rule, ...]] = (
    _whole_gradients,
    _whole_states,
    _projected_adapters,
    _int8_weights,
    _prompts_on_few_bits,
)
