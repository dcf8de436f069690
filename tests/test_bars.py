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
    """An empty bar is words, not a blank."""
    assert ["nothing to show"] == stacked([("weights", 0)], 40)


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
