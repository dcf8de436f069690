"""What a data format is, and the Example that a row of any format becomes.

Decides which shapes an example may have and what trainers read of each. Names no format: each has
a file of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Role = Literal["system", "user", "assistant", "tool"]
Row = dict[str, Any]
"""One JSON object, keys as in the file; nothing is known of its values yet."""


class RowError(Exception):
    """A row that does not fit its format; the text completes "12 of 90 rows ..."."""


class MediaError(RowError):
    """A row with pictures or sound, of which nothing is learnt."""


NumberedRow = tuple[int, int, Row | RowError]
"""Line at which the row begins and its number, both from 1; the row, or what is wrong with it."""

Segments = tuple[tuple[str, bool], ...]

TEXTS: Final = ("replies", "text")
"""Kinds of rows that a caller takes who names none."""

REASONING_KEYS: Final = ("reasoning_content", "reasoning", "thinking")
"""Names in use for what is thought before a reply, in rows as in chat templates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str
    calls: tuple[Row, ...] = ()
    """Tools that the assistant calls, as OpenAI's interface has them; arguments are an object."""
    reasoning: str = ""
    """What the assistant thinks before it replies."""
    name: str = ""
    """Of the tool that answers."""
    call_id: str = ""
    """Of the call that the tool answers."""
    is_learnt: bool = True
    """Whether a reply is learnt from, or only read."""

    @property
    def as_turn(self) -> Row:
        """The turn as a chat template reads it."""
        turn: Row = {"role": self.role, "content": self.content}
        if self.calls:
            turn["tool_calls"] = list(self.calls)
        if self.reasoning:
            turn |= dict.fromkeys(REASONING_KEYS, self.reasoning)
        if self.name:
            turn["name"] = self.name
        if self.call_id:
            turn["tool_call_id"] = self.call_id
        return turn

    @property
    def texts(self) -> str:
        """All that the turn says, calls included, but for the ids of calls."""
        if not (self.calls or self.reasoning or self.name):
            return self.content
        called = [_json(call["function"]) for call in self.calls]
        return "\n".join(filter(None, [self.reasoning, self.name, self.content, *called]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training example: a chat, or a prompt with its completion, or a plain text."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Row, ...] = ()
    """Functions that the assistant may call, as OpenAI's interface has them."""
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    rejected: str | None = None
    """The worse reply of a preference pair; the better one stands where replies stand."""
    label: str | None = None
    """The class of a text."""
    is_good: bool | None = None
    """Whether the reply of a rated row is wanted; None where rows are not rated."""
    remarks: tuple[str, ...] = field(default=(), compare=False)
    """What the row was taken to mean; each completes "12 of 90 rows ..."."""

    @property
    def segments(self) -> Segments:
        """All that is read, in order: tools first; each with whether the loss is taken on it."""
        if self.messages:
            tools = ((_json(self.tools), False),) if self.tools else ()
            turns = [
                (turn.texts, turn.role == "assistant" and turn.is_learnt) for turn in self.messages
            ]
            return (*tools, *turns)
        if self.text is not None:
            return ((self.text, True),)
        return ((self.prompt or "", False), (self.completion or "", True))

    @property
    def is_judged(self) -> bool:
        """Its last reply is said to be good or bad: that one alone is learnt from."""
        return self.rejected is not None or self.is_good is not None

    @property
    def worse(self) -> Example | None:
        """The same with the rejected reply in the better one's place; None without one."""
        if self.rejected is None:
            return None
        if not self.messages:
            return replace(self, completion=self.rejected, rejected=None, is_good=False)
        reply = Message(role="assistant", content=self.rejected)
        turns = (*self.messages[:-1], reply)
        return replace(self, messages=turns, rejected=None, is_good=False)

    @property
    def is_empty(self) -> bool:
        """The reply is nothing but white space, so there is nothing to learn."""
        if self.rejected is not None and not self.rejected.strip():
            return True
        reply = self.messages[-1].texts if self.messages else self.text or self.completion
        return not reply or reply.isspace()

    @property
    def uses_tools(self) -> bool:
        """Tools are named, or called."""
        return bool(self.tools) or any(turn.calls for turn in self.messages)

    @property
    def is_only_read(self) -> bool:
        """A chat whose turns say that no reply of it is learnt."""
        if not self.messages or self.messages[-1].is_learnt:
            return False
        return not any(turn.is_learnt for turn in self.messages if turn.role == "assistant")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a row."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other names in use for it, the likeliest first, which are read in its place and told."""
    near: tuple[str, ...] = ()
    """Names that may mean it or something else; a user is told to rename them."""
    holds: Literal["text", "list", "either", "flag"] = "text"
    """A cell of a table is a text as it stands, a list in JSON, or whichever it looks like. A flag
    is true or false, and a row with anything else there is in another format."""

    def name_in(self, keys: Collection[str]) -> str:
        """The key that stands for it, "" if there is none, or more than one that could."""
        if self.name in keys:
            return self.name
        found = [alias for alias in self.aliases if alias in keys]
        return found[0] if len(found) == 1 else ""


FLAGS: Final = {
    "true": True, "false": False, "1": True, "0": False, "yes": True, "no": False,
    "good": True, "bad": False, "up": True, "down": False, "thumbs_up": True,
    "thumbs_down": False, "correct": True, "incorrect": False, "wrong": False,
    "desirable": True, "undesirable": False,
}  # fmt: skip
"""Words for true and false, in small letters."""


def is_flag(value: object) -> bool:
    """True or false, also as a number or a word."""
    if isinstance(value, str):
        return value.strip().lower() in FLAGS
    return value in (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a row: all that is known of it outside its own file."""

    name: str
    """As a recipe and `--format` write it."""
    required: tuple[Field, ...]
    """Rows with all of these keys are taken to be in this format."""
    optional: tuple[Field, ...] = ()
    beside: tuple[Format, ...] = ()
    """Formats of which a row has one besides; none where its own keys are all."""
    read: Callable[[Row], Example]
    """One row, under the names of the fields, to its example; RowError where it does not fit."""
    is_chat: bool = False
    """Every example is made of turns, so that a chat template is needed."""
    kind: str = "replies"
    """What its rows are, by which tasks find what they learn from: "replies" to prompts, plain
    "text", a "preference" between two replies, "rated" replies, a "label"."""
    needs: str = "fine-tuning on replies or texts"
    """The tasks that learn from it, in words, told where none of them is run."""
    instead: str = (
        'name the task: `--task sft`, in a recipe `task = "sft"`; or give rows of one of these'
    )
    """What a user can do then."""
    _names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = frozenset([one.name for one in self.required + self.optional])
        object.__setattr__(self, "_names", names)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the required fields, and those of one of the formats beside."""
        own = tuple([one.name for one in self.required])
        return self.beside[0].keys + own if self.beside else own

    @property
    def fields(self) -> tuple[Field, ...]:
        """The required fields, then the optional ones, then those of the formats beside."""
        return (*self.required, *self.optional, *(one for fmt in self.beside for one in fmt.fields))

    def fits(self, row: Collection[str], *, by_alias: bool = False) -> bool:
        """All required keys are there, under their own names or under those in use for them."""
        for one in self.required:
            key = one.name_in(row) if by_alias or self.beside else one.name
            if key not in row:
                return False
            if one.holds == "flag" and isinstance(row, dict) and not is_flag(row[key]):
                return False
        return not self.beside or any(one.fits(row, by_alias=by_alias) for one in self.beside)

    def example(self, row: Row) -> Example:
        """One row as its file has it, whatever names it uses; RowError where it does not fit."""
        if self._names.issuperset(row):
            return self.read(row)
        _refuse_media(row)
        renamed = {}
        for one in self.required + self.optional:
            if one.aliases and one.name not in row and (key := one.name_in(row)):
                renamed[key] = one.name
        if not renamed:
            return self.read(row)
        found = self.read({renamed.get(key, key): value for key, value in row.items()})
        guess = ", ".join(f"`{key}` as `{name}`" for key, name in renamed.items())
        return replace(found, remarks=(f"are read as {self.name}: {guess}", *found.remarks))

    def serves(self, kinds: Collection[str]) -> bool:
        """Its rows are of one of these kinds."""
        return self.kind in kinds


_MEDIA: Final = frozenset(
    ("images", "image", "audios", "audio", "videos", "video", "image_path", "pixel_values")
)


def _refuse_media(row: Row) -> None:
    """A text that speaks of a picture says something else without it."""
    if key := next((key for key in _MEDIA.intersection(row) if row[key]), ""):
        raise MediaError(f"come with `{key}`, of which nothing is learnt here: rows are text alone")
