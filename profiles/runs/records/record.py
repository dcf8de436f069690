"""What all records have in common: their head, their kind, and what they tell people.

A record is written and read by the same class. A new kind is a new subclass with its `kind`, and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from profiles.runs.records.form import WHOLE_LIMIT, MisfitError, form_of

_END_OF_TIME = 1e11
"""Seconds; what lies beyond is no date, and no machine runs for as long."""
_classes: dict[str, dict[str, type[Record]]] = {}
"""By kind, then by name: a dataclass with slots is made twice, and the second time counts."""


def _head(name: str, default: float, limit: float) -> Any:
    return field(default=default, metadata={"name": name, "limit": limit})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a file of records. As such: of a kind that this version does not know."""

    kind: ClassVar[str] = ""
    """Its name on the disk. Two files may use one name, if the fields tell their records apart."""
    ends: ClassVar[str] = ""
    """The kind whose notice this record ends."""

    seq: int = _head("seq", 0, WHOLE_LIMIT)
    """Number of the line; this and the following are the journal's to write."""
    attempt: int = _head("a", 0, WHOLE_LIMIT)
    unix_seconds: float = _head("t", 0.0, _END_OF_TIME)
    monotonic_seconds: float = _head("m", 0.0, _END_OF_TIME)
    """By the clock of the attempt's host, which nobody sets."""

    def __init_subclass__(cls) -> None:
        """Take the kind."""
        if "kind" in vars(cls):
            _classes.setdefault(cls.kind, {})[f"{cls.__module__}.{cls.__name__}"] = cls

    def content(self) -> dict[str, Any]:
        """Its own fields as JSON has them, without the head."""
        return form_of(type(self)).content(self)

    @property
    def reached(self) -> int:
        """The training step that it tells of; 0 if of none."""
        step: int = getattr(self, "step", 0)
        return step

    @property
    def words(self) -> str:
        """One sentence for people; empty for what programs alone need."""
        return ""

    @property
    def warning(self) -> str:
        """What a person should heed about it; empty if nothing is wrong."""
        return ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that is to be minded, a sentence each."""
        return (self.warning,) if self.warning else ()

    @property
    def notice(self) -> str:
        """What a person should know as long as it holds and the run lives; empty if nothing."""
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastingWarning(Record):
    """A warning that holds until something ends it, or the run: its own sentence, `what`."""

    @property
    def notice(self) -> str:
        """The sentence."""
        what: str = getattr(self, "what", "")
        return what

    @property
    def warning(self) -> str:
        """The same."""
        return self.notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Record):
    """Records that found no room, neither on the disk nor in memory (the journal itself)."""

    kind: ClassVar[str] = "dropped"

    count: int


def parse(content: Mapping[str, Any]) -> Record | None:
    """The record that a line of JSON holds; None if it does not fit its kind.

    Of a kind that is unknown only the head is kept.
    """
    kind = content.get("kind")
    if not isinstance(kind, str):
        return None
    for shape in _classes.get(kind, {}).values() or (Record,):
        try:
            return form_of(shape).read(content)
        except MisfitError:
            continue
    return None
