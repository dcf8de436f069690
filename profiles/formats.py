"""How one row of each data format becomes an Example, and which format a row is in.

Decides the keys each format needs, how roles are named, and what counts as a fault of a row.
Knows nothing of files, lines or token counts: rows.py reads, tokens.py counts, dataset.py reports.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

Role = Literal["system", "user", "assistant", "tool"]
Row = dict[str, Any]
"""One JSON object, keys as in the file; nothing is known of its values yet."""


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
        reply = self.messages[-1].content if self.messages else self.text or self.completion
        return not reply or reply.isspace()


class RowError(Exception):
    """A row that does not fit its format; the text completes "12 of 90 rows ..."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a row."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Row], Example]


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
    found, asked = _TYPE_NAMES[type(value)], _TYPE_NAMES[wanted]
    return RowError(f"have {found} in `{key}`{inside}, not {asked}")


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


def _turns(
    row: Row, list_key: str, keys: tuple[str, str], roles: Mapping[str, Role]
) -> list[Message]:
    role_key, content_key = keys
    turns = row.get(list_key)
    if not isinstance(turns, list):
        raise _type_error(turns, list_key, list)
    if not turns:
        raise RowError(f"have no turns in `{list_key}`")
    messages = []
    inside = f" of a turn in `{list_key}`"
    for turn in turns:
        if not isinstance(turn, dict):
            raise RowError(f"have a turn in `{list_key}` that is not an object")
        name = _text(turn, role_key, inside)
        if name not in roles:
            raise RowError(f"have the unknown role `{printable(name, 24)}` in `{list_key}`")
        messages.append(Message(role=roles[name], content=_text(turn, content_key, inside)))
    if messages[-1].role != "assistant":
        raise RowError("do not end with a reply of the assistant")
    return messages


def _with_system(row: Row, messages: list[Message]) -> Example:
    """Add the `system` column, unless a system turn inside the conversation wins over it."""
    system = _optional_text(row, "system")
    if system and messages[0].role != "system":
        messages.insert(0, Message(role="system", content=system))
    return Example(messages=tuple(messages))


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
    question = (_text(row, "instruction"), _optional_text(row, "input"))
    messages.append(Message(role="user", content="\n".join(filter(None, question))))
    messages.append(Message(role="assistant", content=_text(row, "output")))
    return _with_system(row, messages)


def _read_sharegpt(row: Row) -> Example:
    turns = _turns(row, "conversations", ("from", "value"), _SHAREGPT_ROLES)
    return _with_system(row, turns)


def _read_messages(row: Row) -> Example:
    return Example(messages=tuple(_turns(row, "messages", ("role", "content"), _OPENAI_ROLES)))


def _read_prompt_completion(row: Row) -> Example:
    return Example(prompt=_text(row, "prompt"), completion=_text(row, "completion"))


def _read_text(row: Row) -> Example:
    return Example(text=_text(row, "text"))


# In order of preference: the public Alpaca files also have a `text` column, for instance.
FORMATS: Final[Mapping[str, Format]] = {
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
    "text": Format(required=("text",), optional=(), read=_read_text),
}

_OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "instruction": ("question", "query"),
    "output": ("response", "answer"),
    "prompt": ("input", "source"),
    "completion": ("response", "answer", "target"),
    "conversations": ("conversation", "dialogue", "dialog"),
    "messages": ("chat", "turns"),
    "text": ("content", "document", "body"),
}


def printable(text: str, num_chars: int) -> str:
    """Shorten a text to a form that cannot move the cursor or colour the terminal."""
    short = text if len(text) <= num_chars else text[:num_chars] + "…"
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in short)


def describe_formats() -> str:
    """List the formats that are read, with the keys of each."""
    return "; ".join(f"{name} ({', '.join(fmt.required)})" for name, fmt in FORMATS.items())


def require_format(name: str) -> Format:
    """Look up a format by the name that a user gave."""
    if name in FORMATS:
        return FORMATS[name]
    near = difflib.get_close_matches(name, FORMATS, n=1)
    raise UserError(
        f"unknown data format `{printable(name, 40)}`",
        why=f"the formats that are read are {describe_formats()}",
        do=f"choose {near[0]}" if near else "leave the format out: it is found from the keys",
        where="format",
        code=ExitCode.USAGE,
    )


def format_of(keys: Collection[str]) -> str | None:
    """Find the first format whose required keys are all there."""
    for name, fmt in FORMATS.items():
        if all(key in keys for key in fmt.required):
            return name
    return None


def detect_format(row_keys: Iterable[Collection[str]], *, where: str = "") -> str:
    """Find the format that most of the first rows are in."""
    rows = list(row_keys)
    found = Counter(key for keys in rows for key in keys)
    if found["chosen"] and found["rejected"]:
        raise UserError(
            "this looks like preference pairs (`chosen` and `rejected`)",
            why="preference data trains with DPO-like losses, which are not supported here; "
            f"the formats that are read are {describe_formats()}",
            do="give a file with one reply per row, for example the `chosen` replies as `output`",
            where=where,
            code=ExitCode.BAD_DATA,
        )
    votes = Counter(name for name in map(format_of, rows) if name)
    if votes:
        return votes.most_common(1)[0][0]
    shown = ", ".join(f"`{printable(key, 40)}`" for key, _ in found.most_common(12))
    raise UserError(
        f"no known data format has these keys: {shown or 'none'}",
        why=f"the formats that are read are {describe_formats()}",
        do=_advise_nearest(found),
        where=where,
        code=ExitCode.BAD_DATA,
    )


def _advise_nearest(found: Collection[str]) -> str:
    """Name the format with the most recognisable keys, and the renames that lead there."""
    best, best_share, best_steps = "", 0.0, ""
    for name, fmt in FORMATS.items():
        sources = {key: _source_key(key, found) for key in fmt.required}
        known = {key: source for key, source in sources.items() if source}
        share = len(known) / len(sources) + sum(key == src for key, src in known.items()) / 100
        if share > best_share:
            steps = [
                f"add `{key}`" if not source else f"rename `{printable(source, 40)}` to `{key}`"
                for key, source in sources.items()
                if source != key
            ]
            best, best_share, best_steps = name, share, ", ".join(steps)
    if not best:
        return "rename the keys to those of one format; none is near"
    return f"the nearest is {best}: {best_steps}"


def _source_key(key: str, found: Collection[str]) -> str | None:
    if key in found:
        return key
    lowered = {name.lower(): name for name in found}
    for other in (key, *_OTHER_NAMES[key]):
        if other in lowered:
            return lowered[other]
    near = difflib.get_close_matches(key, lowered, n=1, cutoff=0.8)
    return lowered[near[0]] if near else None
