"""Meters and stacked bars as text."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.quantities import bytes_text
from tui.plain_bars import meter, stacked
from tui.terminal import Symbols

GIB = 1024**3


@pytest.mark.parametrize(
    ("used", "total", "width", "expected"),
    [
        (40, 80, 16, "#####.....  50 %"),
        (0, 80, 16, "..........   0 %"),
        (0.01, 80, 16, "#.........  <1 %"),
        (80, 80, 16, "########## 100 %"),
        (96, 80, 16, "#########> 120 %"),
        (40, 80, 8, "####...."),
        (40, 0, 10, "unknown   "),
        (None, 80, 10, "unknown   "),
        (float("nan"), 80, 4, "unkn"),
        (1, 2, 0, ""),
        (1, 2, 1, "#"),
        (40, 80, 9, "####....."),
        (40, 80, 10, "##..  50 %"),
        (79.9, 80, 12, "###### >99 %"),
        (80.1, 80, 12, "#####> 100 %"),
        (-5, 80, 12, "......  -6 %"),
        (1, -1, 7, "unknown"),
    ],
)
def test_a_meter(used: float | None, total: float, width: int, expected: str) -> None:
    """A meter is as wide as asked and says unknown, too much, and next to nothing."""
    assert expected == meter(used, total, width, Symbols.ASCII)


def test_a_stacked_bar_can_be_read_without_colour() -> None:
    """Each part has its own character, repeated in front of its word."""
    parts = [("weights", 8 * GIB), ("optimizer", 4 * GIB), ("free", 4 * GIB)]

    assert [
        "################========++++++++",
        "# weights 8.0 GiB",
        "= optimizer 4.0 GiB",
        "+ free 4.0 GiB",
    ] == stacked(parts, 32, Symbols.ASCII, bytes_text)


def test_nothing_above_zero_says_so() -> None:
    """An empty bar is words, not a blank, as far as there is room."""
    assert ["nothing to show"] == stacked([("weights", 0)], 40)
    assert ["nothing"] == stacked([], 7)
    assert [""] == stacked([("weights", 1)], 0)
    assert [""] == stacked([], -1)


@pytest.mark.parametrize(
    ("parts", "width", "expected"),
    [
        ([("a", 1000), ("b", 1)], 10, "#########="),
        ([("a", 1), ("b", 1), ("c", 1)], 10, "####===+++"),
        ([("a", 1), ("b", 1)], 7, "####==="),
        ([("a", 1000), ("b", 1), ("c", 1)], 3, "#=+"),
        ([("a", 1000), ("b", 1), ("c", 1)], 2, "##"),
        ([("a", 2), ("none", 0), ("b", 2)], 4, "##=="),
    ],
)
def test_small_parts_get_a_cell_from_the_largest(
    parts: list[tuple[str, float]], width: int, expected: str
) -> None:
    """As long as there is one for each."""
    assert expected == stacked(parts, width, Symbols.ASCII)[0]


def test_what_is_left_is_drawn_lightly_and_is_never_grouped() -> None:
    """Whatever the number of parts before it."""
    rest = [("margin", 4), ("none", 0), ("left", 6)]

    assert "##########::::......" == stacked([("a", 10)], 20, Symbols.ASCII, rest=rest)[0]
    assert [
        "#=+-ox**%%%%%%%%%%:.",
        "# p1 1 %  = p2 3 %",
        "+ p3 4 %  - p4 5 %",
        "o p5 7 %  x p6 8 %",
        "* p7 9 %",
        "% other 50 %",
        ": margin 5 %",
        ". left 8 %",
    ] == stacked([(f"p{i}", i) for i in range(1, 12)], 20, Symbols.ASCII, rest=rest)


def test_as_many_parts_as_characters_are_all_named() -> None:
    """One more, and the last two are other."""
    ten, eleven = ([(f"p{i}", 1) for i in range(number)] for number in (10, 11))

    assert [". p9 10 %"] == stacked(ten, 20, Symbols.ASCII)[-1].split("  ")[1:]
    assert [": p8 9 %", ". other 18 %"] == stacked(eleven, 20, Symbols.ASCII)[-2:]


def test_the_legend_stands_side_by_side_where_there_is_room() -> None:
    """Two blanks between entries; a long name is cut."""
    parts = [("aa", 1), ("bb", 1)]

    assert ["# aa 50 %  = bb 50 %"] == stacked(parts, 20, Symbols.ASCII)[1:]
    assert ["# aa 50 %", "= bb 50 %"] == stacked(parts, 19, Symbols.ASCII)[1:]
    assert [f"# {'x' * 29}... 100 %"] == stacked([("x" * 40, 1)], 60, Symbols.ASCII)[1:]


def test_more_parts_than_characters_become_other() -> None:
    """No two parts ever share a fill character."""
    rows = stacked([(f"p{i}", 1) for i in range(30)], 60, Symbols.ASCII)

    assert any("other" in row for row in rows)
    assert 10 == len(set(rows[0]))


@given(
    st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=10),
    st.integers(1, 150),
    st.sampled_from(Symbols),
)
def test_a_stacked_bar_has_exactly_its_width(
    values: list[float], width: int, symbols: Symbols
) -> None:
    """Rounding never makes the bar longer or shorter, and parts get a cell while there is room."""
    bar, *legend = stacked([(f"part {v:.0f}", v) for v in values], width, symbols)

    assert width == len(bar)
    assert len(values) > width or len(values) == len(set(bar))
    assert all(len(row) <= width for row in legend)


def test_bars_are_written_without_textual() -> None:
    """The plain command line may use them without paying for Textual."""
    code = "import sys, tui.plain_bars, tui.terminal, tui.store; print('textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()
