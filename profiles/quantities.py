"""How counts, durations, bytes and shares are written for people: in records, runs and pages.

What is unknown (None) or not finite is called so, never shown as a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

UNKNOWN = "unknown"


def bytes_text(num_bytes: float | None) -> str:
    """18.4 GiB."""
    if num_bytes is None or not math.isfinite(num_bytes):
        return UNKNOWN
    if round(abs(num_bytes)) < 1024:
        return f"{num_bytes:.0f} B"
    value = float(num_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if round(abs(value), 1) < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def count_text(number: float | None) -> str:
    """12 400, grouped by a plain space."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    return f"{round(number):,}".replace(",", " ")


def some_of(names: Sequence[str], most: int = 5, *, between: str = ", ") -> str:
    """a, b, c and 12 more."""
    shown, more = between.join(names[:most]), len(names) - most
    return f"{shown}{between.strip(' ,')} and {count_text(more)} more" if more > 0 else shown


def duration_text(seconds: float | None) -> str:
    """0.35 s, 42 s, 5 m 3 s, 1 h 12 m, 3 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if 0 < seconds < 0.995:
        return f"{sign}{seconds:.2g} s"
    # Rounded to the smaller unit first, so that 2 h is never written as 1 h 60 m.
    whole, minutes, hours = round(seconds), round(seconds / 60), round(seconds / 3600)
    if whole < 60:
        return f"{sign}{whole} s"
    if whole < 3600:
        return f"{sign}{whole // 60} m {whole % 60} s"
    if minutes < 24 * 60:
        return f"{sign}{minutes // 60} h {minutes % 60} m"
    return f"{sign}{hours // 24} d {hours % 24} h"


def percent_text(share: float | None) -> str:
    """31 % for 0.31; nearly nothing is not 0 %, and nearly all is not 100 %."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    percent = share * 100
    if percent > 0 and not round(percent):
        return "<1 %"
    if percent < 100 and round(percent) == 100:
        return ">99 %"
    return f"{percent:.0f} %"


def value_text(value: float | None) -> str:
    """Write a value of unknown kind to three figures or whole: 2.31, 0.000125, 11 840."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if 1000 <= abs(value) < 1e9:
        return count_text(value)
    return f"{value:.3g}"


def short_text(value: float) -> str:
    """Write a value for a narrow axis label: 2.31, 11.8k, 3.2M, 1e-05."""
    for limit, divisor, letter in ((1e3, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")):
        figures = f"{value / divisor:.3g}"
        if abs(float(figures)) < limit / divisor:
            return f"{figures}{letter}"
    return f"{value:.1e}"
