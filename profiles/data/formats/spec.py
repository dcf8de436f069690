"""What a data format is, and the Example that a row of any format becomes.

Decides which shapes an example may have and what trainers read of each. Names no format: each has
a file of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

Role = Literal["system", "user", "assistant", "tool"]
Row = dict[str, Any]
"""One JSON object, keys as in the file; nothing is known of its values yet."""


class RowError(Exception):
    """A row that does not fit its format; the text completes "12 of 90 rows ..."."""


NumberedRow = tuple[int, int, Row | RowError]
"""Line at which the row begins and its number, both from 1; the row, or what is wrong with it."""

Segments = tuple[tuple[str, bool], ...]

TEXTS: Final = ("replies", "text")
"""Kinds of rows that a caller takes who names none."""


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
            turn |= {"reasoning_content": self.reasoning, "thinking": self.reasoning}
        turn |= {"name": self.name} if self.name else {}
        turn |= {"tool_call_id": self.call_id} if self.call_id else {}
        return turn

    @property
    def texts(self) -> str:
        """All that the turn says, calls included."""
        called = [json.dumps(call, ensure_ascii=False) for call in self.calls]
        return "\n".join(filter(None, [self.reasoning, self.content, *called]))


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

    @property
    def segments(self) -> Segments:
        """The texts in order, each with whether the loss is taken on it."""
        if self.messages:
            return tuple([(turn.texts, turn.role == "assistant") for turn in self.messages])
        if self.text is not None:
            return ((self.text, True),)
        return ((self.prompt or "", False), (self.completion or "", True))

    @property
    def is_empty(self) -> bool:
        """The reply is nothing but white space, so there is nothing to learn."""
        if self.rejected is not None and not self.rejected.strip():
            return True
        reply = self.messages[-1].texts if self.messages else self.text or self.completion
        return not reply or reply.isspace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a row."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other names in use for it, the likeliest first; a user is told to rename them."""
    holds: Literal["text", "list", "either"] = "text"
    """A cell of a table is a text as it stands, a list in JSON, or whichever it looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a row: all that is known of it outside its own file."""

    name: str
    """As a recipe and `--format` write it."""
    required: tuple[Field, ...]
    """Rows with all of these keys are taken to be in this format."""
    optional: tuple[Field, ...] = ()
    read: Callable[[Row], Example]
    """One row to its example; RowError where the row does not fit."""
    is_chat: bool = False
    """Every example is made of turns, so that a chat template is needed."""
    kind: str = "replies"
    """What its rows are, by which tasks find what they learn from: "replies" to prompts, plain
    "text", a "preference" between two replies, a "label"."""
    needs: str = "fine-tuning on replies or texts"
    """The tasks that learn from it, in words, told where none of them is run."""
    instead: str = "give a file with one reply per row"
    """What a user can do then."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the required fields."""
        return tuple([one.name for one in self.required])

    @property
    def fields(self) -> tuple[Field, ...]:
        """The required fields, then the optional ones."""
        return self.required + self.optional

    def fits(self, keys: Collection[str]) -> bool:
        """All required keys are there."""
        return all(one.name in keys for one in self.required)

    def serves(self, kinds: Collection[str]) -> bool:
        """Its rows are of one of these kinds."""
        return self.kind in kinds
