"""Long series of numbers in constant memory, ready to be drawn.

A `Series` keeps at most 512 buckets of (min, max, mean) over x, however long the run. When they
are full, neighbours merge and every later bucket holds twice as many points. A value that is not a
number is a gap: it shows as an empty column when nothing else fell into that column, and it is
always counted in `num_not_finite`. Nothing here knows about a screen.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import islice
from typing import NamedTuple

MAX_BUCKETS = 512
LARGEST = 1e290
"""Larger magnitudes count as not finite, so that sums of a bucket cannot overflow."""


class Column(NamedTuple):
    """What one screen column shows."""

    low: float
    high: float
    mean: float


class _Bucket(NamedTuple):
    first_x: float
    last_x: float
    low: float
    high: float
    total: float
    num_values: int
    """Finite values; 0 makes the bucket a gap."""


def _merged(left: _Bucket, right: _Bucket) -> _Bucket:
    low, high = min(left.low, right.low), max(left.high, right.high)
    total, count = left.total + right.total, left.num_values + right.num_values
    return _Bucket(left.first_x, right.last_x, low, high, total, count)


class Series:
    """Values over x, where x (a step or a time) grows; going back replaces what was there."""

    def __init__(self, *, num_recent: int = 1000) -> None:
        self._closed: list[_Bucket] = []
        self._points_per_bucket = 1
        self._recent: deque[float] = deque(maxlen=num_recent)
        self.num_not_finite = 0
        self.last: float | None = None
        """The newest value that is a number."""
        self._last_x = float("-inf")
        self._open_bucket()

    def _open_bucket(self) -> None:
        self._first_x = 0.0
        self._low, self._high = float("inf"), float("-inf")
        self._total = 0.0
        self._count = 0
        self._num_in_bucket = 0

    def add(self, x: float, value: float) -> None:
        """Append a point. An x before the last one (a resumed run) drops the points from x on."""
        if not self._last_x <= x < LARGEST:
            self._rewind(x)
        if not self._num_in_bucket:
            self._first_x = x
        self._last_x = x
        self._num_in_bucket += 1
        if -LARGEST < value < LARGEST:
            # Not min() and max(): this runs once for every logged step of a long run.
            if value < self._low:  # noqa: PLR1730
                self._low = value
            if value > self._high:  # noqa: PLR1730
                self._high = value
            self._total += value
            self._count += 1
            self.last = value
            self._recent.append(value)
        else:
            self.num_not_finite += 1
        if self._num_in_bucket >= self._points_per_bucket:
            self._close_bucket()

    def _close_bucket(self) -> None:
        self._closed.append(self._current())
        self._open_bucket()
        if len(self._closed) == MAX_BUCKETS:
            pairs = zip(self._closed[::2], self._closed[1::2], strict=True)
            self._closed = [_merged(left, right) for left, right in pairs]
            self._points_per_bucket *= 2

    def _current(self) -> _Bucket:
        return _Bucket(self._first_x, self._last_x, self._low, self._high, self._total, self._count)

    def _rewind(self, x: float) -> None:
        if not -LARGEST < x < LARGEST:
            raise ValueError(f"x must be a finite number, got {x!r}")
        kept = [bucket for bucket in self._buckets() if bucket.first_x < x]
        # The bucket in which x falls stays: its older points cannot be told from its newer ones.
        if kept and kept[-1].last_x > x:
            kept[-1] = kept[-1]._replace(last_x=x)
        # One of them may have been the open bucket: room for the next one must stay.
        self._closed = kept[: MAX_BUCKETS - 1]
        self._open_bucket()
        self._recent.clear()

    def _buckets(self) -> list[_Bucket]:
        if not self._num_in_bucket:
            return list(self._closed)
        return [*self._closed, self._current()]

    @property
    def num_buckets(self) -> int:
        """Buckets in use, at most 512."""
        return len(self._closed) + (self._num_in_bucket > 0)

    @property
    def x_range(self) -> tuple[float, float] | None:
        """First and last x, or None while empty."""
        if not self.num_buckets:
            return None
        first = self._closed[0].first_x if self._closed else self._first_x
        return first, self._last_x

    @property
    def num_recent(self) -> int:
        """Newest values kept for `mean_of_last`."""
        return len(self._recent)

    def means(self) -> list[tuple[float, float]]:
        """The middle and the mean of each bucket; gaps are left out."""
        found = [bucket for bucket in self._buckets() if bucket.num_values]
        return [((b.first_x + b.last_x) / 2, b.total / b.num_values) for b in found]

    def mean_of_last(self, num_values: int) -> float | None:
        """Mean of the newest values that are numbers, of fewer if there are fewer."""
        newest = list(islice(reversed(self._recent), num_values))
        return sum(newest) / len(newest) if newest else None

    def columns(
        self, num_columns: int, *, x_end: float | None = None, log: bool = False
    ) -> list[Column | None]:
        """Spread the series over screen columns, from its first x to `x_end` (or its last x).

        None is a column without data: inside a gap, or right of the last point. Columns between
        two neighbouring points get the straight line between them. With `log` the columns hold
        base-10 logarithms, and what is not above zero is a gap.
        """
        x_range = self.x_range
        if x_range is None or num_columns < 1:
            return [None] * max(0, num_columns)
        first, last = x_range
        width = max(last, x_end if x_end is not None else last) - first
        scale = (num_columns - 1) / width if width > 0 else 0.0
        sums: list[_Bucket | None] = [None] * num_columns
        before: tuple[int, float] | None = None
        for linear in self._buckets():
            bucket = _logarithm(linear) if log else linear
            if not bucket.num_values:
                before = None
                continue
            left = round((bucket.first_x - first) * scale)
            right = round((bucket.last_x - first) * scale)
            # A bucket across one edge goes to one side, or its spike would be drawn twice.
            if right - left == 1:
                left = right = round(((bucket.first_x + bucket.last_x) / 2 - first) * scale)
            mean = bucket.total / bucket.num_values
            if before is not None:
                _draw_line(sums, before, (left, mean))
            for index in range(left, right + 1):
                there = sums[index]
                sums[index] = bucket if there is None else _merged(there, bucket)
            before = right, mean
        return [None if part is None else _column(part) for part in sums]


def _logarithm(bucket: _Bucket) -> _Bucket:
    mean = bucket.total / bucket.num_values if bucket.num_values else 0.0
    if mean <= 0:
        return bucket._replace(num_values=0)
    middle = math.log10(mean)
    # A minimum at or below zero has no place on the axis; the column then ends at the mean.
    low = math.log10(bucket.low) if bucket.low > 0 else middle
    count = bucket.num_values
    return bucket._replace(low=low, high=math.log10(bucket.high), total=middle * count)


def _draw_line(
    sums: list[_Bucket | None], start: tuple[int, float], end: tuple[int, float]
) -> None:
    """Fill the columns strictly between two points."""
    (left, left_value), (right, right_value) = start, end
    for index in range(left + 1, right):
        share = (index - left) / (right - left)
        value = left_value + (right_value - left_value) * share
        value = min(max(value, min(left_value, right_value)), max(left_value, right_value))
        sums[index] = _Bucket(
            first_x=0.0, last_x=0.0, low=value, high=value, total=value, num_values=1
        )


def _column(bucket: _Bucket) -> Column:
    # Rounding of the sum may put the mean a hair outside.
    mean = min(max(bucket.total / bucket.num_values, bucket.low), bucket.high)
    return Column(bucket.low, bucket.high, mean)
