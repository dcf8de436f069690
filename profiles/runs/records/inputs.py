"""Records of events.runner.jsonl: what a run depends on is not what it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiles.quantities import some_of
from profiles.run_facts import Parent
from profiles.runs.records.record import LastingWarning, Record

_MOST_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunWith(Record):
    """Training begins with what other runs have published."""

    kind: ClassVar[str] = "begun_with"

    parents: tuple[Parent, ...]

    @property
    def words(self) -> str:
        """Which."""
        return "begins with " + " and ".join(one.words for one in self.parents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift(Record):
    """Something that the result depends on is not what the first attempt had."""

    kind: ClassVar[str] = "drift"

    changed: tuple[str, ...]
    """Like "train.seed was 0, is 7"."""

    @property
    def warning(self) -> str:
        """The first names."""
        return "changed since the run began: " + some_of(self.changed, _MOST_NAMES, between="; ")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsTouched(LastingWarning):
    """Files of the data or the model were written while the run works with what it read."""

    kind: ClassVar[str] = "inputs_touched"

    step: int
    names: tuple[str, ...]

    @property
    def what(self) -> str:
        """Which, and what it means."""
        return (
            f"{some_of(self.names, _MOST_NAMES)} changed while the run works: its weights go "
            "with the files as they were"
        )
