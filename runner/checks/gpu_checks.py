"""Whether the GPUs of this machine can do what a recipe asks: driver, torch, precision, room.

Pure checks over facts; each raises a UserError (exit code 71) that says what to do.
"""

from __future__ import annotations

from advisor.choice.devices import crowded, emptiest
from advisor.choice.fit import Fit
from profiles.errors import ExitCode, UserError
from profiles.facts import Gpu, Machine
from profiles.machines.torch_build import TorchBuild, driver_is_too_old
from profiles.quantities import bytes_text

_ON_CPU = "CUDA_VISIBLE_DEVICES= (empty) trains on the CPU"


def check(here: Machine, num_gpus: int, precision: str, torch: TorchBuild | None) -> None:
    """All that does not depend on the model."""
    _driver(here)
    _number(here, num_gpus)
    if torch is not None and here.backend == "cuda":
        check_torch(here, torch)
    _precision(emptiest(here)[:num_gpus], precision)


def check_torch(here: Machine, torch: TorchBuild) -> None:
    """The driver must be able to run what torch was built for."""
    if torch.cuda is None:
        raise _refusal(
            f"torch {torch.version}",
            what="the installed torch cannot use this machine's GPUs",
            why=f"torch {torch.version} was built without CUDA; it would train on the CPU",
            do=f"install torch with CUDA, see https://pytorch.org/get-started; {_ON_CPU}",
        )
    if here.cuda_version is not None and driver_is_too_old(here.cuda_version, torch.cuda):
        raise _refusal(
            f"driver {here.driver or 'unknown'}, torch {torch.version}",
            what=f"the GPU driver is too old for torch: CUDA {torch.cuda} is needed, "
            f"the driver knows up to {here.cuda_version}",
            why=f"torch {torch.version} was built for CUDA {torch.cuda}",
            do="update the driver, or install a torch built for CUDA "
            f"{here.cuda_version.partition('.')[0]}",
        )


def check_room(here: Machine, found: Fit) -> None:
    """Nobody else may hold memory without which the prediction would fit."""
    full = crowded(here, found.plan.num_gpus, found.memory.high_bytes)
    if not full:
        return
    raise _refusal(
        full[0].name,
        what=f"GPU {full[0].index}: {_held(full[0])}",
        why=f"training may need {bytes_text(found.memory.high_bytes)}, "
        f"{bytes_text(full[0].vram_free_bytes)} are free",
        do="wait for it to end, or start beside it all the same with --share",
    )


def _held(gpu: Gpu) -> str:
    """Like "61.0 GiB of 80.0 GiB used by bob (python 4711, 62464 MiB)"."""
    who = [f"{h.user} ({h.name} {h.pid}, {h.vram_bytes >> 20} MiB)" for h in gpu.holders]
    whom = ", ".join(who) or "processes that cannot be seen from here"
    return f"{bytes_text(gpu.held_bytes)} of {bytes_text(gpu.vram_bytes)} used by {whom}"


def _driver(here: Machine) -> None:
    if not here.gpus and here.gpu_fault:
        raise _refusal(
            f"driver {here.driver or 'unknown'}",
            what="the GPU driver gives no GPU",
            why=here.gpu_fault,
            do=f"repair the driver; existing runs may go on; {_ON_CPU}",
        )


def _number(here: Machine, num_gpus: int) -> None:
    if here.gpus and len(here.gpus) < num_gpus:
        raise _refusal(
            "hardware.gpus",
            what=f"the recipe wants {num_gpus} GPUs, this machine has {len(here.gpus)}",
            why="hardware.gpus processes would be started, one a GPU",
            do="run it elsewhere, or let `advisor recommend` plan for this machine",
        )


def _precision(chosen: tuple[Gpu, ...], precision: str) -> None:
    lacking = [gpu for gpu in chosen if gpu.has_bf16 is False]
    if precision.startswith("bf16") and lacking:
        raise _refusal(
            "train.precision",
            what=f"the {lacking[0].name} has no bf16",
            why="bf16 needs compute capability 8.0 (Ampere) or newer",
            do="add --set train.precision=fp16",
        )


def _refusal(where: str, *, what: str, why: str, do: str) -> UserError:
    return UserError(what, why=why, do=do, where=where, code=ExitCode.DRIVER)
