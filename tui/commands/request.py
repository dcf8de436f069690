"""What a person asks of a recommendation: the command line of `advisor recommend` as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from advisor.choice.wishes import Complexity, Wish, Wishes
from profiles.facts import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers given on the command line; None where none was given."""

    task: str = "sft"
    complexity: Complexity | None = None
    critical: bool | None = None
    value: bool | None = None
    quality: bool | None = None
    seq_len: int | None = None
    effective_batch: int | None = None

    def wishes(self) -> Wishes:
        """As the tree takes them, each with its origin."""
        return Wishes(
            task=Wish(self.task, Origin.DEFAULT if self.task == "sft" else Origin.USER),
            complexity=Wish.of(self.complexity, "medium"),
            critical=Wish.of(self.critical, False),
            value=Wish.of(self.value, True),
            quality=Wish.of(self.quality, True),
            seq_len=_number(self.seq_len),
            effective_batch=_number(self.effective_batch),
        )


def _number(asked: int | None) -> Wish[int] | None:
    return None if asked is None else Wish(asked, Origin.USER)


class Request(NamedTuple):
    """The whole command line; quicker to define than a dataclass."""

    model: str
    data: str | None
    gpu: str | None
    asked: Asked
    prices: tuple[float, ...] = ()
    save: Path | None = None
    explain: bool = False
    rehearse: bool = False
    as_json: bool = False
