"""A prompt and its completion: plain texts without turns, or turns of one chat."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from profiles.data.formats.spec import Example, Field, Format, Message
from profiles.data.formats.turns import CHAT_FIELDS, chat, ending_with_a_reply, plain, turns
from profiles.data.formats.values import text

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def _read(row: Row) -> Example:
    if isinstance(row.get("prompt"), list) or isinstance(row.get("completion"), list):
        return _chat(row)
    return plain(row, prompt=text(row, "prompt"), completion=text(row, "completion"))


def _chat(row: Row) -> Example:
    """The completion alone is learnt, as TRL does it: replies in the prompt are only read."""
    asked = [
        replace(one, is_learnt=False) if one.role == "assistant" else one
        for one in _turns(row, "prompt", "user")
    ]
    reply = ending_with_a_reply(_turns(row, "completion", "assistant"))
    return chat(row, [*asked, *reply], "prompt", "completion")


def _turns(row: Row, key: str, role: Literal["user", "assistant"]) -> list[Message]:
    """Turns, or a text that is one."""
    if isinstance(row.get(key), list):
        return turns(row, key)
    return [Message(role=role, content=text(row, key))]


PROMPT_COMPLETION = Format(
    name="prompt_completion",
    required=(
        Field(name="prompt", near=("input", "source"), holds="either"),
        Field(name="completion", near=("response", "answer", "target"), holds="either"),
    ),
    optional=CHAT_FIELDS,
    read=_read,
)
