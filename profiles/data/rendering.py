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
from profiles.data.replies import NONCHARACTERS, Part, Skeleton, attempt, skeleton, split, tail_of
from profiles.data.words import printable
from profiles.models.chat_template import ChatTemplate, Span, TemplateError, Turn

Learn = Literal["all", "last"]

END_MARKS: Final = (
    "<|im_end|>", "<|eot_id|>", "<|eot|>", "<|eom_id|>", "<|end|>", "<|endoftext|>", "</s>",
    "<end_of_turn>", "<turn|>", "<|end_of_text|>", "<|return|>", "<|call|>",
    "<|END_OF_TURN_TOKEN|>", "<\uff5cend\u2581of\u2581sentence\uff5c>",
)  # fmt: skip
"""Of the families in use; a special token by which a template ends every reply comes besides."""
_AFTER: Final = re.compile(r"\s*")
_NO_THOUGHTS: Final = re.compile(r"\s*<think>\s*</think>")


class TemplateRowError(RowError):
    """A row that another chat template would write."""

    takes_merged = False
    """The template writes it where the system text begins the first question."""


class Written(NamedTuple):
    """An example as the model reads it."""

    text: str
    learnt: tuple[Span, ...]
    """Characters that the loss is taken on, in order."""
    is_chat: bool = True
    """A template wrote it, with every special token that there is to be."""
    end: str = ""
    """The mark by which the last that is learnt ends; empty where a model learns not to stop."""
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


class _Ending(NamedTuple):
    """How a template ends replies."""

    tail: str
    """What it writes after every reply: marks, and the white space before them."""
    marks: tuple[str, ...]
    """All by which a reply may end."""

    def mark_of(self, reply: str) -> str:
        """The mark by which a reply ends; empty without one."""
        for mark in self.marks:
            if reply.endswith(mark):
                return mark
        return ""


@dataclass(slots=True)
class Renderer:
    """Writes examples for one tokenizer."""

    choose: Callable[[bool], ChatTemplate | None]
    """The template for chats without tools, or with them; None if there is none. It is asked when
    the first such row comes: a template is tried in quarantine before, and most files need none."""
    learn: Learn = "all"
    eos: str = ""
    """Ends plain texts and completions."""
    special: frozenset[str] = frozenset()
    """The tokenizer's tokens that stand for marks."""
    asks_by_template: bool = False
    """The model is asked by a chat template, which writes no plain prompt."""
    _chosen: dict[bool, ChatTemplate | None] = field(default_factory=dict, init=False)
    _endings: dict[str, _Ending] = field(default_factory=dict, init=False)
    _skeletons: dict[tuple[str, ...], Skeleton | None] = field(default_factory=dict, init=False)

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
            error = TemplateRowError(f"are refused by the chat template, which says: {said}")
            error.takes_merged = _takes_merged(example, template)
            raise error from refusal

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
        faults = (_unwritten(example),) if self.asks_by_template and example.prompt else ()
        return Written(text, ((start, len(text)),), is_chat=False, end=self.eos, faults=faults)

    def ask(self, example: Example) -> Written:
        """What the last reply of an example, or its completion, answers."""
        if not example.messages:
            return Written(example.prompt or "", (), is_chat=False)
        template = self.template(with_tools=example.uses_tools)
        assert template is not None  # it has written the whole
        turns = [message.as_turn for message in example.messages[:-1]]
        return Written(template.render(turns, example.tools, asks=True)[0], ())

    def _chat(self, example: Example, template: ChatTemplate) -> Written:
        for said, _ in example.segments:
            if not said.isascii() and any(sign in said for sign in NONCHARACTERS):
                raise RowError("hold a noncharacter (U+FDD0 to U+FDD3), which no text may")
        turns = [message.as_turn for message in example.messages]
        text, marked = template.render(turns, example.tools)
        replies = [i for i, message in enumerate(example.messages) if message.role == "assistant"]
        ending = self._ending(template)
        if len(marked) == len(replies):
            spans = [_with_tail(text, span, ending.tail) for span in marked]
            parts = [Part(i, span) for i, span in zip(replies, spans, strict=True)]
        else:
            parts = self._parts(example, template, text, turns)
        faults = _faults(example, template, text, turns, parts)
        learnt = self._learnt(example, text, parts, ending)
        end = ending.mark_of(text[slice(*learnt[-1])]) if learnt else ""
        return Written(text, learnt, end=end, faults=faults)

    def _ending(self, template: ChatTemplate) -> _Ending:
        if template.source not in self._endings:
            known = {*END_MARKS, *filter(None, [self.eos])}
            tail = tail_of(template, known | self.special)
            own = {mark for mark in self.special if mark in tail}
            marks = sorted(known | own, key=lambda mark: (-len(mark), mark))
            self._endings[template.source] = _Ending(tail, tuple(marks))
        return self._endings[template.source]

    def _learnt(
        self, example: Example, text: str, parts: Sequence[Part], ending: _Ending
    ) -> tuple[Span, ...]:
        wanted = parts[-1:] if self.learn == "last" or example.is_judged else parts
        spans = [
            _to_end_mark(text, part.span, ending)
            for part in wanted
            if part.span is not None and example.messages[part.turn].is_learnt
        ]
        return tuple([span for span in spans if span[0] < span[1]])

    def _parts(
        self, example: Example, template: ChatTemplate, text: str, turns: Sequence[Turn]
    ) -> list[Part]:
        """The replies of a template that marks none."""
        if not example.tools and all(_is_plain(message) for message in example.messages):
            shape = tuple([message.role for message in example.messages])
            if shape not in self._skeletons:
                tail = self._ending(template).tail
                self._skeletons[shape] = skeleton(template, shape, tail)
            found = self._skeletons[shape]
            contents = [message.content for message in example.messages]
            if found is not None and (parts := found.parts(text, contents)):
                return parts
        return split(template, text, turns, example.tools)


