"""Out of memory: recognising it in what libraries raise, and dividing a batch into smaller pieces.

One classifier for all of the run. The answer to a shortage is a smaller micro-batch at the same
effective batch: the rows of a micro-batch are worked on in pieces whose gradients add up to the
same. Nothing here decides when; that is the trainer's business.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import torch

from profiles.errors import ExitCode, UserError

Batch = dict[str, Any]

IGNORED_LABEL = -100
"""torch's ignore index: a position that is not learnt."""


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


def num_rows(batch: Batch) -> int:
    """Rows of a batch: the first dimension of its tensors."""
    return int(batch["input_ids"].shape[0])


def pieces_of(batch: Batch, num_pieces: int) -> list[Batch]:
    """A batch as up to `num_pieces` batches of fewer rows, in order.

    Tensors of shape (rows, ...) are divided. What only pads a piece is cut away on the right, so
    that its longest row decides what it costs.
    """
    rows = num_rows(batch)
    if num_pieces <= 1 or rows <= 1:
        return [batch]
    pieces = []
    for indices in torch.arange(rows).chunk(num_pieces):
        first, last = int(indices[0]), int(indices[-1]) + 1
        pieces.append(_without_padding({k: _rows(v, rows, first, last) for k, v in batch.items()}))
    return pieces


def _rows(value: Any, rows: int, first: int, last: int) -> Any:
    is_per_row = isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == rows
    return value[first:last] if is_per_row else value


def _without_padding(piece: Batch) -> Batch:
    mask = piece.get("attention_mask")
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return piece
    width = mask.shape[1]
    used = int(mask.any(dim=0).nonzero().max()) + 1 if bool(mask.any()) else width
    return {
        k: v[:, :used]
        if isinstance(v, torch.Tensor) and v.dim() == 2 and v.shape[1] == width
        else v
        for k, v in piece.items()
    }


def num_learnt(batch: Batch) -> int:
    """Tokens of a batch that count in its loss; the first of a row is never predicted."""
    return int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())


def longest_batch(lengths: list[int], rows: int) -> list[int]:
    """Indices of the `rows` longest examples: no micro-batch of the run can be larger."""
    return sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)[:rows]


class OutOfMemoryError(UserError):
    """The GPU's memory is too small for what the recipe asks."""

    def __init__(self, why: str, *, do: str, where: str, pieces: int, clean_restart: bool) -> None:
        super().__init__(
            "the GPU ran out of memory", why=why, do=do, where=where, code=ExitCode.GPU_OOM
        )
        self.pieces = pieces
        self.clean_restart = clean_restart

    def as_dict(self) -> dict[str, Any]:
        """With what the next process must know to do better."""
        return super().as_dict() | {"clean_restart": self.clean_restart, "pieces": self.pieces}
