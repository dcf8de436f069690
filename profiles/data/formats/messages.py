"""Messages: turns with `role` and `content`, as OpenAI's interface takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format
from profiles.data.formats.values import OPENAI_STYLE, ending_with_a_reply, turns

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    return Example(messages=tuple(ending_with_a_reply(turns(row, "messages", OPENAI_STYLE))))


MESSAGES = Format(
    name="messages",
    required=(Field(name="messages", aliases=("chat", "turns"), holds="list"),),
    read=_read,
    is_chat=True,
)
