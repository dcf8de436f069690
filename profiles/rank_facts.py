"""The ranks of low-rank adapters, where they follow from the training or from the data."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.quantities import count_text


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRanks:
    """The adapters of all linears of one name."""

    name: str
    """Like "self_attn.q_proj"."""
    ranks: tuple[int, ...]
    """Layer by layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRanks:
    """Which adapter has which rank, and why."""

    full: int
    """What each of them began with, or would have had."""
    linears: tuple[LinearRanks, ...]
    rests_on: str
    """What decided, as a clause."""

    @property
    def words(self) -> str:
        """How much is left, and of what."""
        left = sum(sum(one.ranks) for one in self.linears)
        adapters = sum(len(one.ranks) for one in self.linears)
        return (
            f"{count_text(left)} of {count_text(self.full * adapters)} directions in "
            f"{count_text(adapters)} adapters, by {self.rests_on}"
        )
