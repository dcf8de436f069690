"""Dividing a batch into pieces whose gradients add up to the whole batch's.

Rows are divided, and rows that belong together stay together; a row into which packing has put
several examples is cut between them. When to divide is the business of `division`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

Batch = dict[str, Any]


def num_rows(batch: Batch, blocks: int = 1) -> int:
    """Rows of a batch, or the examples that packing has put into its one row.

    `blocks`: the batch is so many blocks of as many sequences, and row i is the i-th of each.
    """
    rows = int(batch["input_ids"].shape[0]) // blocks
    return rows if rows > 1 else max(1, len(_starts(batch)))


def _starts(batch: Batch) -> list[int]:
    """Where the examples of a single packed row begin: positions count from 0 again."""
    positions = batch.get("position_ids")
    if not isinstance(positions, torch.Tensor) or positions.dim() != 2:
        return []
    return [int(index) for index in (positions[0] == 0).nonzero()]


def pieces_of(batch: Batch, num_pieces: int, blocks: int = 1) -> list[Batch]:
    """A batch as up to `num_pieces` batches of fewer rows, in order.

    Tensors of shape (blocks * rows, ...) and (rows, ...) are divided. What only pads a piece is cut
    away on the right, so that its longest row decides what it costs.
    """
    sequences = int(batch["input_ids"].shape[0])
    rows = sequences // blocks
    if num_pieces <= 1 or num_rows(batch, blocks) <= 1:
        return [batch]
    if rows == 1:
        return _cut_between_examples(batch, num_pieces)
    each = torch.arange(sequences).reshape(blocks, rows)
    pieces = []
    for part in each.chunk(num_pieces, dim=1):
        chosen = {rows: part[0], sequences: part.flatten()}
        pieces.append(_without_padding({k: _rows(v, chosen) for k, v in batch.items()}))
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


def _rows(value: Any, chosen: dict[int, torch.Tensor]) -> Any:
    """Of a tensor what belongs to a piece; `chosen`: indices by the length that they are of."""
    if not isinstance(value, torch.Tensor) or value.dim() == 0 or len(value) not in chosen:
        return value
    return value[chosen[len(value)].to(value.device)]


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
