"""Out of memory: recognising it in what libraries raise. One classifier for all of the run."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import torch

from profiles.errors import ExitCode, UserError


class Shortage(StrEnum):
    """Whose memory ran out."""

    GPU = "gpu"
    HOST = "host"


_HOST = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|std::bad_alloc"
    r"|Cannot allocate memory"
    r"|DataLoader worker \(pid.*is killed by signal: (Killed|Bus error)"
    r"|insufficient shared memory"
    r"|out of shared memory\. Please try to raise"
)
_GPU = re.compile(
    r"\b(CUDA|HIP|XPU) out of memory"
    r"|MPS backend out of memory"
    r"|(CUDA|HIP|Triton)[\w \[\]:.]*[Ee]rror[\w \[\]:.]*: out of memory"
    r"|[Cc]uda failure[^']*'out of memory'"
    r"|CU(BLAS|DNN|SOLVER|SPARSE|FFT|RAND)_STATUS_ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation"
    r"|CUDA_ERROR_OUT_OF_MEMORY"
    r"|Error out of memory at line \d+ in file"
)


def shortage(error: BaseException) -> Shortage | None:
    """Which memory an exception says has run out, its causes included; None if it is no such."""
    seen: BaseException | None = error
    while seen is not None:
        found = _shortage_of_one(seen)
        if found is not None:
            return found
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _shortage_of_one(error: BaseException) -> Shortage | None:
    if isinstance(error, UserError):
        return None
    if isinstance(error, torch.OutOfMemoryError):
        return Shortage.GPU
    if isinstance(error, MemoryError):
        return Shortage.HOST
    if not isinstance(error, RuntimeError | OSError):
        return None
    text = str(error)
    if _GPU.search(text):
        return Shortage.GPU
    return Shortage.HOST if _HOST.search(text) else None


def is_sane(device: torch.device) -> bool:
    """The device still works: after some shortages a CUDA context fails at every later call."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.empty_cache()
        torch.cuda.synchronize(device)
        return bool(torch.ones(1, device=device).item() == 1.0)
    except RuntimeError:
        return False


class OutOfMemoryError(UserError):
    """The device's memory is too small for what the recipe asks."""

    def __init__(  # the parts of an error, and of a restart
        self, why: str, *, on_cpu: bool, do: str, where: str, pieces: int, clean_restart: bool
    ) -> None:
        what = "the machine ran out of memory" if on_cpu else "the GPU ran out of memory"
        code = ExitCode.HOST_OOM if on_cpu else ExitCode.GPU_OOM
        super().__init__(what, why=why, do=do, where=where, code=code)
        self.pieces = pieces
        self.clean_restart = clean_restart

    def as_dict(self) -> dict[str, Any]:
        """With what the next process must know to do better."""
        return super().as_dict() | {"clean_restart": self.clean_restart, "pieces": self.pieces}
