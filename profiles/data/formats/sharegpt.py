"""ShareGPT: a list of turns under `conversations`, or of questions with their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format
from profiles.data.formats.turns import CHAT_FIELDS, chat, ending_with_a_reply, parsed, turns

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    row = parsed(row, "conversations")
    return chat(row, ending_with_a_reply(turns(row, "conversations")), "conversations")


SHAREGPT = Format(
    name="sharegpt",
    required=(
        Field(name="conversations", aliases=("conversation", "dialogue", "dialog"), holds="list"),
    ),
    optional=CHAT_FIELDS,
    read=_read,
    is_chat=True,
)
