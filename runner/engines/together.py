"""Whether the processes of a run train one model: their weights and gradients are compared.

Processes that were never put together train a model each, and only one of them would be saved.
"""

from __future__ import annotations

import torch

from profiles.errors import ExitCode, UserError
from profiles.runs.rundir import RunDir
from runner.engines.ranks import Ranks

_CHUNK = 1 << 22
"""Numbers added up at a time: a sum of 64-bit integers copies what it adds up."""
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def differences(model: torch.nn.Module, ranks: Ranks) -> list[str]:
    """Names of the trained weights that are not the same on all ranks; called by all of them.

    Right after an optimizer step, while the gradients are there: at a learning rate of 0, where a
    warm-up begins, the weights alone would show nothing.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    names, sums = list(trained), [n for p in trained.values() for n in _fingerprint(p)]
    return sorted({names[index // 2] for index in ranks.differing(sums)})


def _fingerprint(parameter: torch.Tensor) -> tuple[int, int]:
    """Numbers that are equal on all ranks if the weight and its gradient are."""
    gradient = parameter.grad
    return checksum(parameter), 0 if gradient is None else checksum(gradient)


def checksum(tensor: torch.Tensor) -> int:
    """The sum of a tensor's bits, read as integers; the same in any order of adding up."""
    flat = tensor.detach().reshape(-1).view(_INTEGERS[tensor.element_size()])
    parts = [chunk.sum(dtype=torch.int64) for chunk in flat.split(_CHUNK)]
    return int(torch.stack(parts).sum()) if parts else 0


def trains_apart(names: list[str], step: int, run: RunDir) -> UserError:
    """The processes do not train one model."""
    return UserError(
        f"the processes of the run train apart: after step {step} they hold different weights",
        why=f"{len(names)} trained weights or their gradients differ, {names[0]} among them; only "
        "the first process's would be saved",
        do="train with hardware.gpus = 1, and report this with the recipe and the console log",
        where=str(run.console),
        code=ExitCode.INTERNAL,
    )
