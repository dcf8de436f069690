"""What a person asks of a recommendation: the command line of `advisor recommend` as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from advisor.choice.answers import Answer, Answers, Complexity
from advisor.registry.lookup import proposed_task
from advisor.registry.tasks import SFT
from profiles.data import formats
from profiles.facts import Dataset, Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from profiles.data.dataset import OnBad
    from profiles.data.rendering import Learn


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers given on the command line; None where none was given."""

    task: str | None = None
    complexity: Complexity | None = None
    critical: bool | None = None
    value: bool | None = None
    quality: bool | None = None
    seq_len: int | None = None
    effective_batch: int | None = None
    domain: str | None = None
    on_bad: OnBad | None = None
    data_format: str | None = None
    encoding: str | None = None
    columns: Mapping[str, str] | None = None
    chat_template: str | None = None
    learn: Learn | None = None
    clean: dict[str, bool] | None = None
    mask: tuple[str, ...] | None = None
    split_by: str | None = None

    @property
    def read_with(self) -> dict[str, Any]:
        """How the data is read, by the keys of a recipe; those that were given."""
        keys = (
            *("on_bad", "encoding", "columns", "chat_template", "learn", "clean", "mask"),
            "split_by",
        )
        given = {"format": self.data_format} | {key: getattr(self, key) for key in keys}
        return {key: value for key, value in given.items() if value is not None}

    def answers(self, dataset: Dataset | None = None) -> Answers:
        """As the tree takes them, each with its origin: the data propose what nobody answered."""
        return Answers(
            task=self._task(dataset),
            complexity=Answer.of(self.complexity, "medium"),
            critical=Answer.of(self.critical, False),
            value=Answer.of(self.value, True),
            quality=Answer.of(self.quality, True),
            seq_len=_number(self.seq_len),
            effective_batch=_number(self.effective_batch),
            domain=None if self.domain is None else Answer(self.domain, Origin.USER),
        )

    def _task(self, dataset: Dataset | None) -> Answer[str]:
        if self.task is not None or dataset is None:
            return Answer.of(self.task, SFT.name)
        kind = formats.by_name(dataset.format).kind
        return Answer(proposed_task(kind).name, Origin.MEASURED)


def _number(asked: int | None) -> Answer[int] | None:
    return None if asked is None else Answer(asked, Origin.USER)


class Request(NamedTuple):
    """The whole command line; quicker to define than a dataclass."""

    model: str
    data: str | None
    gpu: str | None
    asked: Asked
    ram: str | None = None
    disk: str | None = None
    prices: tuple[float, ...] = ()
    save: str | None = None
    force: bool = False
    explain: bool = False
    rehearse: bool = False
    as_json: bool = False
