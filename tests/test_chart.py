"""The chart widget, compared as text."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.store import Series
from tui.terminal import Symbols
from tui.widgets.chart import Chart
from tui.widgets.lines import changed_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SIZES = [(10, 3), (11, 4), (20, 5), (37, 11), (60, 16), (80, 24), (120, 40)]


class Host(App[None]):
    """Nothing but a chart on the whole screen."""

    CSS = "Chart { width: 100%; height: 100%; }"

    def __init__(self, chart: Chart) -> None:
        super().__init__()
        self.chart = chart

    def compose(self) -> ComposeResult:
        """Mount the chart."""
        yield self.chart


def series_of(values: Iterable[float]) -> Series:
    """Make a series with x = 0, 1, 2 ..."""
    series = Series()
    for x, value in enumerate(values):
        series.add(x, value)
    return series


def texts(chart: Chart) -> list[str]:
    """Read the rows as Textual gets them."""
    return [chart.render_line(y).text for y in range(chart.size.height)]


def drawn(chart: Chart, size: tuple[int, int], show: Callable[[], None]) -> list[str]:
    """Run an app of this size, show something, and read the screen."""

    async def run() -> list[str]:
        app = Host(chart)
        async with app.run_test(size=size) as pilot:
            show()
            await pilot.pause()
            return texts(chart)

    return asyncio.run(run())


def test_a_small_curve_in_ascii() -> None:
    """Frame, value and mean on top, limits left, caption below, the line in between."""
    chart = Chart("loss", symbols=Symbols.ASCII)
    rows = drawn(chart, (34, 7), lambda: chart.show(series_of([4, 3, 2, 1]), "step 1-4"))

    expected = [
        "+ loss  1 now  2.5 mean of 4 ----+",
        "|4 ''...                         |",
        "|       '''...                   |",
        "|             '''..              |",
        "|                  '''...        |",
        "|1                       '''..   |",
        "+---------------------- step 1-4 +",
    ]

    assert expected == rows


def test_a_small_curve_in_braille() -> None:
    """Two by four dots to a cell, a little room left for the points to come."""
    chart = Chart("x")
    rows = drawn(chart, (30, 6), lambda: chart.show(series_of([1, 2, 3, 2, 1])))
    expected = [
        "┌ x  1 now  1.8 mean of 5 ───┐",
        "│3          ⣀⠔⠊⠒⢄⡀           │",
        "│        ⡠⠔⠉     ⠈⠒⢄         │",
        "│     ⡠⠔⠉           ⠉⠢⢄      │",
        "│1 ⡠⠔⠉                 ⠉⠢⢄   │",
        "└────────────────────────────┘",
    ]

    assert expected == rows


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("symbols", Symbols)
@pytest.mark.parametrize(
    "values",
    [[], [1.0], [5.0] * 9, [math.nan], [1, math.nan, 3], [0, -1, 5], range(3000), [1e289, -1e289]],
    ids=["empty", "point", "constant", "nan", "gap", "negative", "long", "huge"],
)
@pytest.mark.parametrize("log_y", [False, True])
def test_every_size_is_filled_exactly(
    size: tuple[int, int], symbols: Symbols, values: Iterable[float], *, log_y: bool
) -> None:
    """Each row is as wide as the screen, and ASCII means ASCII."""
    chart = Chart("loss", symbols=symbols, log_y=log_y)
    chart.show(series_of(values), "step 1-3000")
    rows = [row.ljust(size[0]) for row in chart.build_rows(*size)]

    assert [size[0]] * size[1] == [len(row) for row in rows]
    assert symbols is not Symbols.ASCII or "".join(rows).isascii()


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (2, 2), (3, 3), (5, 1), (9, 2)])
def test_a_tiny_widget_does_not_break(size: tuple[int, int]) -> None:
    """Less room than a frame needs gives the value alone."""
    chart = Chart("loss")
    chart.show(series_of([1.5, 2.5]), "step 1-2")

    assert all(len(row) <= size[0] for row in chart.build_rows(*size))


def test_the_smallest_chart_shows_the_value() -> None:
    """At 10x3 the title makes room for the number."""
    chart = Chart("grad norm", symbols=Symbols.ASCII)
    chart.show(series_of([0.5, 0.881]))

    assert ["+ 0.881 -+", "|...'''' |", "+--------+"] == chart.build_rows(10, 3)


def test_a_constant_series_is_a_level_line_in_the_middle() -> None:
    """Without a range there is no division by zero, and the line is not on the edge."""
    chart = Chart("x", symbols=Symbols.BLOCK)
    chart.show(series_of([7.0] * 50))
    rows = chart.build_rows(30, 7)

    assert [3] == [y for y, row in enumerate(rows) if "▄" in row]


def test_one_point_is_one_dot() -> None:
    """A run of one step shows exactly one character of curve."""
    chart = Chart("x", symbols=Symbols.BLOCK)
    chart.show(series_of([7.0]))

    assert 1 == sum(row.count("▀") + row.count("▄") for row in chart.build_rows(30, 7))


def test_a_gap_leaves_empty_columns_and_is_named() -> None:
    """No ink between the values around NaN, and the title counts them."""
    chart = Chart("x", symbols=Symbols.BLOCK)
    chart.show(series_of([1.0] * 10 + [math.nan] * 10 + [1.0] * 10))
    expected = [
        "┌ x  1 now  10 not finite ─────────────┐",
        "│                                      │",
        "│1 ▀▀▀▀▀▀▀▀▀▀▀          ▀▀▀▀▀▀▀▀▀▀▀    │",
        "└──────────────────────────────────────┘",
    ]

    assert expected == chart.build_rows(40, 4)


def test_a_spike_reaches_the_top_row() -> None:
    """One step among 10 000 is drawn to its full height, though the mean stays low."""
    chart = Chart("x", symbols=Symbols.ASCII)
    chart.show(series_of([1.0] * 5000 + [9.0] + [1.0] * 5000))
    rows = chart.build_rows(60, 12)

    assert [1] * 9 == [row[2:-1].count("|") + row.count(":") for row in rows[1:10]]


def test_a_log_axis_leaves_out_what_is_not_positive() -> None:
    """Zero and negative values are gaps, and the labels stay real values."""
    chart = Chart("x", symbols=Symbols.ASCII, log_y=True)
    chart.show(series_of([0.0, 1.0, 10.0, 100.0, -5.0]))
    rows = chart.build_rows(40, 9)

    assert ("100", "1") == (rows[1][1:5].strip(), rows[-2][1:5].strip())


def test_a_log_axis_without_positive_values_says_so() -> None:
    """Words instead of an empty frame."""
    chart = Chart("x", log_y=True)
    chart.show(series_of([0.0, -1.0]))

    assert "no positive values" in chart.build_rows(40, 5)[1]


def test_words_for_nothing_and_for_nothing_finite() -> None:
    """An empty series and one of NaN are told apart."""
    chart = Chart("x")
    chart.show(Series())
    empty = chart.build_rows(40, 5)[1]
    chart.show(series_of([math.nan]))

    assert ("no data yet", "no finite values") == (
        empty.strip("│ "),
        chart.build_rows(40, 5)[1].strip("│ "),
    )


def test_control_characters_of_a_title_never_reach_the_screen() -> None:
    """A metric's name comes from a file."""
    chart = Chart("lo\x1b[2Jss\x07")
    chart.show(series_of([1.0]), "a\x1b]0;x\x07b")

    assert all(char.isprintable() for row in chart.build_rows(40, 5) for char in row)


