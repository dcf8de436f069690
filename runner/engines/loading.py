"""Weights back from a checkpoint: every trained one, in the type it is trained in, or an error.

The libraries' own loaders log what is missing and leave it as it was at the start of training.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from advisor.recipe_adapters import MERGE
from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of
from profiles.runs import advice
from profiles.runs.rundir import RunDir

_ADAPTER = "adapter_model.safetensors"
_TRAINED = "trained.safetensors"
_PROMPT = "prompt_embeddings"
"""Of a soft prompt's file; PEFT takes it, and calls it unexpected."""
_NUM_SHOWN = 3
_OTHER_SHAPE = re.compile(r"size mismatch for (\S+?):")


def is_saved_whole(model: torch.nn.Module) -> bool:
    """Weights that do not train are written too: no adapter is there to be written alone."""
    has_own_way = "save_pretrained" in vars(model)  # of a method
    return isinstance(model, PreTrainedModel) and not has_own_way


@contextlib.contextmanager
def own_names(model: torch.nn.Module) -> Iterator[None]:
    """Inside, a whole model is saved under its own names and in its own shapes.

    Published models keep the public format, which has each expert of a mixture on its own.
    """
    if not is_saved_whole(model):
        yield
        return
    model.save_pretrained = functools.partial(model.save_pretrained, save_original_format=False)
    try:
        yield
    finally:
        del model.save_pretrained


@contextlib.contextmanager
def complete(
    model: torch.nn.Module,
    checkpoint: Path,
    local: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight,
) -> Iterator[None]:
    """Inside, every trained weight must be given a value; UserError at the end if one was not.

    `local`: the part of a weight that this process holds.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        local(parameter.detach()).fill_(torch.nan)
    yield
    missing = [n for n, p in trained.items() if not local(p.detach()).isfinite().all()]
    refuse_incomplete(missing, (), checkpoint)


def load(model: torch.nn.Module, checkpoint: Path) -> None:
    """The trained weights of a checkpoint that holds them whole; UserError if it is not all."""
    with complete(model, checkpoint):
        if isinstance(model, PeftModel):
            _load_adapter(model, checkpoint)
        else:
            _load_whole(model, checkpoint)


def begin_with(model: torch.nn.Module, folder: Path, weights: str) -> None:
    """Take the weights of a published adapter before the first step; UserError if it is another.

    `weights`: the name of their file.
    """
    try:
        if isinstance(model, PeftModel):
            load(model, folder)
        else:
            load_trained(model, folder, weights)
    except UserError as error:
        raise UserError(
            "the adapter is another one than [method] makes",
            why=error.why,
            do=f"set [method] as the adapter was made; or {MERGE}",
            where=str(folder),
            code=ExitCode.BAD_RECIPE,
        ) from error


def _load_adapter(model: PeftModel, checkpoint: Path) -> None:
    """Copied into the tensors that are there: PEFT's own loading makes 16-bit adapters fp32."""
    found = load_file(checkpoint / _ADAPTER)
    try:
        result = set_peft_model_state_dict(model, found, adapter_name=model.active_adapter)
    except RuntimeError as error:
        shapes = _OTHER_SHAPE.findall(str(error))  # all of them: hundreds of lines
        if not shapes:
            raise
        raise _other_shapes(shapes, checkpoint) from None
    refuse_incomplete((), set(result.unexpected_keys) - {_PROMPT}, checkpoint)


def _load_whole(model: torch.nn.Module, checkpoint: Path) -> None:
    """One tensor at a time, so that there never are two models in memory."""
    tensors, unexpected, other = model.state_dict(), [], []
    for path in sorted(checkpoint.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                if name not in tensors:
                    unexpected.append(name)
                elif (found := file.get_tensor(name)).shape != tensors[name].shape:
                    other.append(name)  # torch would repeat the smaller one where it can
                else:
                    tensors[name].copy_(found)
    if other:
        raise _other_shapes(other, checkpoint)
    refuse_incomplete((), unexpected, checkpoint)


def keep_trained(model: torch.nn.Module, checkpoint: Path) -> None:
    """Write the trained weights by their own names, where what is published is made of them."""
    trained = {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}
    save_file(trained, checkpoint / _TRAINED)


def load_trained(model: torch.nn.Module, checkpoint: Path, name: str = _TRAINED) -> None:
    """Take back what `keep_trained` wrote; UserError if it is not all."""
    found, trained = load_file(checkpoint / name), dict(model.named_parameters())
    refuse_incomplete((), found.keys() - trained.keys(), checkpoint)
    with complete(model, checkpoint):
        for key, tensor in found.items():
            trained[key].detach().copy_(tensor)


def refuse_incomplete(missing: Iterable[str], unexpected: Iterable[str], checkpoint: Path) -> None:
    """UserError if there are any: the weights would be those of no step."""
    faults = []
    for names, what in ((list(missing), "lacks"), (list(unexpected), "has, unknown to the model,")):
        if names:
            faults.append(f"it {what} {some_of(names, _NUM_SHOWN)}")
    if faults:
        raise UserError(
            "the checkpoint does not hold the weights that are trained",
            why="; ".join(faults),
            do="go on with the packages that wrote it (recipe.lock.json names them); "
            f"{advice.anew(RunDir(checkpoint.parents[1]))}",
            where=str(checkpoint),
            code=ExitCode.NO_CHECKPOINT,
        )


def _other_shapes(names: Sequence[str], checkpoint: Path) -> UserError:
    return UserError(
        "the checkpoint is of a model of another shape",
        why=f"the shapes differ of {some_of(names, _NUM_SHOWN)}",
        do="put the base model and the recipe's [method] back; "
        f"{advice.anew(RunDir(checkpoint.parents[1]))}",
        where=str(checkpoint),
        code=ExitCode.NO_CHECKPOINT,
    )
