"""ShareGPT: turns with `from` and `value` under `conversations`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format
from profiles.data.formats.values import SHAREGPT_STYLE, ending_with_a_reply, turns, with_system

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    return with_system(row, ending_with_a_reply(turns(row, "conversations", SHAREGPT_STYLE)))


SHAREGPT = Format(
    name="sharegpt",
    required=(
        Field(name="conversations", aliases=("conversation", "dialogue", "dialog"), holds="list"),
    ),
    optional=(Field(name="system"),),
    read=_read,
    is_chat=True,
)
