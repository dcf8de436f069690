"""Preference pairs: a chosen and a rejected reply, to a prompt under any of the names in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.alpaca import question
from profiles.data.formats.spec import Example, Field, Format, Message, RowError
from profiles.data.formats.values import (
    ending_with_a_reply,
    optional_text,
    text,
    turn,
    turns,
    with_system,
)

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    chosen, rejected = _replies(row, "chosen"), _replies(row, "rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        asked = _asked(row)
        if isinstance(asked, str):
            return Example(prompt=asked, completion=chosen, rejected=rejected)
        reply = Message(role="assistant", content=chosen)
        return with_system(row, [*asked, reply], rejected=rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError("have a text and turns in `chosen` and `rejected`")
    ending_with_a_reply(rejected)
    conversation = ending_with_a_reply(chosen)
    if len(conversation) == 1:
        asked = _asked(row)
        before = [Message(role="user", content=asked)] if isinstance(asked, str) else asked
        conversation = [*(one for one in before if one.content), *conversation]
    return with_system(row, conversation, rejected=rejected[-1].content)


def _replies(row: Row, key: str) -> str | list[Message]:
    """A reply as it is written: a text, one turn, or all turns that lead to it."""
    value = row.get(key)
    if isinstance(value, dict):
        return [turn(value, key, None)]
    return turns(row, key) if isinstance(value, list) else text(row, key)


def _asked(row: Row) -> str | list[Message]:
    """What both replies of a pair answer, under any of the names in use."""
    for key in ("conversations", "messages", "prompt"):
        if isinstance(row.get(key), list):
            return turns(row, key)
    return question(row) if "instruction" in row else optional_text(row, "prompt")


PREFERENCE = Format(
    name="preference",
    required=(Field(name="chosen", holds="either"), Field(name="rejected", holds="either")),
    optional=(
        Field(name="prompt", holds="either"),
        Field(name="conversations", holds="list"),
        Field(name="messages", holds="list"),
        Field(name="instruction"),
        Field(name="input"),
        Field(name="system"),
    ),
    read=_read,
    kind="preference",
    needs="preference training (DPO)",
    instead="give a file with one reply per row, for example the `chosen` replies as `output`",
)