def test_a_new_point_repaints_only_a_part() -> None:
    """Between two moves of the axis, most rows of the pane are not sent again."""

    async def run() -> tuple[int, int]:
        chart = Chart("loss")
        app = Host(chart)
        async with app.run_test(size=(80, 24)) as pilot:
            series = series_of(math.sin(step / 90) for step in range(1000))
            chart.show(series, "step 1-1000")
            await pilot.pause()
            asked: list[Region] = []
            whole = chart.refresh
            chart.refresh = lambda *regions, **_: asked.extend(regions)  # type: ignore[method-assign,assignment]
            series.add(1000, math.sin(1000 / 90))
            chart.show(series, "step 1-1001")
            chart.refresh = whole  # type: ignore[method-assign]
            return len(asked), sum(region.area for region in asked)

    num_regions, area = asyncio.run(run())

    assert 0 < num_regions <= 6
    assert area < 80 * 24 / 20


def test_the_screen_follows_data_and_size() -> None:
    """What is on the screen after a repaint in part is what a full repaint would give."""

    async def run() -> list[tuple[list[str], list[str]]]:
        chart = Chart("loss")
        app = Host(chart)
        seen = []
        async with app.run_test(size=(80, 24)) as pilot:
            series = Series()
            for step in range(400):
                series.add(step, math.sin(step / 9) + (3 if step == 77 else 0))
                if step % 80 == 0:
                    await pilot.resize_terminal(10 + step // 4, 3 + step // 20)
                if step % 16 == 0:
                    chart.show(series, f"step 1-{step}")
                    await pilot.pause()
                    lines = app.screen._compositor.render_strips(app.size)
                    seen.append(([line.text for line in lines], chart.build_rows(*chart.size)))
        return seen

    for on_screen, expected in asyncio.run(run()):
        assert expected == on_screen


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("abc", "abc", None),
        ("abcd", "aXXd", Region(1, 2, 2, 1)),
        ("│⡀│", "│⣿│", Region(1, 2, 1, 1)),
        ("日本", "日木", Region(0, 2, 4, 1)),
    ],
)
def test_the_changed_span_of_a_row(before: str, after: str, expected: Region | None) -> None:
    """Only differing cells are repainted; rows with wide characters whole."""
    assert expected == changed_span(before, after, 2)
