"""A prompt and its completion, as plain texts without turns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format
from profiles.data.formats.values import text

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    return Example(prompt=text(row, "prompt"), completion=text(row, "completion"))


PROMPT_COMPLETION = Format(
    name="prompt_completion",
    required=(
        Field(name="prompt", aliases=("input", "source"), holds="either"),
        Field(name="completion", aliases=("response", "answer", "target")),
    ),
    read=_read,
)
