"""What does not go together, as rules over traits: a new entry needs no table of pairs.

Each rule gives the reason and what goes instead, or nothing, and belongs to the recipe key that
this would change. Checked on plans before they are weighed, and on recipes before anything starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.registry.beside import HEAD
from advisor.registry.engines import DDP
from advisor.registry.optimizer_spec import OptimizerSpec
from advisor.registry.optimizers import ADAMW
from advisor.registry.spec import nothing_added
from advisor.registry.tasks import PRETRAIN, SFT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from advisor.registry.engine_spec import EngineSpec
    from advisor.registry.spec import MethodSpec, Settings
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
    return next((why for _, why in conflicts(chosen)), "")


def conflicts(chosen: Together) -> Iterator[tuple[str, str]]:
    """(recipe key, why) of all that cannot be used together."""
    for key, rules in _RULES.items():
        for rule in rules:
            if why := rule(chosen):
                yield key, why


def no_head(method: MethodSpec, task: TaskSpec) -> str:
    """Why a task's new head would stay as it is drawn; empty if it is trained, or there is none."""
    if method.lm_only and task.head != "lm":
        return (
            f"{method.title} trains no new head, which {task.title} needs; take "
            'method.name = "lora", which does'
        )
    return ""


def unlearnt_tokens(method: MethodSpec, engine: EngineSpec) -> str:
    """Why new tokens would stay as they begin; empty if they are learnt."""
    if method.trains_embedding:
        return ""
    if not method.learns_tokens:
        return (
            f"{method.title} trains no row of the embedding, so that new tokens would stay as they "
            'begin; take method.name = "lora", or "full", or leave it out'
        )
    if "weights" in engine.divides:
        return (
            f"{engine.title} divides the embedding, and PEFT takes single rows of it; {_DDP}, or "
            'method.name = "full", or leave it out'
        )
    return ""


def packed(method: MethodSpec, settings: Settings) -> str:
    """Why rows cannot be packed with this method; empty if they can.

    PEFT drops the positions that tell the documents of a row apart, and has one prompt for all.
    """
    if settings.num_virtual_tokens or settings.num_prefix_keys:
        return f"{method.title} puts its prompt before a row, not before each of several texts"
    return ""


def unshifted(method: MethodSpec, settings: Settings, task: TaskSpec) -> str:
    """Why rows cannot be divided into groups that attend alone; empty if they can."""
    if not task.joins:
        return (
            f"rows of {task.name} have any length, and groups are of rows of one length, which "
            f"{PRETRAIN.name} makes"
        )
    if settings.num_virtual_tokens or settings.num_prefix_keys:
        return f"the prompt of {method.title} would stand before the first group alone"
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
        why = f"projects whole gradients, {chosen.engine.title} divides them"
        return f"{chosen.optimizer.title} {why}; {_ADAMW}"
    if chosen.optimizer.matrix_states is not None and chosen.engine.divides:
        why = f"updates whole matrices, {chosen.engine.title} divides them"
        return f"{chosen.optimizer.title} {why}; {_ADAMW}"
    return ""


def _apart_in_backward(chosen: Together) -> str:
    """Each process would go its own way; and it spares nothing where few weights train."""
    if chosen.optimizer.steps_in_backward and not chosen.method.trains_base:
        few = f"{chosen.method.title} trains few weights; {_ADAMW}"
        return f"{chosen.optimizer.title} spares the gradients of a whole model, {few}"
    if chosen.optimizer.steps_in_backward and chosen.engine.several:
        why = "steps before processes could add up their gradients"
        return f"{chosen.optimizer.title} {why}; {_ADAMW}"
    return ""


def _whole_states(chosen: Together) -> str:
    """Bitsandbytes' optimizers, whose kernels take plain tensors (bitsandbytes issue 1633)."""
    if "bitsandbytes" in chosen.optimizer.needs and chosen.engine.float_shards:
        states = f"the states of {chosen.optimizer.title}"
        return f"{chosen.engine.title} cannot divide {states}; {_ADAMW}"
    return ""


def _projected_adapters(chosen: Together) -> str:
    """Low-rank weights have no gradient that is worth projecting."""
    if chosen.optimizer.projected_rank and not chosen.method.trains_base:
        has_none = f"{chosen.method.title} has none; {_ADAMW}"
        return f"{chosen.optimizer.title} projects the gradients of whole matrices, {has_none}"
    return ""


def _int8_weights(chosen: Together) -> str:
    """Only float types are sharded (bitsandbytes' FSDP-QLoRA page)."""
    if chosen.settings.base_bits == 8 and "weights" in chosen.engine.divides:
        return f"{chosen.engine.title} cannot divide 8-bit weights; {_DDP}"
    return ""


def _prompts_on_few_bits(chosen: Together) -> str:
    """A prompt's fp32 vectors and 4-bit storage are of two types in one unit."""
    if (
        (chosen.settings.num_virtual_tokens or chosen.settings.num_prefix_keys)
        and chosen.settings.base_bits < 16
        and "weights" in chosen.engine.divides
    ):
        return f"{chosen.engine.title} cannot divide a quantized base with a soft prompt; {_DDP}"
    return ""


