"""How an example becomes text for the model, and which characters of it are learnt.

The one place that decides it: check, recommendation, preview and training all ask here. Replies are
learnt from where the model is asked for them to their end mark. Where a template marks them, its
marks count; else the text is compared with what the template writes for the turns before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from profiles.data.formats.spec import Example, Message, RowError, Segments
from profiles.data.words import printable
from profiles.models.chat_template import ChatTemplate, Span, TemplateError, Turn

Learn = Literal["all", "last"]

END_MARKS: Final = (
    "<|im_end|>", "<|eot_id|>", "<|eot|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "</s>",
    "<end_of_turn>", "<turn|>", "<|end_of_text|>", "<|return|>", "<|call|>",
    "<|END_OF_TURN_TOKEN|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
"""Of the families in use; a tokenizer's own special tokens come besides."""
NONCHARACTERS: Final = "\ufdd0\ufdd1\ufdd2\ufdd3"
_SLOT: Final = "\ufdd2{}\ufdd3"
"""Noncharacters around a number: they stand for a content, to find where a template puts it."""
_AFTER: Final = re.compile(r"\s*")
_SLOTS: Final = re.compile("\ufdd2(\\d+)\ufdd3")


class TemplateRowError(RowError):
    """A row that another chat template would write."""


class Written(NamedTuple):
    """An example as the model reads it."""

    text: str
    learnt: tuple[Span, ...]
    """Characters that the loss is taken on, in order."""
    is_chat: bool = True
    """A template wrote it, with every special token that there is to be."""
    faults: tuple[str, ...] = ()
    """What is not as the row says; each completes "12 of 90 rows ..."."""

    @property
    def segments(self) -> Segments:
        """The text in parts, each with whether the loss is taken on it."""
        found, end = [], 0
        for first, last in self.learnt:
            found += [(self.text[end:first], False), (self.text[first:last], True)]
            end = last
        return (*found, (self.text[end:], False))


class _Part(NamedTuple):
    """A reply of a chat: its characters with the end mark; none where it cannot be told apart."""

    turn: int
    span: Span | None


