"""Texts with a label each: a word, or a whole number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format, RowError
from profiles.data.formats.values import text

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, int):
        label = text(row, "label")
        if not label.strip():
            raise RowError("lack `label`")
    return Example(text=text(row, "text"), label=str(label))


CLASSIFICATION = Format(
    name="classification",
    required=(Field(name="text"), Field(name="label")),
    read=_read,
    kind="label",
    needs="training of a classifier",
    instead='name the task: `--task classify`, in a recipe `task = "classify"`; or, to learn the '
    'texts themselves, without the labels, set the format to "text" (--format text)',
)
