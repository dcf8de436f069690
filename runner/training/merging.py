"""The recipe's adapter merged into its model: a model folder of the run's own, made once.

Whatever is trained then is trained on that folder, quantized or not, and an adapter that is
published belongs to it. PEFT adds the adapter in fp32 and rounds once, weight by weight, on the CPU
(0.21); a later attempt takes the folder that is there.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import torch
from accelerate import PartialState
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from advisor.registry.handover import PEFT_CONFIG
from profiles.errors import ExitCode, UserError
from profiles.models.model import CONFIG_NAME
from profiles.quantities import some_of
from profiles.runs import durable
from runner import checkpoints
from runner.checks.adapters import WEIGHTS
from runner.methods.base import load_base
from runner.side_files import side_files
from runner.training import finite
from runner.training.attempt import Attempt


def merged(attempt: Attempt, base: Path, adapter: Path) -> Path:
    """The folder of the merged model; UserError for an adapter that PEFT does not take whole.

    The first process makes it, unless it is there and sound, and the others wait.
    """
    run, state = attempt.run, PartialState()
    with state.main_process_first():
        if state.is_main_process and (run.attempt() == 1 or checkpoints.verify(run.base)):
            with attempt.during("merging"):
                checkpoints.discard(run.base)
                staging = run.path / f"{durable.STAGING_PREFIX}{run.base.name}"
                checkpoints.discard(staging)
                merge(base, adapter, staging)
                checkpoints.seal(staging)
                durable.publish_dir(staging, run.base)
    return run.base


def merge(base: Path, adapter: Path, folder: Path) -> None:
    """Write a model folder with the sum, in the base's types, and what it has beside weights."""
    _refuse_unknown(adapter)
    finite.refuse_adapter(adapter)
    with torch.no_grad():
        model = load_base(base, dtype="auto")
        adapted = PeftModel.from_pretrained(model, adapter, local_files_only=True)
        _refuse_other(adapted, adapter)
        adapted.merge_and_unload().save_pretrained(folder)
    for file in (base / CONFIG_NAME, *side_files(base)):
        place = folder / file.relative_to(base)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, place)


def _refuse_unknown(adapter: Path) -> None:
    """PEFT passes over keys that its version does not know, whatever they mean."""
    told = json.loads((adapter / PEFT_CONFIG).read_text())
    known = {field.name for field in fields(PeftConfig.from_pretrained(adapter))}
    unknown = sorted(key for key, value in told.items() if value and key not in known)
    if unknown:
        raise _refusal(
            f"its {PEFT_CONFIG} has {some_of(unknown)}, which this version of PEFT does not know",
            adapter,
        )


def _refuse_other(adapted: PeftModel, adapter: Path) -> None:
    """What PEFT does not find stays as it is drawn; what it has no place for it passes over."""
    file = load_file(adapter / WEIGHTS)
    state = get_peft_model_state_dict(adapted)
    wrong = [
        name
        for name in sorted({*file, *state})
        if name not in file
        or name not in state
        or not torch.equal(_read(file[name], state[name]), state[name])
    ]
    if wrong:
        raise _refusal(f"PEFT does not take these of its weights: {some_of(wrong, 3)}", adapter)


def _read(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """As it is kept."""
    return tensor.to(like.dtype)


def _refusal(why: str, adapter: Path) -> UserError:
    return UserError(
        "the adapter cannot be merged",
        why=why,
        do="merge it with what it was made with, and name the folder of the merged model in "
        "model.id; or train without model.adapter",
        where=os.fspath(adapter),
        code=ExitCode.BAD_RECIPE,
    )