@dataclass(slots=True)
class Renderer:
    """Writes examples for one tokenizer."""

    choose: Callable[[bool], ChatTemplate | None]
    """The template for chats without tools, or with them; None if there is none. It is asked when
    the first such row comes: a template is tried in quarantine before, and most files need none."""
    learn: Learn = "all"
    eos: str = ""
    """Ends plain texts and completions."""
    end_marks: tuple[str, ...] = END_MARKS
    _chosen: dict[bool, ChatTemplate | None] = field(default_factory=dict)
    _skeletons: dict[tuple[str, ...], _Skeleton | None] = field(default_factory=dict)

    def write(self, example: Example) -> Written:
        """The text and what is learnt of it; RowError if the template does not take the row."""
        if not example.messages:
            return self._plain(example)
        template = self.template(with_tools=example.uses_tools)
        if template is None:
            raise TemplateRowError("are chats, and there is no chat template to write them with")
        try:
            return self._chat(example, template)
        except TemplateError as refusal:
            said = printable(str(refusal), 160)
            raise TemplateRowError(
                f"are refused by the chat template, which says: {said}"
            ) from refusal

    @property
    def chats(self) -> ChatTemplate | None:
        """The template that chats were written by; None if there was none to be written."""
        return next(filter(None, self._chosen.values()), None)

    def template(self, *, with_tools: bool = False) -> ChatTemplate | None:
        """The one that chats are written by."""
        if with_tools not in self._chosen:
            self._chosen[with_tools] = self.choose(with_tools)
        return self._chosen[with_tools]

    def _plain(self, example: Example) -> Written:
        start = 0 if example.text is not None else len(example.prompt or "")
        text = example.text or f"{example.prompt or ''}{example.completion or ''}"
        if not text.endswith(self.eos):
            text += self.eos
        return Written(text, ((start, len(text)),), is_chat=False)

    def ask(self, example: Example) -> Written:
        """What the last reply of an example, or its completion, answers."""
        if not example.messages:
            return Written(example.prompt or "", (), is_chat=False)
        template = self.template(with_tools=example.uses_tools)
        assert template is not None  # it has written the whole
        turns = [message.as_turn for message in example.messages[:-1]]
        return Written(template.render(turns, example.tools, asks=True)[0], ())

    def _chat(self, example: Example, template: ChatTemplate) -> Written:
        if any(sign in said for said, _ in example.segments for sign in NONCHARACTERS):
            raise RowError("hold a noncharacter (U+FDD0 to U+FDD3), which no text may")
        turns = [message.as_turn for message in example.messages]
        text, marked = template.render(turns, example.tools)
        replies = [i for i, message in enumerate(example.messages) if message.role == "assistant"]
        if len(marked) == len(replies):
            parts = [_Part(i, span) for i, span in zip(replies, marked, strict=True)]
        else:
            parts = self._parts(example, template, text, turns)
        faults = _faults(example, template, text, turns, parts)
        return Written(text, self._learnt(example, text, parts), faults=faults)

    def _learnt(self, example: Example, text: str, parts: Sequence[_Part]) -> tuple[Span, ...]:
        wanted = parts[-1:] if self.learn == "last" or example.is_judged else parts
        spans = [
            self._to_end_mark(text, part.span)
            for part in wanted
            if part.span is not None and example.messages[part.turn].is_learnt
        ]
        return tuple([span for span in spans if span[0] < span[1]])

    def _to_end_mark(self, text: str, span: Span) -> Span:
        """With the mark that ends the reply, which may follow it; without what only follows that.

        A model is stopped at the mark, so a line break after it is never generated.
        """
        start, end = span
        bare = text[start:end].rstrip()
        if bare.endswith(self.end_marks):
            return start, start + len(bare)
        found = _AFTER.match(text, end)
        assert found is not None  # any number of spaces
        after = (mark for mark in self.end_marks if text.startswith(mark, found.end()))
        mark = next(after, "")
        return start, found.end() + len(mark) if mark else end

    def ends(self, written: Written) -> bool:
        """Whether the last that is learnt ends with a mark by which the model stops."""
        if not written.learnt:
            return True
        start, end = written.learnt[-1]
        return written.text[start:end].endswith(self.end_marks)

    def _parts(
        self, example: Example, template: ChatTemplate, text: str, turns: Sequence[Turn]
    ) -> list[_Part]:
        """The replies of a template that marks none."""
        if not example.tools and all(_is_plain(message) for message in example.messages):
            shape = tuple([message.role for message in example.messages])
            if shape not in self._skeletons:
                self._skeletons[shape] = _skeleton(template, shape)
            skeleton = self._skeletons[shape]
            contents = [message.content for message in example.messages]
            if skeleton is not None and (found := skeleton.parts(text, contents)):
                return found
        return _split(template, text, turns, example.tools)


def _is_plain(message: Message) -> bool:
    return not (message.calls or message.reasoning or message.name or message.call_id)


# --- Where replies stand ----------------------------------------------------------------------


def _split(
    template: ChatTemplate, text: str, turns: Sequence[Turn], tools: Sequence[Turn]
) -> list[_Part]:
    """Each reply by comparing the text with that of the turns before it and up to it."""
    parts = []
    for index, turn in enumerate(turns):
        if turn["role"] == "assistant":
            up_to = _try(template, turns[: index + 1], tools)
            before = _try(template, turns[:index], tools) if index else ""
            asked = _try(template, turns[:index], tools, asks=True) or before
            span = None
            if up_to is not None and before is not None and asked is not None:
                span = _between(text, before, asked, up_to)
            parts.append(_Part(index, span))
    return parts


def _try(
    template: ChatTemplate, turns: Sequence[Turn], tools: Sequence[Turn], *, asks: bool = False
) -> str | None:
    """The text of some of the turns, which need not be a whole chat: then None."""
    try:
        return template.render(turns, tools, asks=asks)[0]
    except TemplateError:
        return None


