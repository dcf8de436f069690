"""The series store: constant memory, honest gaps, columns that add up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.store import LARGEST, MAX_BUCKETS, Column, Series


def filled(*values: float) -> Series:
    """Make a series with x = 0, 1, 2 ..."""
    series = Series()
    for x, value in enumerate(values):
        series.add(x, value)
    return series


def test_an_empty_series_has_nothing_to_show() -> None:
    """Without points there is no last value, no mean, no range and no column."""
    series = Series()

    assert (None, None, None, [None] * 3) == (
        series.last,
        series.mean_of_last(10),
        series.x_range,
        series.columns(3),
    )


def test_a_column_keeps_min_max_and_mean_of_its_points() -> None:
    """Points that share a column are reduced, and the spike among them survives."""
    series = filled(1, 1, 9, 1, 5, 5)

    assert [Column(1, 9, 11 / 3), Column(1, 5, 11 / 3)] == series.columns(2)


def test_a_spike_survives_a_million_points() -> None:
    """However often neighbours merge, the largest value stays visible, in 512 buckets at most."""
    series = Series()
    for step in range(1_000_000):
        series.add(step, 1000.0 if step == 123_456 else 1.0)
    highs = [column.high for column in series.columns(80) if column is not None]

    assert (1000.0, 1) == (max(highs), highs.count(1000.0))
    assert MAX_BUCKETS >= series.num_buckets


def test_columns_between_two_sparse_points_are_the_straight_line() -> None:
    """Fewer points than columns give a line without holes."""
    assert [Column(v, v, v) for v in (0, 1, 2, 3, 4)] == filled(0, 4).columns(5)


def test_a_gap_of_nan_stays_empty() -> None:
    """No line is drawn across a value that is not a number, and it is counted."""
    series = filled(1, math.nan, 1)
    columns = series.columns(5)

    assert [True, False, False, False, True] == [column is not None for column in columns]
    assert (1, 1) == (series.num_not_finite, series.last)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e300])
def test_one_bad_value_does_not_poison_the_rest(value: float) -> None:
    """Infinity, NaN and absurd magnitudes leave limits and means alone."""
    assert [Column(1, 3, 2)] == filled(1, value, 3).columns(1)


def test_only_nan_gives_no_columns() -> None:
    """A run that diverged at once has a range but no values."""
    series = filled(math.nan, math.nan)

    assert ([None, None], (0, 1), None) == (series.columns(2), series.x_range, series.last)


def test_points_at_one_x_share_one_column() -> None:
    """A series without width is drawn in its first column."""
    series = Series()
    series.add(7, 1.0)
    series.add(7, 3.0)

    assert [Column(1, 3, 2), None] == series.columns(2)


def test_columns_right_of_the_last_point_are_empty() -> None:
    """A later end of the axis leaves room."""
    assert [Column(1, 1, 1), Column(2, 2, 2), None, None] == filled(1, 2).columns(4, x_end=3)


def test_a_resumed_run_replaces_what_it_repeats() -> None:
    """Going back in x drops the points from there on, for columns and for the recent mean."""
    series = filled(1, 1, 1, 50, 50)
    series.add(3, 2.0)

    assert (0, 3) == series.x_range
    assert (2.0, 2) == (series.mean_of_last(10), max(c.high for c in series.columns(4) if c))


def test_the_recent_mean_takes_only_the_newest_numbers() -> None:
    """NaN among the newest values is skipped."""
    assert 3.5 == filled(100, 3, math.nan, 4).mean_of_last(2)


def test_buckets_merge_in_pairs_when_they_are_full() -> None:
    """From then on each holds twice as many points, the open one too."""
    series = filled(*[1.0] * (MAX_BUCKETS - 1))
    counts = [series.num_buckets]
    for x in range(MAX_BUCKETS - 1, MAX_BUCKETS + 3):
        series.add(x, 1.0)
        counts.append(series.num_buckets)

    assert [511, 256, 257, 257, 258] == counts
    assert (0, 514) == series.x_range


def test_the_newest_values_are_kept_up_to_a_number() -> None:
    """For the recent mean; older ones are only in the columns."""
    series = Series(num_recent=3)
    for x, value in enumerate([9.0, 1.0, 2.0, 3.0]):
        series.add(x, value)

    assert (3, 2.0, 2.5) == (series.num_recent, series.mean_of_last(10), series.mean_of_last(2))


def test_a_value_at_the_limit_is_none() -> None:
    """Sums of a bucket must not overflow."""
    series = filled(LARGEST, -LARGEST, 5)

    assert (2, 5) == (series.num_not_finite, series.last)


def test_an_axis_that_ends_before_the_last_point_is_not_believed() -> None:
    """No point is drawn outside."""
    assert filled(1, 2, 3).columns(3) == filled(1, 2, 3).columns(3, x_end=1)


def test_no_columns_are_none() -> None:
    """A pane without room."""
    assert ([], []) == (filled(1, 2).columns(0), filled(1, 2).columns(-3))


def test_a_single_column_holds_everything() -> None:
    """However wide the series is."""
    assert [Column(1, 6, 3)] == filled(1, 2, 6).columns(1)


def test_columns_on_a_log_axis_hold_logarithms() -> None:
    """Of the mean, and of a minimum that has one; what is not above zero is a gap."""
    assert [Column(0, 0, 0), Column(1, 1, 1), Column(2, 2, 2)] == filled(1, 10, 100).columns(
        3, log=True
    )
    assert [None, Column(0, 0, 0)] == filled(0, 1).columns(2, log=True)
    doubled = filled(*[1.0, 99.0] * (MAX_BUCKETS // 2)).columns(1, log=True)
    assert [Column(0, math.log10(99), pytest.approx(math.log10(50)))] == doubled
    merged = filled(*[-100.0, 300.0] * (MAX_BUCKETS // 2))
    assert [Column(2, math.log10(300), 2)] == merged.columns(1, log=True)


def test_a_point_between_two_columns_is_drawn_once() -> None:
    """A bucket across an edge goes to the side of its middle."""
    series = Series()
    for x in range(MAX_BUCKETS):
        series.add(x, 9.0 if x == 255 else 1.0)
    highs = [column.high if column else None for column in series.columns(3)]

    assert [1, 9, 1] == highs


def test_the_line_between_two_merged_buckets_joins_their_means() -> None:
    """Not their sums: a bucket of two points is as high as the mean of both."""
    series = filled(*[8.0] * MAX_BUCKETS)
    for x in range(10_000, 10_000 + MAX_BUCKETS):
        series.add(x, 2.0)
    between = [column for column in series.columns(1000)[100:900] if column is not None]

    assert len(between) == 800
    assert all(2.0 < column.mean < 8.0 for column in between)


def test_what_a_resumed_run_repeats_leaves_what_came_before() -> None:
    """The bucket in which it starts ends there."""
    series = filled(*range(2 * MAX_BUCKETS))
    series.add(102, 5.0)

    assert ((0, 102), 27) == (series.x_range, series.num_buckets)
    assert [Column(100, 103, 101.5), Column(5, 103, 82.2)] == series.columns(103)[-2:]


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_x_must_be_finite(x: float) -> None:
    """A point without a place is refused."""
    with pytest.raises(ValueError, match="finite"):
        filled(1).add(x, 1.0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats()), min_size=1, max_size=1500),
    st.integers(1, 300),
)
def test_columns_never_leave_the_range_of_the_values(
    points: list[tuple[int, float]], num_columns: int
) -> None:
    """Whatever is added, columns are ordered inside and keep the extremes."""
    series, x, kept = Series(), 0, []
    for distance, value in points:
        x += distance
        series.add(x, value)
        if abs(value) < 1e290:
            kept.append(value)
    columns = [column for column in series.columns(num_columns) if column is not None]

    assert all(column.low <= column.mean <= column.high for column in columns)
    assert (min(kept, default=0), max(kept, default=0)) == (
        min((column.low for column in columns), default=0),
        max((column.high for column in columns), default=0),
    )


@given(st.lists(st.integers(0, 2000), max_size=3000))
def test_any_order_of_x_keeps_the_bounds(steps: list[int]) -> None:
    """Rewinding anywhere keeps at most 512 buckets and ends at the newest x."""
    series = Series()
    for step in steps:
        series.add(step, 1.0)

    assert MAX_BUCKETS >= series.num_buckets
    assert (steps[-1] if steps else None) == (series.x_range[1] if series.x_range else None)
