"""Plain texts, every token of which is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format
from profiles.data.formats.values import text

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    return Example(text=text(row, "text"))


TEXT = Format(
    name="text",
    required=(Field(name="text", near=("content", "document", "body")),),
    read=_read,
    kind="text",
)