def _between(text: str, before: str, asked: str, up_to: str) -> Span | None:
    """The reply between what asks for it and where the text up to it ends.

    A template that leaves the beginning of an earlier reply out (what was thought) writes the end
    of it as before; None if it has written even the turns before otherwise.
    """
    if not text.startswith(before):
        return None
    start = _shared(asked, text)
    if text.startswith(up_to):
        return start, len(up_to)
    reply = up_to[_shared(asked, up_to) :]
    for skipped in range(len(reply)):
        if text.startswith(reply[skipped:], start):
            return start, start + len(reply) - skipped
    return None


def _shared(one: str, other: str) -> int:
    """Characters at the beginning that two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """What a template writes around the contents of a chat with these roles."""

    order: tuple[int, ...]
    """Turns as the template writes them: some move the system text into another turn."""
    literals: tuple[str, ...]
    """Before each content, and after the last."""
    replies: tuple[tuple[int, int, int], ...]
    """Turn, characters of the literal before it that belong to it, and of the one after."""

    def parts(self, text: str, contents: Sequence[str]) -> list[_Part]:
        """The replies of a chat whose text is literals and contents; none if it is not."""
        places: dict[int, Span] = {}
        end = len(self.literals[0])
        if not text.startswith(self.literals[0]):
            return []
        for turn, after in zip(self.order, self.literals[1:], strict=True):
            start = end
            for content in _as_written(contents[turn]):
                end = start + len(content)
                if text.startswith(content, start) and text.startswith(after, end):
                    break
            else:
                return []
            places[turn] = start, end
            end += len(after)
        if end != len(text):
            return []
        return [
            _Part(turn, (places[turn][0] - lead, places[turn][1] + tail))
            for turn, lead, tail in self.replies
        ]


def _as_written(content: str) -> tuple[str, ...]:
    """A content as it is, or as templates trim it."""
    return content, content.strip(), content.rstrip(), content.lstrip()


def _skeleton(template: ChatTemplate, roles: Sequence[str]) -> _Skeleton | None:
    """Rendered once for all chats with these roles; None if a content is left out or repeated."""
    turns = [{"role": role, "content": _SLOT.format(i)} for i, role in enumerate(roles)]
    text, _ = template.render(turns)
    slots = list(_SLOTS.finditer(text))
    order = tuple([int(slot[1]) for slot in slots])
    if sorted(order) != list(range(len(roles))):
        return None
    bounds = [0, *(edge for slot in slots for edge in slot.span()), len(text)]
    literals = tuple([text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)])
    places = {turn: slot.span() for turn, slot in zip(order, slots, strict=True)}
    replies = []
    for part in _split(template, text, turns, ()):
        start, end = places[part.turn]
        first, last = part.span or (start, end)
        if not first <= start < end <= last:
            first, last = start, end
        replies.append((part.turn, start - first, last - end))
    return _Skeleton(order, literals, tuple(replies))


# --- What is not as the row says --------------------------------------------------------------


def _faults(
    example: Example,
    template: ChatTemplate,
    text: str,
    turns: Sequence[Turn],
    parts: Sequence[_Part],
) -> tuple[str, ...]:
    """What the text lacks of the row; TemplateRowError for a call, which is all that is learnt."""
    for part in parts:
        reply = text if part.span is None else text[slice(*part.span)]
        names = [call["function"]["name"] for call in example.messages[part.turn].calls]
        if not all(name in reply for name in names):
            raise TemplateRowError("call tools, which the chat template does not write")
    found = [_LACKS[message.role] for message in example.messages if _is_changed(message, text)]
    if any(message.reasoning.strip() not in text for message in example.messages):
        found.append("have reasoning that the chat template leaves out")
    if example.tools and _try(template, turns, ()) == text:
        found.append("have `tools`, which the chat template does not write")
    if any(part.span is None for part in parts):
        found.append("have replies that are not learnt, for the chat template writes them anew")
    return tuple(dict.fromkeys(found))


_LACKS: Final = {
    "system": "have a system text that the chat template leaves out",
    "user": "have a user's text that the chat template changes",
    "assistant": "have a reply of which the chat template leaves something out",
    "tool": "have a tool's answer that the chat template changes",
}


def _is_changed(message: Message, text: str) -> bool:
    return bool(message.content) and message.content.strip() not in text
