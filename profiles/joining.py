"""Texts that are joined to rows of one length: how many rows, and how long, there then are."""

from __future__ import annotations

from dataclasses import replace

from profiles.facts import Dataset, TokenStats


def joined(data: Dataset, length: int) -> Dataset:
    """The data in rows of this length; as they are where no token is counted.

    The token that each row repeats of the row before it is left out.
    """
    if data.tokens is None:
        return data
    tokens = _joined(data.tokens, length)
    rows = tokens.counts.num_rows
    return replace(data, tokens=tokens, num_rows=rows, num_distinct_rows=None, values=())


def _joined(tokens: TokenStats, length: int) -> TokenStats:
    size = min(length, tokens.total)
    full, rest = divmod(tokens.total, size)
    lengths = ((rest, 1), (size, full)) if rest else ((size, full),)
    rows = sum(number for _, number in lengths)
    return TokenStats(
        min=rest or size,
        median=size,
        p95=size,
        max=size,
        mean=tokens.total / rows,
        total=tokens.total,
        origin=tokens.origin,
        max_length=tokens.max_length,
        lengths=lengths,
        starts=((0, rows),),
        edges=((0, rows), *((end, -number) for end, number in lengths)),
    )
