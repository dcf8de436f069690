"""Rows of a data set as the model reads them, as lines and as JSON.

What is learnt is told by the sign before each line, so that it is seen without colours too: a line
is learnt, or read, or cut off, as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from profiles.data.preview import Part, Preview, ShownRow
from profiles.data.words import printable
from profiles.facts import Origin
from profiles.quantities import count_text, percent_text
from tui.plain import facts, wrap
from tui.terminal import clean, num_cells
from tui.tones import Line, Tone

LEARNT, READ, CUT = "+", "|", "x"
_LEGEND = f"{LEARNT} learnt   {READ} read only   {CUT} cut off, so not read"
_HEAD_CHARS, _TAIL_CHARS = 1600, 600
"""Of a row; what lies between is left out, and told."""
_MARGIN = 4


def lines(
    found: Preview, how: str, notes: Iterable[str], width: int, *, unicode: bool
) -> list[Line]:
    """The whole page. `how`: what wrote the rows; `notes`: what to know of that."""
    is_measured = found.origin is Origin.MEASURED
    pairs = [
        ("data", found.path),
        ("format", found.format),
        ("written by", how),
        ("tokens", "by the model's tokenizer" if is_measured else "from characters, roughly"),
        ("signs", f"{_LEGEND}   {_line_end(unicode)} line break"),
    ]
    page = [Line(text) for text in facts(pairs, width)]
    page += _warned(notes, width)
    for row in found.rows:
        page += [Line(""), *_row(row, found, width, unicode=unicode)]
    return page


def _row(row: ShownRow, found: Preview, width: int, *, unicode: bool) -> Iterator[Line]:
    for text in wrap(_heading(row, found), width, indent="  ", first=""):
        yield Line(text, Tone.HEAD)
    yield from _warned(_told(row), width)
    yield from _text(row.parts, width, unicode=unicode)
    if row.worse:
        yield Line("  with the worse reply", Tone.HEAD)
        yield from _text(row.worse, width, unicode=unicode)


def _text(parts: Sequence[Part], width: int, *, unicode: bool) -> Iterator[Line]:
    """A text, or of a long one its beginning and end."""
    end = _line_end(unicode)
    first, skipped, last = _excerpt(parts)
    for part in first:
        yield from _shown(part, width, end)
    if skipped:
        num_learnt = sum(len(part.text) for part in skipped if part.is_learnt and not part.is_cut)
        num_chars = sum(len(part.text) for part in skipped)
        text = f"{count_text(num_chars)} characters are not shown, {count_text(num_learnt)} of them"
        for told in wrap(f"... {text} learnt; --json has them", width, indent="      ", first="  "):
            yield Line(told, Tone.WARNING)
    for part in last:
        yield from _shown(part, width, end)


def _heading(row: ShownRow, found: Preview) -> str:
    """Like "row 3, line 3: 57 tokens, 21 learnt (37 %)"."""
    place = f"row {count_text(row.number)}, line {count_text(row.line)}"
    if row.is_refused:
        return f"{place}: refused"
    about = "" if found.origin is Origin.MEASURED else "about "
    counts = row.counts
    learnt = f"{count_text(counts.num_learnt)} learnt ({percent_text(counts.learnt_share)})"
    tokens = f"{about}{count_text(row.num_tokens)} tokens"
    if counts.num_cut:
        tokens += f", cut at max_length {count_text(counts.num_tokens)}"
    label = f", labelled {clean(row.label, 40)}" if row.label else ""
    return f"{place}: {tokens}, {learnt}{label}"


def _told(row: ShownRow) -> Iterator[str]:
    for kind in row.told:
        yield f"rows like this {kind}"
    if row.begins:
        yield f"it begins: {row.begins}"
    if row.counts.num_dropped:
        yield "nothing of it is learnt, so training leaves it out"


def _warned(texts: Iterable[str], width: int) -> list[Line]:
    return [
        Line(line, Tone.WARNING)
        for text in texts
        for line in wrap(clean(text, 600), width, indent="  ", first="! ")
    ]


def _excerpt(parts: Sequence[Part]) -> tuple[list[Part], list[Part], list[Part]]:
    """Beginning, middle and end of a row; the middle is empty where the row is short."""
    length = sum(len(part.text) for part in parts)
    if length <= _HEAD_CHARS + _TAIL_CHARS:
        return list(parts), [], []
    bounds = (0, _HEAD_CHARS, length - _TAIL_CHARS, length)
    first, middle, last = [_between(parts, begin, end) for begin, end in pairwise(bounds)]
    return first, middle, last


def _between(parts: Sequence[Part], begin: int, end: int) -> list[Part]:
    """What stands between two characters of the whole text."""
    found, start = [], 0
    for part in parts:
        text = part.text[max(0, begin - start) : max(0, end - start)]
        found += [part._replace(text=text)] if text else []
        start += len(part.text)
    return found


def _shown(part: Part, width: int, end: str) -> Iterator[Line]:
    """A part with its sign before each line."""
    sign, tone = READ, Tone.PLAIN
    if part.is_cut:
        sign, tone = CUT, Tone.CUT
    elif part.is_learnt:
        sign, tone = LEARNT, Tone.LEARNT
    *ended, rest = part.text.split("\n")
    for text in [
        *(f"{printable(body, len(body))}{end}" for body in ended),
        printable(rest, len(rest)),
    ]:
        for piece in _wrapped(text, width - _MARGIN):
            yield Line(f"  {sign} {piece}", tone)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """Pieces of at most so many cells with every space kept, broken after one if it is near."""
    start = end = used = 0
    space = -1
    while end < len(text):
        cells = num_cells(text[end])
        if used + cells > width:
            end = space if space > start + (end - start) // 2 else end
            yield text[start:end]
            start, used, space = end, 0, -1
            continue
        used, end = used + cells, end + 1
        space = end if text[end - 1] == " " else space
    if start < end:
        yield text[start:]


def _line_end(unicode: bool) -> str:
    return "↵" if unicode else "\\n"


def document(found: Preview, how: str, notes: Sequence[str]) -> dict[str, Any]:
    """All of `advisor data show --json`; nothing of a row is left out."""
    return {
        "data": found.path,
        "format": found.format,
        "written_by": how,
        "notes": list(notes),
        "origin": found.origin,
        "max_length": found.max_length,
        "rows": [_row_json(row) for row in found.rows],
    }


def _row_json(row: ShownRow) -> dict[str, Any]:
    return {
        "row": row.number,
        "line": row.line,
        "refused": row.is_refused,
        "dropped": bool(row.counts.num_dropped),
        "told": list(row.told),
        "tokens": row.num_tokens,
        "kept": row.counts.num_tokens,
        "cut": bool(row.counts.num_cut),
        "learnt": row.counts.num_learnt,
        "learnt_share": row.counts.learnt_share,
        "label": row.label or None,
        "parts": _parts_json(row.parts),
        "worse": _parts_json(row.worse) or None,
    }


def _parts_json(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {"text": part.text, "learnt": part.is_learnt and not part.is_cut, "cut": part.is_cut}
        for part in parts
    ]
