"""The ranks of adapters as lines: what they rest on, and each linear's, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.plain import wrap
from tui.terminal import clean

if TYPE_CHECKING:
    from profiles.rank_facts import AdapterRanks

_MOST_CHARS = 28
"""Of a linear's name, from its end."""


def lines(found: AdapterRanks, width: int) -> list[str]:
    """A sentence, and for each linear the sum of its ranks and the ranks of its layers."""
    names = [clean(one.name, 200)[-_MOST_CHARS:] for one in found.linears]
    label = max(map(len, names), default=0)
    sums = [sum(one.ranks) for one in found.linears]
    digits = len(str(max(sums, default=0)))
    each = len(str(found.full))
    told = wrap(f"ranks: {found.words}", width, indent="  ", first="")
    told += wrap("linear, sum of its ranks: rank in each layer", width, indent="  ")
    for name, total, one in zip(names, sums, found.linears, strict=True):
        head = f"  {name:<{label}} {total:>{digits}}:"
        per_line = max(1, (width - len(head)) // (each + 1))
        for first in range(0, len(one.ranks), per_line):
            of_layers = "".join(f" {rank:>{each}}" for rank in one.ranks[first : first + per_line])
            told.append((head if first == 0 else " " * len(head)) + of_layers)
    return told
