"""How one row of each data format becomes an Example.

Decides the keys each format needs, how roles are named, and what counts as a fault of a row.
Knows nothing of files, lines or token counts: rows.py reads, tokens.py counts, dataset.py reports.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Role = Literal["system", "user", "assistant", "tool"]
Row = dict[str, Any]
"""One JSON object, keys as in the file; nothing is known of its values yet."""


class RowError(Exception):
    """A row that does not fit its format; the text completes "12 of 90 rows ..."."""


NumberedRow = tuple[int, int, Row | RowError]
"""Line at which the row begins and its number, both from 1; the row, or what is wrong with it."""

Segments = tuple[tuple[str, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training example: a chat, or a prompt with its completion, or a plain text."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    rejected: str | None = None
    """The worse reply of a preference pair; the better one stands where replies stand."""
    label: str | None = None
    """The class of a text."""

    @property
    def segments(self) -> Segments:
        """The texts in order, each with whether the loss is taken on it."""
        if self.messages:
            return tuple([(turn.content, turn.role == "assistant") for turn in self.messages])
        if self.text is not None:
            return ((self.text, True),)
        return ((self.prompt or "", False), (self.completion or "", True))

    @property
    def is_empty(self) -> bool:
        """The reply is nothing but white space, so there is nothing to learn."""
        if self.rejected is not None and not self.rejected.strip():
            return True
        reply = self.messages[-1].content if self.messages else self.text or self.completion
        return not reply or reply.isspace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a row."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Row], Example]
    needs: str = ""
    """The training that it is for, where this version does not run it; empty where it does."""


_TYPE_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_SHAREGPT_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    # The model writes the call, so it learns it; the answer of the tool is only read.
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_OPENAI_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def _type_error(value: object, key: str, wanted: type, inside: str = "") -> RowError:
    if value is None:
        return RowError(f"lack `{key}`{inside}")
    is_nan = isinstance(value, float) and math.isnan(value)
    found = "NaN" if is_nan else type_name(type(value))
    return RowError(f"have {found} in `{key}`{inside}, not {_TYPE_NAMES[wanted]}")


def type_name(kind: type) -> str:
    """A type in the words of JSON: "a text", "a list"; Parquet knows more of them."""
    return _TYPE_NAMES.get(kind) or f"a {kind.__name__}"


def _text(row: Row, key: str, inside: str = "") -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise _type_error(value, key, str, inside)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError(f"have half of a character (a lone \\ud8..) in `{key}`") from None
    return value


def _optional_text(row: Row, key: str) -> str:
    return "" if row.get(key) is None else _text(row, key)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """How a turn of a chat is written."""

    role: str
    content: str
    roles: Mapping[str, Role]


_SHAREGPT = _Style(role="from", content="value", roles=_SHAREGPT_ROLES)
_OPENAI = _Style(role="role", content="content", roles=_OPENAI_ROLES)


def _turns(row: Row, list_key: str, style: _Style | None = None) -> list[Message]:
    """The turns of a list; without a style each turn is in the one that its keys show."""
    turns = row.get(list_key)
    if not isinstance(turns, list):
        raise _type_error(turns, list_key, list)
    if not turns:
        raise RowError(f"have no turns in `{list_key}`")
    return [_turn(turn, list_key, style) for turn in turns]


def _turn(turn: object, list_key: str, style: _Style | None) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"have a turn in `{list_key}` that is not an object")
    used = style or (_SHAREGPT if _SHAREGPT.role in turn else _OPENAI)
    inside = f" of a turn in `{list_key}`"
    name = _text(turn, used.role, inside)
    if name not in used.roles:
        raise RowError(f"have the unknown role `{printable(name, 24)}` in `{list_key}`")
    return Message(role=used.roles[name], content=_text(turn, used.content, inside))


def _ending_with_a_reply(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "assistant":
        raise RowError("do not end with a reply of the assistant")
    return messages


def _with_system(row: Row, messages: list[Message], rejected: str | None = None) -> Example:
    """Add the `system` column, unless a system turn inside the conversation wins over it."""
    system = _optional_text(row, "system")
    if system and messages[0].role != "system":
        messages.insert(0, Message(role="system", content=system))
    return Example(messages=tuple(messages), rejected=rejected)


def _read_alpaca(row: Row) -> Example:
    messages = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise _type_error(history, "history", list)
    for pair in history:
        match pair:
            case [user, assistant]:
                turn = {"user": user, "assistant": assistant}
            case _:
                raise RowError("have an entry in `history` that is not [user, assistant]")
        inside = " of a pair in `history`"
        messages.append(Message(role="user", content=_text(turn, "user", inside)))
        messages.append(Message(role="assistant", content=_text(turn, "assistant", inside)))
    messages.append(Message(role="user", content=_question(row)))
    messages.append(Message(role="assistant", content=_text(row, "output")))
    return _with_system(row, messages)


def _question(row: Row) -> str:
    return "\n".join(filter(None, (_text(row, "instruction"), _optional_text(row, "input"))))


def _read_sharegpt(row: Row) -> Example:
    return _with_system(row, _ending_with_a_reply(_turns(row, "conversations", _SHAREGPT)))


def _read_messages(row: Row) -> Example:
    return Example(messages=tuple(_ending_with_a_reply(_turns(row, "messages", _OPENAI))))


def _read_prompt_completion(row: Row) -> Example:
    return Example(prompt=_text(row, "prompt"), completion=_text(row, "completion"))


def _read_text(row: Row) -> Example:
    return Example(text=_text(row, "text"))


def _read_classification(row: Row) -> Example:
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, int):
        label = _text(row, "label")
        if not label.strip():
            raise RowError("lack `label`")
    return Example(text=_text(row, "text"), label=str(label))


def _read_preference(row: Row) -> Example:
    chosen, rejected = _replies(row, "chosen"), _replies(row, "rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        asked = _asked(row)
        if isinstance(asked, str):
            return Example(prompt=asked, completion=chosen, rejected=rejected)
        reply = Message(role="assistant", content=chosen)
        return _with_system(row, [*asked, reply], rejected=rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError("have a text and turns in `chosen` and `rejected`")
    _ending_with_a_reply(rejected)
    turns = _ending_with_a_reply(chosen)
    if len(turns) == 1:
        asked = _asked(row)
        before = [Message(role="user", content=asked)] if isinstance(asked, str) else asked
        turns = [*(turn for turn in before if turn.content), *turns]
    return _with_system(row, turns, rejected=rejected[-1].content)


def _replies(row: Row, key: str) -> str | list[Message]:
    """A reply as it is written: a text, one turn, or all turns that lead to it."""
    value = row.get(key)
    if isinstance(value, dict):
        return [_turn(value, key, None)]
    return _turns(row, key) if isinstance(value, list) else _text(row, key)


def _asked(row: Row) -> str | list[Message]:
    """What both replies of a pair answer, under any of the names in use."""
    for key in ("conversations", "messages", "prompt"):
        if isinstance(row.get(key), list):
            return _turns(row, key)
    return _question(row) if "instruction" in row else _optional_text(row, "prompt")


# In order of preference: the public Alpaca files also have a `text` column, for instance.
FORMATS: Final[Mapping[str, Format]] = {
    "preference": Format(
        required=("chosen", "rejected"),
        optional=("prompt", "conversations", "messages", "instruction", "input", "system"),
        read=_read_preference,
        needs="preference training (DPO)",
    ),
    "messages": Format(required=("messages",), optional=(), read=_read_messages),
    "sharegpt": Format(required=("conversations",), optional=("system",), read=_read_sharegpt),
    "alpaca": Format(
        required=("instruction", "output"),
        optional=("input", "system", "history"),
        read=_read_alpaca,
    ),
    "prompt_completion": Format(
        required=("prompt", "completion"), optional=(), read=_read_prompt_completion
    ),
    "classification": Format(
        required=("text", "label"),
        optional=(),
        read=_read_classification,
        needs="training of a classifier",
    ),
    "text": Format(required=("text",), optional=(), read=_read_text),
}


def printable(text: str, num_chars: int) -> str:
    """Shorten a text to a form that cannot move the cursor or colour the terminal."""
    short = text if len(text) <= num_chars else text[:num_chars] + "…"
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in short)
