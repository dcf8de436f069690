"""What does not go together, as rules over traits: a new entry needs no table of pairs.

Each rule gives the reason, or nothing. Checked on plans before they are weighed, and on recipes
before anything starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.registry.optimizer_spec import OptimizerSpec
from advisor.registry.spec import nothing_added
from advisor.registry.tasks import SFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from advisor.registry.spec import EngineSpec, MethodSpec, Settings
    from advisor.registry.task_spec import TaskSpec


class Together(NamedTuple):
    """What is chosen, each of its kind."""

    method: MethodSpec
    settings: Settings
    optimizer: OptimizerSpec
    engine: EngineSpec
    task: TaskSpec


def conflict(
    method: MethodSpec,
    settings: Settings,
    optimizer: OptimizerSpec,
    engine: EngineSpec,
    task: TaskSpec = SFT,
) -> str:
    """Why these cannot be used together; empty if they can."""
    chosen = Together(method, settings, optimizer, engine, task)
    return next(filter(None, (rule(chosen) for rule in _RULES)), "")


def no_head(method: MethodSpec, task: TaskSpec) -> str:
    """Why a task's new head would stay as it is drawn; empty if it is trained, or there is none."""
    if method.lm_only and task.head != "lm":
        return f'{method.title} trains no new head, which {task.title} needs; "lora" does'
    return ""


def packed(method: MethodSpec, settings: Settings) -> str:
    """Why rows cannot be packed with this method; empty if they can.

    PEFT drops the positions that tell the documents of a row apart, and has one prompt for all.
    """
    if settings.num_virtual_tokens or settings.num_prefix_keys:
        return f"{method.title} puts its prompt before a row, not before each of several texts"
    return ""


def recomputed(method: MethodSpec) -> str:
    """Why activations cannot be recomputed with this method; empty if they can.

    Transformers takes the cache away from a layer that is to be run again, lest it grow twice.
    """
    if not method.recomputes:
        return f"{method.title} lies in a cache of keys and values, which a layer run again has not"
    return ""


def _whole_gradients(chosen: Together) -> str:
    """Shards of a gradient are no matrices that could be projected (transformers' GaLore page)."""
    if chosen.optimizer.projected_rank and chosen.engine.divides:
        return (
            f"{chosen.optimizer.title} projects whole gradients, {chosen.engine.title} divides them"
        )
    if chosen.optimizer.matrix_states is not None and chosen.engine.divides:
        return (
            f"{chosen.optimizer.title} updates whole matrices, {chosen.engine.title} divides them"
        )
    return ""


def _apart_in_backward(chosen: Together) -> str:
    """Each process would go its own way; and it spares nothing where few weights train."""
    if chosen.optimizer.steps_in_backward and not chosen.method.trains_base:
        few = f"{chosen.method.title} trains few weights; take AdamW"
        return f"{chosen.optimizer.title} spares the gradients of a whole model, {few}"
    if chosen.optimizer.steps_in_backward and chosen.engine.several:
        return f"{chosen.optimizer.title} steps before processes could add up their gradients"
    return ""


def _whole_states(chosen: Together) -> str:
    """Bitsandbytes' optimizers, whose kernels take plain tensors (bitsandbytes issue 1633)."""
    if "bitsandbytes" in chosen.optimizer.needs and chosen.engine.float_shards:
        return f"{chosen.engine.title} cannot divide the states of {chosen.optimizer.title}"
    return ""


def _projected_adapters(chosen: Together) -> str:
    """Low-rank weights have no gradient that is worth projecting."""
    if chosen.optimizer.projected_rank and not chosen.method.trains_base:
        has_none = f"{chosen.method.title} has none"
        return f"{chosen.optimizer.title} projects the gradients of whole matrices, {has_none}"
    return ""


def _int8_weights(chosen: Together) -> str:
    """Only float types are sharded (bitsandbytes' FSDP-QLoRA page)."""
    if chosen.settings.base_bits == 8 and "weights" in chosen.engine.divides:
        return f"{chosen.engine.title} cannot divide 8-bit weights"
    return ""