def _takes_merged(example: Example, template: ChatTemplate) -> bool:
    """Whether a chat is written with its system text at the beginning of the first question."""
    system, *rest = example.messages
    if system.role != "system" or not rest or rest[0].role != "user":
        return False
    first = rest[0].as_turn | {"content": f"{system.content}\n\n{rest[0].content}"}
    turns = [first, *(message.as_turn for message in rest[1:])]
    return attempt(template, turns, example.tools) is not None


def _with_tail(text: str, span: Span, tail: str) -> Span:
    start, end = span
    return (start, end + len(tail)) if text.startswith(tail, end) else span


def _to_end_mark(text: str, span: Span, ending: _Ending) -> Span:
    """With the mark that ends the reply, which may follow it; without what only follows that.

    A model is stopped at the mark, so a line break after it is never generated.
    """
    start, end = span
    bare = text[start:end].rstrip()
    if ending.mark_of(bare):
        return start, start + len(bare)
    found = _AFTER.match(text, end)
    assert found is not None  # any number of spaces
    after = (mark for mark in ending.marks if text.startswith(mark, found.end()))
    mark = next(after, "")
    return start, found.end() + len(mark) if mark else end


def _is_plain(message: Message) -> bool:
    return not (message.calls or message.reasoning or message.name or message.call_id)


# --- What is not as the row says --------------------------------------------------------------


def _faults(
    example: Example,
    template: ChatTemplate,
    text: str,
    turns: Sequence[Turn],
    parts: Sequence[Part],
) -> tuple[str, ...]:
    """What the text lacks of the row; TemplateRowError for a call, which is all that is learnt."""
    thinks_twice = thinks_nothing = False
    for part in parts:
        reply = text if part.span is None else text[slice(*part.span)]
        message = example.messages[part.turn]
        num_thoughts = message.content.count("</think>")
        thinks_twice |= part.span is not None and 0 < num_thoughts < reply.count("</think>")
        is_new = part.span is not None and message.is_learnt and not num_thoughts
        thinks_nothing |= is_new and bool(_NO_THOUGHTS.match(reply))
        names = [call["function"]["name"] for call in message.calls]
        if not all(name in reply for name in names):
            raise TemplateRowError("call tools, which the chat template does not write")
    found = [_LACKS[message.role] for message in example.messages if _is_changed(message, text)]
    thoughts = [message.reasoning.strip() for message in example.messages if message.reasoning]
    if any(thought not in text for thought in thoughts):
        found.append("have reasoning that the chat template leaves out")
    if thinks_twice:
        found.append(
            "have a <think> in the text of a reply, and the chat template writes one more; give "
            "such thoughts as `reasoning_content`"
        )
    if thinks_nothing:
        found.append(
            "have no thoughts, and the chat template adds an empty <think></think> that is learnt: "
            "the model learns to reply without thinking. Give thoughts as `reasoning_content`, or, "
            'to learn the reply alone, set data.chat_template = "chatml" (--chat-template chatml)'
        )
    if example.tools and attempt(template, turns, ()) == text:
        found.append("have `tools`, which the chat template does not write")
    if any(part.span is None for part in parts):
        found.append("have replies that are not learnt, for the chat template writes them anew")
    return tuple(dict.fromkeys(found))


def _unwritten(example: Example) -> str:
    """That a prompt is no turn, and how it becomes one."""
    way = "give it as a list of turns"
    if example.rejected is None and example.is_good is None:
        way = (
            "--column instruction=prompt --column output=completion ([data.columns] in a recipe, "
            "without data.format) makes turns of it"
        )
    return (
        "have a plain prompt, which is learnt without the chat template that the model is asked "
        f'by: {way}; where this is meant, set data.chat_template = "plain" (--chat-template plain)'
    )


_LACKS: Final = {
    "system": "have a system text that the chat template leaves out",
    "user": "have a user's text that the chat template changes",
    "assistant": "have a reply of which the chat template leaves something out",
    "tool": "have a tool's answer that the chat template changes",
}


def _is_changed(message: Message, text: str) -> bool:
    return bool(message.content) and message.content.strip() not in text
