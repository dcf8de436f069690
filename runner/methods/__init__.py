"""How each method loads and changes a model: one module a family, found by its description.

A module has `load_options(plan)`, what from_pretrained is told beside the path, and `adapt(model,
plan)`, the model with what the method trains and all else frozen. It may have

    divide_rates(optimizer, model, plan)   gives some weights a learning rate of their own
    state(model)                           tensors of a checkpoint beside what trains and is saved
    restore(model, tensors)                takes them back; why it cannot, or nothing
    before_saving(model)                   tells the libraries what the weights have become
    publish(model, folder)                 makes what was saved load on the untouched base
    begin_as(model, folders)               gives what is added the weights of adapters, one a part
    least_tokens(plan)                     that a batch for `from_rows` must have to learn from
    from_rows(model, plan, batches)        makes what is added from rows, before it is counted;
                                           a record of what came of it
    begin(model, plan, num_steps)          the first step of an attempt comes next
    after_step(model, step, *, was_skipped)
                                           the optimizer made a step, gradients are still there;
                                           what there is to be told of it, a record, if anything
    penalty(model, plan)                   of the weights alone, minimised beside a task's loss
    updates(model)                         what each adapter adds, as products of small matrices
    ranks(model, step)                     a record of how wide each adapter has become

Importing this package imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import set_seed

from advisor.plan import Plan
from advisor.positions import Rope
from advisor.registry.spec import MethodSpec
from profiles.errors import ExitCode, UserError
from profiles.runs import advice
from profiles.runs.records.ranks import Ranks
from profiles.runs.rundir import RunDir
from runner.methods import new_tokens, positions, shifted
from runner.methods.base import load_base
from runner.methods.products import Product

_STATE = "method_state.safetensors"
_Hook = Callable[..., Any]


def family_of(spec: MethodSpec) -> Any:
    """The module that loads and adapts for this method."""
    return import_module(f"{__name__}.{spec.builder}")


def prepare(
    plan: Plan,
    model_dir: Path,
    seed: int,
    *,
    tokens: Mapping[int, Sequence[int]] = MappingProxyType({}),
    rope: Rope | None = None,
    **head: Any,
) -> Any:
    """The model of a folder, ready to be trained; what is added to it is drawn from the seed.

    `tokens`: ids of new tokens, with those of what their texts were read as. `rope`: what becomes
    of its positions. `head`: from_pretrained's options of a score head, such as how many numbers it
    gives.
    """
    family = family_of(plan.method)
    set_seed(seed)
    how = positions.scaled(model_dir, rope, **head) if rope else head
    model = load_base(model_dir, plan.task.head, **family.load_options(plan), **how)
    model.has_scaled_positions = rope is not None
    if plan.shifted_attention:
        shifted.use(model)
    new_tokens.make_rows(model, tokens)
    set_seed(seed)
    return family.adapt(model, plan)


def weigh_router(model: Any, weight: float | None) -> None:
    """What the loss of a mixture's router counts in place of the model's own weight; None: that."""
    if weight is not None:
        model.config.get_text_config().router_aux_loss_coef = weight


def _hook(plan: Plan, name: str) -> _Hook | None:
    found: _Hook | None = getattr(family_of(plan.method), name, None)
    return found


def divide_rates(optimizer: Any, model: Any, plan: Plan) -> None:
    """Give weights of the method the learning rates that they have of their own, if any."""
    if divide := _hook(plan, "divide_rates"):
        divide(optimizer, model, plan)


def keep(model: Any, plan: Plan, checkpoint: Path) -> None:
    """Write what the method needs of a checkpoint beside the weights, if anything."""
    state = _hook(plan, "state")
    if state and (tensors := state(model)):
        save_file(tensors, checkpoint / _STATE)


def restore(model: Any, plan: Plan, checkpoint: Path) -> None:
    """Take back what `keep` wrote; UserError if training cannot go on with it here."""
    take = _hook(plan, "restore")
    if take is None:
        return
    file = checkpoint / _STATE
    if why := take(model, load_file(file) if file.exists() else {}):
        raise UserError(
            "the checkpoint cannot be gone on with here",
            why=str(why),
            do="go on with the machine and the packages that wrote it (recipe.lock.json names "
            f"them); {advice.anew(RunDir(checkpoint.parents[1]))}",
            where=str(checkpoint),
            code=ExitCode.NO_CHECKPOINT,
        )


def begin_as(model: Any, plan: Plan, folders: Sequence[Path]) -> None:
    """Give the parts of what is added the weights of adapters, which were checked; none: do not."""
    if folders:
        family_of(plan.method).begin_as(model, folders)


def reads_rows(plan: Plan) -> int:
    """How many tokens to learn from a batch of `from_rows` must have; 0 if rows are not read."""
    least = _hook(plan, "least_tokens")
    return least(plan) if least else 0


def from_rows(model: Any, plan: Plan, batches: Sequence[dict[str, Any]]) -> Ranks:
    """Make what the method adds from the rows to train on; UserError if they do not do."""
    made: Ranks = family_of(plan.method).from_rows(model, plan, batches)
    return made


def begin(model: Any, plan: Plan, num_steps: int) -> None:
    """Before the first step of an attempt; UserError if so few steps cannot be made so."""
    if ready := _hook(plan, "begin"):
        ready(model, plan, num_steps)


def after_step(model: Any, plan: Plan, step: int, *, was_skipped: bool) -> Ranks | None:
    """After so many optimizer steps, before their gradients are gone; what is to be told of it."""
    change = _hook(plan, "after_step")
    return change(model, step, was_skipped=was_skipped) if change else None


def penalty(model: Any, plan: Plan) -> Any:
    """What is minimised beside a task's loss, for the weights alone; None if nothing is."""
    weigh = _hook(plan, "penalty")
    return weigh(model, plan) if weigh else None


def ranks(model: Any, plan: Plan, step: int) -> Ranks | None:
    """How wide each adapter has become; None where all are as the recipe says."""
    look = _hook(plan, "ranks")
    return look(model, step) if look else None


def updates(model: Any, plan: Plan) -> list[Product]:
    """What each adapter adds to its weight; nothing where that is no product of small matrices.

    Every process takes part where weights are divided.
    """
    look = _hook(plan, "updates")
    return list(look(model)) if look else []


def before_saving(model: Any, plan: Plan) -> None:
    """Tell the libraries what the weights have become, on every process."""
    if tell := _hook(plan, "before_saving"):
        tell(model)


def publish(model: Any, plan: Plan, folder: Path) -> None:
    """Make what was saved load on the untouched base with the libraries alone."""
    if change := _hook(plan, "publish"):
        change(model, folder)
    positions.publish(model, folder)
