"""Bars as text, for the screen and for the plain command line alike (no Textual here).

Every bar can be read without colour: a meter ends with its percentage, and each part of a stacked
bar has its own fill character, repeated in the legend in front of its word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.quantities import percent_text
from tui.terminal import Symbols, clean, num_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_METER = {Symbols.BRAILLE: "█░", Symbols.BLOCK: "█░", Symbols.ASCII: "#."}
_FILLS = {
    Symbols.BRAILLE: "█▒░▞▤▥◇○+·",
    # Only what the fonts of a text console have.
    Symbols.BLOCK: "█▒░▓#=+x-.",
    Symbols.ASCII: "#=+-ox*%:.",
}
_PERCENT_WIDTH = len(" 100 %")
_WIDTH_WITH_PERCENT = 10
_LABEL_WIDTH = 32


def meter(
    used: float | None, total: float | None, width: int, symbols: Symbols = Symbols.BRAILLE
) -> str:
    """Draw a bar of exactly `width` cells; more than full ends in `>`, unknown says so."""
    if width < 1:
        return ""
    if used is None or total is None or not total > 0 or used != used:  # noqa: PLR0124
        return "unknown"[:width].ljust(width)
    share = used / total
    percent = f" {percent_text(share)}".rjust(_PERCENT_WIDTH)
    if width < _WIDTH_WITH_PERCENT:
        percent = ""
    room = width - len(percent)
    full, empty = tuple(_METER[symbols])
    num_full = round(room * min(max(share, 0.0), 1.0))
    if used > 0:
        num_full = max(1, num_full)
    bar = full * num_full + empty * (room - num_full)
    if share > 1:
        bar = bar[:-1] + ">"
    return bar + percent


def stacked(
    parts: Sequence[tuple[str, float]],
    width: int,
    symbols: Symbols = Symbols.BRAILLE,
    describe: Callable[[float], str] | None = None,
    *,
    rest: Sequence[tuple[str, float]] = (),
) -> list[str]:
    """Draw a segmented bar of exactly `width` cells, then its legend wrapped to it.

    `describe` writes a part's value (for bytes: `bytes_text`); without it, its share of the sum.
    Parts that are not above zero are left out; from the tenth on, parts become "other". `rest`
    comes last, drawn with the lightest characters and never grouped.
    """
    rest = [(label, value) for label, value in rest if value > 0]
    fills = _FILLS[symbols]
    light, fills = fills[len(fills) - len(rest) :], fills[: len(fills) - len(rest)]
    grouped = _grouped([(label, value) for label, value in parts if value > 0], len(fills))
    fills = fills[: len(grouped)] + light
    shown = [*grouped, *rest]
    total = sum(value for _, value in shown)
    if not shown or width < 1:
        return ["nothing to show"[: max(0, width)]]
    lengths = _lengths([value for _, value in shown], width)
    bar = "".join(fill * length for fill, length in zip(fills, lengths, strict=False))
    describe = describe or (lambda value: percent_text(value / total))
    entries = [
        f"{fill} {clean(label, _LABEL_WIDTH)} {describe(value)}"
        for fill, (label, value) in zip(fills, shown, strict=False)
    ]
    return [bar, *_wrapped(entries, width)]


def _grouped(parts: list[tuple[str, float]], most: int) -> list[tuple[str, float]]:
    if len(parts) <= most:
        return parts
    rest = sum(value for _, value in parts[most - 1 :])
    return [*parts[: most - 1], ("other", rest)]


def _lengths(values: Sequence[float], width: int) -> list[int]:
    """Cells per part: they sum to `width`, and each part gets one cell while there is room."""
    total = sum(values)
    exact = [width * value / total for value in values]
    least = 1 if len(values) <= width else 0
    lengths = [max(least, int(cells)) for cells in exact]
    while (missing := width - sum(lengths)) != 0:
        step = 1 if missing > 0 else -1
        # The part that is furthest from its due changes by one cell.
        owed = [
            step * (due - length) if length + step >= least else float("-inf")
            for due, length in zip(exact, lengths, strict=True)
        ]
        lengths[owed.index(max(owed))] += step
    return lengths


def _wrapped(entries: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for full_entry in entries:
        entry = clean(full_entry, width)
        if lines and num_cells(lines[-1]) + 2 + num_cells(entry) <= width:
            lines[-1] += f"  {entry}"
        else:
            lines.append(entry)
    return lines