def _start_in_few_bits(chosen: Together) -> str:
    """What is left of a weight has no room in the bits that it was quantized to."""
    if chosen.settings.changes_base and chosen.settings.base_bits < 16:
        return (
            "adapters cannot start from quantized weights, which would be quantized again; take "
            'method.init = "gaussian", or method.name = "lora"'
        )
    return ""


def _norms_of_int8(chosen: Together) -> str:
    """On 8 bits PEFT 0.21 fails (Int8Params lose their scales)."""
    if chosen.settings.reads_base and chosen.settings.base_bits == 8:
        return "DoRA takes norms of weights, which PEFT cannot of 8-bit ones; take method.bits = 4"
    return ""


def _whole_weights(chosen: Together) -> str:
    """Norms are of whole weights."""
    if chosen.settings.reads_base and "weights" in chosen.engine.divides:
        return f"DoRA takes norms of whole weights, {chosen.engine.title} divides them; {_DDP}"
    return ""


def _biases_in_few_bits(chosen: Together) -> str:
    """Bitsandbytes' linears cast their biases in place, to the type of what they read."""
    if chosen.settings.trains_biases and chosen.settings.base_bits < 16:
        return (
            "linears of few bits keep their biases in 16 bits, where small steps are lost; take "
            'method.bias = "none"'
        )
    return ""


def _reference_with_its_biases(chosen: Together) -> str:
    """Biases train as they lie in the model, and stay when adapters are switched off."""
    if chosen.settings.trains_biases and chosen.task.reference:
        return (
            f"{chosen.task.title} compares with the model without its adapter, whose biases are "
            'those that train; take method.bias = "none"'
        )
    return ""


def _no_head_to_save(chosen: Together) -> str:
    """A task with a head of its own loads no other."""
    whole, task = chosen.settings.whole_modules, chosen.task
    if HEAD in whole and task.head != "lm":
        return (
            f"{task.title} has no {HEAD}, and its own head trains whole in any case: take {HEAD} "
            "out of it, or leave it out"
        )
    return ""


def _divided_tables(chosen: Together) -> str:
    """Copies in another type than what they lie beside would be divided with it."""
    settings, engine = chosen.settings, chosen.engine
    if (settings.whole_modules or settings.trains_biases) and "weights" in engine.divides:
        return (
            f"{engine.title} would have to divide what trains whole in fp32 together with weights "
            f"of 16 bits, which this version does not; {_DDP}"
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
            f"{chosen.engine.title} cannot gather what {chosen.method.title} goes on from; {_DDP}"
        )
    return ""


def _made_from_rows(chosen: Together) -> str:
    """What is packed is texts; other rows are made by the trainer."""
    method, task = chosen.method, chosen.task
    if method.reads_rows and not task.packs:
        return (
            f"{method.title} begins with a look at the rows of supervised fine-tuning, and those "
            f'of {task.title} are others; take method.name = "lora"'
        )
    return ""


def _made_on_one_device(chosen: Together) -> str:
    """Texts are read by one process, before the trainer divides anything."""
    if chosen.method.reads_rows and chosen.engine.several:
        return (
            f"{chosen.method.title} looks at the rows on one device; take "
            'hardware.strategy = "single" and hardware.gpus = 1'
        )
    return ""


def _pruned_in_parts(chosen: Together) -> str:
    """Weights are ranked by their gradients."""
    method, engine = chosen.method, chosen.engine
    if method.prunes and "gradients" in engine.divides:
        return f"{method.title} looks at whole gradients, {engine.title} divides them; {_DDP}"
    return ""


def _pruned_and_averaged(chosen: Together) -> str:
    """What is set to zero is to stay so."""
    method, optimizer = chosen.method, chosen.optimizer
    if method.prunes and optimizer.own_schedule:
        return (
            f"{optimizer.title} averages weights over the steps, and what {method.title} sets to "
            f"zero would come back; {_ADAMW}"
        )
    return ""


def _frozen_copy(chosen: Together) -> str:
    """Where the base trains itself, its reference is a second model, whole on each device."""
    task, engine = chosen.task, chosen.engine
    if task.reference and chosen.method.added is nothing_added and "weights" in engine.divides:
        copy = f"the frozen copy that {task.title} compares with"
        return f"{engine.title} cannot divide {copy}; {_DDP}, or an adapter, which needs none"
    return ""


_ADAMW: Final = f'take train.optimizer = "{ADAMW.name}"'
_DDP: Final = f'take hardware.strategy = "{DDP.name}"'
_RULES: Final[dict[str, tuple[Callable[[Together], str], ...]]] = {
    "train.optimizer": (
        _whole_gradients,
        _apart_in_backward,
        _whole_states,
        _projected_adapters,
        _pruned_and_averaged,
    ),
    "method.bits": (_norms_of_int8,),
    "method.bias": (_biases_in_few_bits, _reference_with_its_biases),
    "method.modules_to_save": (_no_head_to_save,),
    "method.init": (_start_in_few_bits, _reference_without_its_part),
    "method.name": (_reference_with_its_part, _made_from_rows),
    "hardware.strategy": (
        _int8_weights,
        _divided_tables,
        _prompts_on_few_bits,
        _whole_weights,
        _whole_checkpoints,
        _pruned_in_parts,
        _made_on_one_device,
        _frozen_copy,
    ),
}
"""By the key that a reason is told at."""
