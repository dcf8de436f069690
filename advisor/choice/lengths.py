"""How long the rows of a data set are, as far as a batch's time depends on it.

A micro-batch is padded to its longest row, so more rows at once mean more padding. Lengths are
taken as log-normal around the median, which instruction data roughly are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from profiles.facts import TokenStats

_Z95: Final = 1.645
"""Standard deviations from the median to the 95th percentile."""
_EXPECTED_MAXIMUM: Final = (0.0, 0.564, 1.029, 1.424, 1.766, 2.070, 2.344)
"""Of 1, 2, 4 ... 64 standard normal draws (order statistics)."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of rows, cut at what is trained on."""

    mean: float
    median: float
    p95: float
    max: int

    @classmethod
    def of(cls, tokens: TokenStats, seq_len: int) -> Lengths:
        """The data set's, with rows cut at `seq_len`."""
        return cls(
            mean=min(max(1.0, tokens.mean), seq_len),
            median=min(max(1.0, tokens.median), seq_len),
            p95=min(max(1.0, tokens.p95), seq_len),
            max=min(tokens.max, seq_len),
        )

    def padded(self, micro_batch: int) -> int:
        """Expected tokens of the longest of `micro_batch` rows."""
        if micro_batch == 1:
            return max(1, round(self.mean))
        steps = math.log2(micro_batch)
        low = min(int(steps), len(_EXPECTED_MAXIMUM) - 2)
        near, far = _EXPECTED_MAXIMUM[low : low + 2]
        draws = near + (far - near) * min(1.0, steps - low)
        spread = math.log(max(self.p95, self.median) / self.median) / _Z95
        longest = self.median * math.exp(spread * draws)
        return max(1, min(self.max, round(max(longest, self.mean))))
