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


NOISE = [(5 if i % 7 else 9) + (i > 40) * 4 - i / 20 for i in range(90)]
DRAWN = {
    Symbols.BRAILLE: [
        "┌ loss  4.55 now ────────────┐",
        "│10.9          ⠨ ⡂⠠ ⡀⢀       │",
        "│     ⡂⠰ ⡄⢀    ⢸⡄⡂⢨⡀⡂⠨ ⠨ ⡂   │",
        "│     ⣢⢨⡀⡂⠨ ⠨ ⡂⣼⠧⣻⣸⡇⣿⢨⡀⢸⡄⣆   │",
        "│     ⢾⣸⡇⣿⢸⡄⢨⡀⣆⣺   ⠉⠉⠚⠓⠼⢧⣻⡀  │",
        "│   3   ⠈⠉⠙⠓⠪⠧⣻⡇             │",
        "└───────────────── step 0-89 ┘",
    ],
    Symbols.BLOCK: [
        "┌ loss  4.55 now ────────────┐",
        "│10.9          │ ││ │        │",
        "│     │ ││ │   │ ││ ││ ││    │",
        "│     ▄ ││ ││ │▄▄▀▀▄▄▄ ▄│    │",
        "│     │█▀▀▄▄▄ │█   ▀││▀│▀▄▄  │",
        "│   3    │▀││█▀│             │",
        "└───────────────── step 0-89 ┘",
    ],
    Symbols.ASCII: [
        "+ loss  4.55 now ------------+",
        "|10.9          | || |        |",
        "|     | || |   | || || ||    |",
        "|     . || || |..''... .|    |",
        "|     |:''... |:   '||'|'..  |",
        "|   3    |'||:'|             |",
        "+----------------- step 0-89 +",
    ],
}


@pytest.mark.parametrize("symbols", Symbols)
def test_a_noisy_curve(symbols: Symbols) -> None:
    """The mean as a line, minimum to maximum around it, in each set of characters."""
    chart = Chart("loss", symbols=symbols)
    chart.show(series_of(NOISE), "step 0-89")

    assert DRAWN[symbols] == chart.build_rows(30, 7)


def test_a_curve_on_a_log_axis() -> None:
    """Equal factors are equal distances; the labels are values."""
    chart = Chart("loss", symbols=Symbols.ASCII, log_y=True)
    chart.show(series_of(10 ** (i / 10) for i in range(41)), "x")

    assert [
        "+ loss  10 000 now --------------+",
        "|10k                     ...''   |",
        "|                   ...''|       |",
        "|              ..'''             |",
        "|        |..'''                  |",
        "|  1 ..'''                       |",
        "+----------------------------- x +",
    ] == chart.build_rows(34, 7)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (4, "+--+"),
        (5, "+ 3 +"),
        (9, "+ 3 ----+"),
        (10, "+ loss 3 +"),
        (28, "+ loss 3 ------------------+"),
        (29, "+ loss  3 now  2 not finite +"),
        (41, "+ loss  3 now  2 not finite ------------+"),
        (42, "+ loss  3 now  2 mean of 3  2 not finite +"),
    ],
)
def test_the_headline_says_what_there_is_room_for(width: int, expected: str) -> None:
    """The value first, then the title, then what was lost, then the mean."""
    chart = Chart("loss", symbols=Symbols.ASCII)
    chart.show(series_of([1, 2, math.nan, 3, math.inf]))

    assert expected == chart.build_rows(width, 3)[0]


@pytest.mark.parametrize(
    ("width", "expected"), [(4, "+--+"), (5, "+ s +"), (8, "+ step +"), (10, "+-- step +")]
)
def test_the_caption_is_cut_before_the_frame_is(width: int, expected: str) -> None:
    """It stands at the right end."""
    chart = Chart("x", symbols=Symbols.ASCII)
    chart.show(series_of([1, 2]), "step")

    assert expected == chart.build_rows(width, 3)[-1]


def test_the_mean_of_the_headline_is_of_recent_values() -> None:
    """As many as asked for."""
    chart = Chart("x", symbols=Symbols.ASCII, num_recent=2)
    chart.show(series_of([9, 9, 1, 2]))

    assert "+ x  2 now  1.5 mean of 2 ----+" == chart.build_rows(31, 3)[0]


@pytest.mark.parametrize(("width", "first"), [(15, "|"), (16, "|3")])
def test_a_narrow_chart_keeps_its_curve_and_drops_its_labels(width: int, first: str) -> None:
    """Twelve columns are the least beside them."""
    chart = Chart("x", symbols=Symbols.ASCII)
    chart.show(series_of([1, 2, 3]))
    row = chart.build_rows(width, 5)[1]

    assert row.startswith(first)
    assert ("3" in row) == (first == "|3")


def test_the_axis_moves_only_when_its_room_is_used_up() -> None:
    """An eighth is kept free; a run that goes on from an earlier step moves it back."""
    chart, series = Chart("x", symbols=Symbols.ASCII), series_of(range(9))
    ends = []
    for x in (8, 9, 10, 11, 12, 5, 4):
        series.add(x, x)
        chart.show(series)
        ends.append(chart._x_end)

    assert [9.0, 9.0, 11.25, 11.25, 13.5, 5.625, 5.625] == ends


def test_another_series_gets_an_axis_of_its_own() -> None:
    """Its first point is the left edge."""
    chart = Chart("x")
    chart.show(series_of(range(9)))
    chart.show(series_of(range(8)))

    assert 7 + 7 / 8 == chart._x_end


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


def test_a_frame_needs_three_cells_each_way() -> None:
    """Below that there is the headline alone."""
    chart = Chart("loss", symbols=Symbols.ASCII)
    chart.show(series_of([1, 2]))

    assert ["+-+", "|'|", "+-+"] == chart.build_rows(3, 3)
    assert [["2"], ["2"]] == [chart.build_rows(2, 3), chart.build_rows(3, 2)]


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


def test_a_chart_without_a_series_is_an_empty_frame() -> None:
    """Before anything is shown."""
    rows = Chart("loss", symbols=Symbols.ASCII).build_rows(20, 4)

    assert [
        "+ loss ------------+",
        "|   no data yet    |",
        "|                  |",
        "+------------------+",
    ] == rows


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
        ("日本", "ab", Region(0, 2, 4, 1)),
        ("ab", "日本語", Region(0, 2, 6, 1)),
        ("日本語", "a", Region(0, 2, 6, 1)),
        ("abc", "ab", Region(0, 2, 6, 1)),
        ("", "a", Region(0, 2, 2, 1)),
    ],
)
def test_the_changed_span_of_a_row(before: str, after: str, expected: Region | None) -> None:
    """Only differing cells are repainted; rows with wide characters whole."""
    assert expected == changed_span(before, after, 2)


@pytest.mark.parametrize(
    ("char", "is_narrow"),
    [
        *(("~", True), ("\u02ff", True), ("\u0300", False)),
        *(("\u200f", False), ("\u2010", True), ("\u2319", True), ("\u231a", False)),
        *(("\u24ff", False), ("\u2500", True), ("\u25fc", True), ("\u25fd", False)),
        *(("\u27ff", False), ("\u2800", True), ("\u28ff", True), ("\u2900", False)),
    ],
)
def test_what_charts_are_drawn_with_is_known_to_be_narrow(char: str, *, is_narrow: bool) -> None:
    """A row with any other character may have shifted, and is repainted whole."""
    expected = Region(2, 0, 1, 1) if is_narrow else Region(0, 0, 6, 1)

    assert expected == changed_span(f"a{char}b", f"a{char}c", 0)
    assert expected == changed_span("abc", f"ab{char}", 0)