def _prompts_on_few_bits(chosen: Together) -> str:
    """A prompt's fp32 vectors and 4-bit storage are of two types in one unit."""
    if (
        (chosen.settings.num_virtual_tokens or chosen.settings.num_prefix_keys)
        and chosen.settings.base_bits < 16
        and "weights" in chosen.engine.divides
    ):
        return f"{chosen.engine.title} cannot divide a quantized base with a soft prompt"
    return ""


def _start_in_few_bits(chosen: Together) -> str:
    """What is left of a weight has no room in the bits that it was quantized to."""
    if chosen.settings.changes_base and chosen.settings.base_bits < 16:
        return (
            "adapters cannot start from quantized weights, which would be quantized again; take "
            'method.name = "lora", or method.init = "gaussian"'
        )
    return ""


def _whole_weights(chosen: Together) -> str:
    """Norms of whole weights; on 8 bits PEFT 0.21 fails (Int8Params lose their scales)."""
    if not chosen.settings.reads_base:
        return ""
    if chosen.settings.base_bits == 8:
        return "DoRA takes norms of weights, which PEFT cannot of 8-bit ones; take method.bits = 4"
    if "weights" in chosen.engine.divides:
        return (
            f"DoRA takes norms of whole weights, {chosen.engine.title} divides them; take "
            'hardware.strategy = "ddp"'
        )
    return ""


def _reference_without_its_part(chosen: Together) -> str:
    """An adapter that is switched off leaves the base without what was taken out of it."""
    if chosen.settings.changes_base and chosen.task.reference:
        return (
            f"{chosen.task.title} compares with the model without its adapter, which is not the "
            'base model where the adapter began as a part of it; take method.init = "gaussian"'
        )
    return ""


def _reference_with_its_part(chosen: Together) -> str:
    """What cannot be switched off is not the model before training."""
    if chosen.task.reference and not chosen.method.has_switch:
        return (
            f"{chosen.task.title} compares with the model without what {chosen.method.title} add; "
            'take method.name = "lora"'
        )
    return ""


def _whole_checkpoints(chosen: Together) -> str:
    """Shards are gathered for what is published alone."""
    if chosen.method.own_checkpoint and "weights" in chosen.engine.divides:
        return (
            f"{chosen.engine.title} cannot gather what {chosen.method.title} goes on from; take "
            'hardware.strategy = "ddp"'
        )
    return ""


def _made_from_rows(chosen: Together) -> str:
    """Texts are read by one process, before the trainer divides anything."""
    method, task, engine = chosen.method, chosen.task, chosen.engine
    if method.reads_rows and not task.packs:
        return f'{method.title} starts from texts, not from rows of {task.title}; "lora" does not'
    if method.reads_rows and engine.several:
        return f'{method.title} looks at the rows on one device; take hardware.strategy = "single"'
    return ""


def _pruned_between_steps(chosen: Together) -> str:
    """It ranks weights by their gradients, and what it sets to zero is to stay so."""
    method, optimizer, engine = chosen.method, chosen.optimizer, chosen.engine
    if method.prunes and "gradients" in engine.divides:
        return f"{method.title} looks at whole gradients, {engine.title} divides them"
    if method.prunes and optimizer.own_schedule:
        return (
            f"{optimizer.title} averages weights over the steps, and what {method.title} sets to "
            "zero would come back; take AdamW"
        )
    return ""


def _frozen_copy(chosen: Together) -> str:
    """Where the base trains itself, its reference is a second model, whole on each device."""
    task, engine = chosen.task, chosen.engine
    if task.reference and chosen.method.added is nothing_added and "weights" in engine.divides:
        return (
            f"{engine.title} cannot divide the frozen copy that {task.title} compares with; an "
            "adapter needs none"
        )
    return ""


_RULES: Final[tuple[Callable[[Together], str], ...]] = (
    _whole_gradients,
    _apart_in_backward,
    _whole_states,
    _projected_adapters,
    _int8_weights,
    _prompts_on_few_bits,
    _start_in_few_bits,
    _whole_weights,
    _reference_without_its_part,
    _reference_with_its_part,
    _whole_checkpoints,
    _pruned_between_steps,
    _made_from_rows,
    _frozen_copy,
)
