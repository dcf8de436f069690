"""The record of events.runner.jsonl that tells whether rows are packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from profiles.runs.records.form import LEFT_OUT
from profiles.runs.records.record import LastingWarning


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing(LastingWarning):
    """Whether documents packed into one row stay apart, as measured on the model; decided once."""

    kind: ClassVar[str] = "packing"

    apart: bool
    """They do, so rows are packed."""
    difference: float | None = field(default=None, metadata=LEFT_OUT)
    """Largest, of a document's logits behind another one to its logits alone."""
    rounding: float | None = field(default=None, metadata=LEFT_OUT)
    """The same where it stands before the other one, which no token of it can read."""
    what: str = ""
    """Why rows are not packed; empty if they are."""

    @property
    def words(self) -> str:
        """That they are packed; of the contrary it warns."""
        if not self.apart or self.difference is None:
            return ""
        return f"packed documents stay apart: logits as alone within {self.difference:.0e}"
