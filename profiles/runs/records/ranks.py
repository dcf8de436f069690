"""A record of events.runner.jsonl: the ranks of low-rank adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiles.rank_facts import AdapterRanks
from profiles.runs.records.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks(Record):
    """The ranks are final, or those of the weights that are published."""

    kind: ClassVar[str] = "ranks"

    step: int
    """After which they are so."""
    adapters: AdapterRanks

    @property
    def words(self) -> str:
        """How much is left, and of what."""
        return f"ranks after step {self.step}: {self.adapters.words}"
