"""Whether a difference is more than chance: a paired bootstrap over rows, in plain Python.

Percentile intervals (Efron and Tibshirani 1993, ch. 13) with the levels widened for few rows
(Hesterberg 2015, doi:10.1080/00031305.2015.1089789, "expanded percentile").
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

LEVEL: Final = 0.95
_RESAMPLES: Final = 2000
_MOST_UNITS: Final = 1000
"""More rows are drawn in groups, so that the time is bounded."""
_FEWEST_ROWS: Final = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """How much lower the second of two losses is, with the ends of its interval."""

    low: float
    value: float
    high: float

    @property
    def ends(self) -> tuple[float, float, float]:
        """Low, value and high, as records keep them."""
        return self.low, self.value, self.high

    @property
    def is_clear(self) -> bool:
        """The interval holds no zero: chance alone would hardly do it."""
        return self.low > 0 or self.high < 0


def paired(
    before: Sequence[float], after: Sequence[float], tokens: Sequence[int]
) -> Difference | None:
    """The loss of the same rows before less after, per token, with a 95 % interval.

    `before`, `after`: mean loss of each row; `tokens`: how many it has that count. None for fewer
    than two rows with tokens, or where a loss is not finite. The same input gives the same answer.
    """
    rows = [(b - a, n) for b, a, n in zip(before, after, tokens, strict=True) if n > 0]
    if len(rows) < _FEWEST_ROWS or not all(math.isfinite(change) for change, _ in rows):
        return None
    # A complex number adds both sums of the ratio at once.
    units = _grouped([complex(change * n, n) for change, n in rows])
    whole, chance = sum(units), random.Random(0)  # noqa: S311  # no secret
    value = whole.real / whole.imag
    drawn = (sum(chance.choices(units, k=len(units))) for _ in range(_RESAMPLES))
    means = sorted(total.real / total.imag for total in drawn)
    tail = _tail(len(units))
    low, high = _quantile(means, tail), _quantile(means, 1 - tail)
    return Difference(min(low, value), value, max(high, value))


def _grouped(rows: list[complex]) -> list[complex]:
    """At most so many units: every n-th row is added to one."""
    size = min(len(rows), _MOST_UNITS)
    return [sum(rows[first::size], 0j) for first in range(size)]


def _tail(units: int) -> float:
    """Share of the resamples below the interval: that of Student's t, for a larger spread."""
    freedom = units - 1
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    wide = math.sqrt(units / freedom) * _student(z, freedom)
    return NormalDist().cdf(-wide)


def _student(z: float, freedom: int) -> float:
    """Quantile of Student's t from the normal one (Abramowitz and Stegun 26.7.5)."""
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** n for n, term in enumerate(terms, 1))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Between the two nearest values."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
