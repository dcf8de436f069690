"""Numbers as people read them."""

from __future__ import annotations

import pytest

from profiles.quantities import (
    bytes_text,
    count_text,
    duration_text,
    percent_text,
    short_text,
    value_text,
)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (None, "unknown"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (18.4 * 1024**3, "18.4 GiB"),
        (-(1024**3), "-1.0 GiB"),
        (5000 * 1024**4, "5000.0 TiB"),
        (1023.4, "1023 B"),
        (1023.6, "1.0 KiB"),
        (1023.9 * 1024, "1023.9 KiB"),
        (1023.96 * 1024, "1.0 MiB"),
        (1023.9 * 1024**3, "1023.9 GiB"),
        (float("inf"), "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_bytes_text(number: float | None, expected: str) -> None:
    """Binary units with one decimal, never 1024.0 of one."""
    assert expected == bytes_text(number)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        *((None, "unknown"), (float("inf"), "unknown"), (0, "0"), (999, "999"), (999.6, "1 000")),
        *((12400, "12 400"), (-1234567, "-1 234 567")),
    ],
)
def test_count_text(number: float | None, expected: str) -> None:
    """Groups of three, parted by a plain space."""
    assert expected == count_text(number)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "unknown"),
        (0, "0 s"),
        (0.352, "0.35 s"),
        (0.9949, "0.99 s"),
        (0.995, "1 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 m 0 s"),
        (303, "5 m 3 s"),
        (3599.4, "59 m 59 s"),
        (3599.7, "1 h 0 m"),
        (4320, "1 h 12 m"),
        (7199, "2 h 0 m"),
        (86340, "23 h 59 m"),
        (86399, "1 d 0 h"),
        (273600, "3 d 4 h"),
        (-42, "-42 s"),
        (-0.5, "-0.5 s"),
        (-90, "-1 m 30 s"),
        (-4320, "-1 h 12 m"),
        (-273600, "-3 d 4 h"),
        (float("inf"), "unknown"),
    ],
)
def test_duration_text(seconds: float | None, expected: str) -> None:
    """Two units at most, and no 60 of the smaller one."""
    assert expected == duration_text(seconds)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (None, "unknown"),
        (0, "0 %"),
        (0.004, "<1 %"),
        (0.005, "<1 %"),
        (0.006, "1 %"),
        (-0.3, "-30 %"),
        (0.31, "31 %"),
        (0.994, "99 %"),
        (0.995, ">99 %"),
        (0.999, ">99 %"),
        (1, "100 %"),
        (float("nan"), "unknown"),
        (1.2, "120 %"),
    ],
)
def test_percent_text(share: float | None, expected: str) -> None:
    """Nearly nothing and nearly all are not rounded away."""
    assert expected == percent_text(share)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "unknown"),
        (2.3149, "2.31"),
        (0.000125, "0.000125"),
        (11840.2, "11 840"),
        (999.4, "999"),
        (1000.0, "1 000"),
        (-2000.0, "-2 000"),
        (1e9, "1e+09"),
        (3e12, "3e+12"),
        (float("inf"), "unknown"),
    ],
)
def test_value_text(value: float | None, expected: str) -> None:
    """Three figures, thousands grouped."""
    assert expected == value_text(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.3149, "2.31"),
        (999.96, "1k"),
        (999.6, "1k"),
        (-999_600, "-1M"),
        (998.9, "999"),
        (1000, "1k"),
        (11840, "11.8k"),
        (1e6, "1M"),
        (-3.2e6, "-3.2M"),
        (998.9e6, "999M"),
        (1e9, "1.0e+09"),
        (1e-5, "1e-05"),
        (4e11, "4.0e+11"),
    ],
)
def test_short_text(value: float, expected: str) -> None:
    """Axis labels stay narrow."""
    assert expected == short_text(value)
