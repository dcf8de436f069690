"""How a model sorts rows into classes, as lines: a sentence, and the table where it is small."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from tui.plain import wrap
from tui.terminal import clean

if TYPE_CHECKING:
    from profiles.class_facts import Classes

_MOST_CHARS = 16
"""Of a name beside its row."""


def lines(found: Classes, width: int) -> list[str]:
    """The means, and the rows of each class by the class that they were put into.

    The table is left out where it is wider than the page.
    """
    told = wrap(f"classes: {found.words}", width, indent="  ", first="")
    names = [clean(name, _MOST_CHARS) for name in found.names]
    if not names:
        return told
    each = max(len(str(number)) for number in (len(names), *chain(*found.table))) + 1
    label = max(map(len, names))
    if 6 + label + each * len(names) > width:
        return told
    head = "".join(f"{i:>{each}}" for i in range(1, len(names) + 1))
    rows = [
        f"  {i:>2} {name:<{label}} " + "".join(f"{number:>{each}}" for number in row)
        for i, (name, row) in enumerate(zip(names, found.table, strict=True), 1)
    ]
    title = wrap("rows of each class, by the class that they were put into", width, first="  ")
    return [*told, *title, " " * (label + 6) + head, *rows]
