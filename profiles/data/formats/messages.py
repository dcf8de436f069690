"""Messages: a list of turns under `messages`, as OpenAI's interface takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format
from profiles.data.formats.turns import CHAT_FIELDS, chat, ending_with_a_reply, parsed, turns

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    row = parsed(row, "messages")
    return chat(row, ending_with_a_reply(turns(row, "messages")), "messages")


MESSAGES = Format(
    name="messages",
    required=(Field(name="messages", aliases=("chat", "turns"), holds="list"),),
    optional=CHAT_FIELDS,
    read=_read,
    is_chat=True,
)
