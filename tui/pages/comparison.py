"""Several machines beside each other, as lines."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.choice.compare import Row
from advisor.choice.recommend import Recommendation
from profiles.facts import GIB
from profiles.quantities import count_text
from tui.pages import alternatives
from tui.pages.model import size
from tui.plain import table, wrap
from tui.terminal import num_cells

_INDENT = " " * 4
_HEADER = ("machine", "method", "GPUs", "peak/free GiB", "tokens/s", "hours", "cost")
_RIGHT = frozenset({"GPUs", "peak/free GiB", "tokens/s", "hours", "cost"})


def lines(found: Sequence[Recommendation], rows: Sequence[Row], width: int) -> list[str]:
    """A row for each machine, and below it why not the method above."""
    cells = [_cells(one, row) for one, row in zip(found, rows, strict=True)]
    dropped = {
        _HEADER.index(name)
        for name, values in (
            ("hours", [row.hours for row in rows]),
            ("cost", [row.cost for row in rows]),
        )
        if all(value is None for value in values)
    }
    header, *body = _table(cells, dropped)
    if max(map(num_cells, [header, *body])) > width:  # then the method leads the second line
        dropped.add(_HEADER.index("method"))
        header, *body = _table(cells, dropped)
    first = found[0]
    plan = first.fit.plan
    about = (
        f"{first.model.id} ({size(first.model)}), rows of up to {count_text(plan.seq_len)} tokens"
    )
    result = [*wrap(about, width), "", header]
    for one, row, line in zip(found, rows, body, strict=True):
        result.append(line)
        for note in _notes(one, row, names_method=_HEADER.index("method") in dropped):
            result += wrap(note, width, indent=_INDENT)
    return [*result, *_warnings(found, width)]


def _table(cells: Sequence[Sequence[str]], dropped: set[int]) -> list[str]:
    kept = [i for i in range(len(_HEADER)) if i not in dropped]
    return table(
        [[line[i] for i in kept] for line in cells],
        header=[_HEADER[i] for i in kept],
        right=[kept.index(i) for i in kept if _HEADER[i] in _RIGHT],
    )


def _cells(found: Recommendation, row: Row) -> tuple[str, ...]:
    nodes = f"{found.machine.num_nodes} nodes of " if found.machine.num_nodes > 1 else ""
    return (
        nodes + row.machine,
        row.method,
        str(row.num_gpus or "-"),
        f"{row.peak_bytes / GIB:.1f} of {row.free_bytes / GIB:.1f}",
        count_text(row.tokens_per_second) if row.tokens_per_second is not None else "-",
        alternatives.hours_text(row.hours),
        f"{row.cost:.2f}" if row.cost is not None else "-",
    )


def _notes(found: Recommendation, row: Row, *, names_method: bool) -> list[str]:
    notes = [row.method] if names_method and row.rung else []
    notes += found.machine.assumed
    if row.rung is None:
        return [*notes, found.detour]
    if not found.runs:
        notes.append(found.runnable.why if found.runnable else "this version cannot run it yet")
    more = alternatives.above(found, most=1)
    return [*notes, *([more] if more else [])]


def _warnings(found: Sequence[Recommendation], width: int) -> list[str]:
    """Each once, though it be said of several machines."""
    every = list(dict.fromkeys(warning for one in found for warning in one.warnings))
    result = [""] if every else []
    for warning in every:
        result += wrap(warning, width, indent="  ", first="! ")
    return result
