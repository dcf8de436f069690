"""The texts and turns inside a row, checked; every format reads its rows with these.

Decides how roles are named and what counts as a fault of a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from profiles.data.formats.spec import Example, Message, RowError
from profiles.data.words import printable, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from profiles.data.formats.spec import Role, Row


def type_error(value: object, key: str, wanted: type, inside: str = "") -> RowError:
    """The fault of a value that is missing or of another type; `inside` says where the key is."""
    if value is None:
        return RowError(f"lack `{key}`{inside}")
    is_nan = isinstance(value, float) and math.isnan(value)
    found = "NaN" if is_nan else type_name(type(value))
    return RowError(f"have {found} in `{key}`{inside}, not {type_name(wanted)}")


def text(row: Row, key: str, inside: str = "") -> str:
    """The text under a key; RowError if there is none or it cannot be written as UTF-8."""
    value = row.get(key)
    if not isinstance(value, str):
        raise type_error(value, key, str, inside)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError(f"have half of a character (a lone \\ud8..) in `{key}`") from None
    return value


def optional_text(row: Row, key: str) -> str:
    """The text under a key, "" where the key is missing or null."""
    return "" if row.get(key) is None else text(row, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a turn of a chat is written: its two keys and the names of the roles."""

    role: str
    content: str
    roles: Mapping[str, Role]


SHAREGPT_STYLE: Final = Style(
    role="from",
    content="value",
    roles={
        "system": "system",
        "human": "user",
        "user": "user",
        "gpt": "assistant",
        "assistant": "assistant",
        # The model writes the call, so it learns it; the answer of the tool is only read.
        "function_call": "assistant",
        "observation": "tool",
        "tool": "tool",
    },
)
OPENAI_STYLE: Final = Style(
    role="role",
    content="content",
    roles={
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
        "function": "tool",
    },
)


def turns(row: Row, list_key: str, style: Style | None = None) -> list[Message]:
    """The turns of a list; without a style each turn is in the one that its keys show."""
    found = row.get(list_key)
    if not isinstance(found, list):
        raise type_error(found, list_key, list)
    if not found:
        raise RowError(f"have no turns in `{list_key}`")
    return [turn(one, list_key, style) for one in found]


def turn(value: object, list_key: str, style: Style | None) -> Message:
    """One turn that stands under `list_key`."""
    if not isinstance(value, dict):
        raise RowError(f"have a turn in `{list_key}` that is not an object")
    used = style or (SHAREGPT_STYLE if SHAREGPT_STYLE.role in value else OPENAI_STYLE)
    inside = f" of a turn in `{list_key}`"
    name = text(value, used.role, inside)
    if name not in used.roles:
        raise RowError(f"have the unknown role `{printable(name, 24)}` in `{list_key}`")
    return Message(role=used.roles[name], content=text(value, used.content, inside))


def ending_with_a_reply(messages: list[Message]) -> list[Message]:
    """The same turns; RowError where nothing is learnt from the last one."""
    if messages[-1].role != "assistant":
        raise RowError("do not end with a reply of the assistant")
    return messages


def with_system(row: Row, messages: list[Message], rejected: str | None = None) -> Example:
    """Add the `system` column, unless a system turn inside the conversation wins over it."""
    system = optional_text(row, "system")
    if system and messages[0].role != "system":
        messages.insert(0, Message(role="system", content=system))
    return Example(messages=tuple(messages), rejected=rejected)
