"""Dividing a batch into pieces whose gradients add up to the whole batch's.

Rows are divided; a row into which packing has put several examples is cut between them. Nothing
here decides when to divide; that is the business of `division`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

Batch = dict[str, Any]

IGNORED_LABEL = -100
"""torch's ignore index: a position that is not learnt."""


def num_rows(batch: Batch) -> int:
    """Rows of a batch, or the examples that packing has put into its one row."""
    rows = int(batch["input_ids"].shape[0])
    return rows if rows > 1 else max(1, len(_starts(batch)))


def _starts(batch: Batch) -> list[int]:
    """Where the examples of a single packed row begin: positions count from 0 again."""
    positions = batch.get("position_ids")
    if not isinstance(positions, torch.Tensor) or positions.dim() != 2:
        return []
    return [int(index) for index in (positions[0] == 0).nonzero()]


def pieces_of(batch: Batch, num_pieces: int) -> list[Batch]:
    """A batch as up to `num_pieces` batches of fewer rows, in order.

    Tensors of shape (rows, ...) are divided. What only pads a piece is cut away on the right, so
    that its longest row decides what it costs.
    """
    rows = int(batch["input_ids"].shape[0])
    if num_pieces <= 1 or num_rows(batch) <= 1:
        return [batch]
    if rows == 1:
        return _cut_between_examples(batch, num_pieces)
    pieces = []
    for indices in torch.arange(rows).chunk(num_pieces):
        first, last = int(indices[0]), int(indices[-1]) + 1
        pieces.append(_without_padding({k: _rows(v, rows, first, last) for k, v in batch.items()}))
    return pieces


def _cut_between_examples(batch: Batch, num_pieces: int) -> list[Batch]:
    """One packed row as several, each of whole examples."""
    starts, width = _starts(batch), int(batch["input_ids"].shape[1])
    firsts = [starts[int(part[0])] for part in torch.arange(len(starts)).chunk(num_pieces)]
    bounds = [*firsts, width]
    pieces = []
    for first, last in pairwise(bounds):
        piece = {
            k: v[:, first:last]
            if isinstance(v, torch.Tensor) and v.dim() == 2 and v.shape[1] == width
            else v
            for k, v in batch.items()
        }
        inner = [start - first for start in starts if first <= start < last] + [last - first]
        pieces.append(piece | _lengths_of(batch, inner))
    return pieces


def _lengths_of(batch: Batch, bounds: list[int]) -> Batch:
    """What variable-length attention is told of the examples of a piece, in the batch's terms."""
    told: Batch = {}
    longest = max(last - first for first, last in pairwise(bounds))
    for side in ("q", "k"):
        ends, limit = batch.get(f"cu_seq_lens_{side}"), batch.get(f"max_length_{side}")
        if isinstance(ends, torch.Tensor):
            told[f"cu_seq_lens_{side}"] = ends.new_tensor(bounds)
        if limit is not None:
            is_tensor = isinstance(limit, torch.Tensor)
            told[f"max_length_{side}"] = limit.new_tensor(longest) if is_tensor else longest
    if isinstance(numbers := batch.get("seq_idx"), torch.Tensor):
        counts = torch.tensor([b - a for a, b in pairwise(bounds)])
        indices = torch.repeat_interleave(torch.arange(len(counts)), counts)
        told["seq_idx"] = indices[None].to(numbers)
    return told


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
