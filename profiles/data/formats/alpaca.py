"""Alpaca: an instruction with its output, and what came before it in `history`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.formats.spec import Example, Field, Format, Message, RowError
from profiles.data.formats.turns import CHAT_FIELDS, chat, turns_of
from profiles.data.formats.values import optional_text, text, type_error

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def question(row: Row) -> str:
    """The instruction, and the input on a line of its own where there is one."""
    return "\n".join(filter(None, (text(row, "instruction"), optional_text(row, "input"))))


def _read(row: Row) -> Example:
    messages = _history(row)
    messages.append(Message(role="user", content=question(row)))
    messages.append(Message(role="assistant", content=text(row, "output")))
    return chat(row, messages, "history")


def _history(row: Row) -> list[Message]:
    history = row.get("history") or []
    if not isinstance(history, list):
        raise type_error(history, "history", list)
    messages = []
    for pair in history:
        match pair:
            case [user, assistant]:
                turn = {"user": user, "assistant": assistant}
            case dict():
                messages += turns_of(pair, "history")
                continue
            case _:
                raise RowError("have an entry in `history` that is not [user, assistant]")
        inside = " of a pair in `history`"
        messages.append(Message(role="user", content=text(turn, "user", inside)))
        messages.append(Message(role="assistant", content=text(turn, "assistant", inside)))
    return messages


ALPACA = Format(
    name="alpaca",
    required=(
        Field(name="instruction", aliases=("query", "question", "prompt")),
        Field(name="output", aliases=("response", "answer")),
    ),
    optional=(
        Field(name="input", aliases=("context",)),
        *CHAT_FIELDS,
        Field(name="history", holds="list"),
    ),
    read=_read,
    is_chat=True,
)
