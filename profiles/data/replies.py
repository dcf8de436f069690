"""Where replies stand in what a chat template writes, and by which marks it ends them.

Of a template that marks none, by comparing the text with what it writes for the turns before, and
with what it writes for numbers in the place of the contents.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from profiles.models.chat_template import ChatTemplate, Span, TemplateError, Turn

NONCHARACTERS: Final = "\ufdd0\ufdd1\ufdd2\ufdd3"
"""The signs of templates for what is learnt, and the signs of slots."""
_SLOT: Final = "\ufdd2{}\ufdd3"
"""Noncharacters around a number: they stand for a content, to find where a template puts it."""
_SLOTS: Final = re.compile("\ufdd2(\\d+)\ufdd3")
_ROLES: Final = ("user", "assistant", "user", "assistant")
_REPLIES: Final = (1, 3)


class Part(NamedTuple):
    """A reply of a chat: its characters with the end mark; none where it cannot be told apart."""

    turn: int
    span: Span | None


def split(
    template: ChatTemplate, text: str, turns: Sequence[Turn], tools: Sequence[Turn]
) -> list[Part]:
    """Each reply by comparing the text with that of the turns before it and up to it."""
    parts = []
    for index, turn in enumerate(turns):
        if turn["role"] == "assistant":
            up_to = attempt(template, turns[: index + 1], tools)
            before = attempt(template, turns[:index], tools) if index else ""
            asked = attempt(template, turns[:index], tools, asks=True) or before
            span = None
            if up_to is not None and before is not None and asked is not None:
                span = _between(text, before, asked, up_to)
            parts.append(Part(index, span))
    return parts


def attempt(
    template: ChatTemplate, turns: Sequence[Turn], tools: Sequence[Turn] = (), *, asks: bool = False
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
class Skeleton:
    """What a template writes around the contents of a chat with these roles."""

    order: tuple[int, ...]
    """Turns as the template writes them: some move the system text, or repeat a question."""
    literals: tuple[str, ...]
    """Before each content, and after the last."""
    replies: tuple[tuple[int, int, int], ...]
    """Turn, characters of the literal before it that belong to it, and of the one after."""

    def parts(self, text: str, contents: Sequence[str]) -> list[Part]:
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
            Part(turn, (places[turn][0] - lead, places[turn][1] + tail))
            for turn, lead, tail in self.replies
        ]


def _as_written(content: str) -> tuple[str, ...]:
    """A content as it is, or as templates trim it."""
    return content, content.strip(), content.rstrip(), content.lstrip()


def skeleton(template: ChatTemplate, roles: Sequence[str], tail: str) -> Skeleton | None:
    """Rendered once for all chats with these roles; None if it lacks one or repeats a reply.

    `tail`: what ends every reply.
    """
    turns = _slots(roles)
    text = attempt(template, turns) or ""
    slots = list(_SLOTS.finditer(text))
    order = tuple([int(slot[1]) for slot in slots])
    replies = [i for i, role in enumerate(roles) if role == "assistant"]
    if set(order) != set(range(len(roles))) or any(order.count(i) > 1 for i in replies):
        return None
    bounds = [0, *(edge for slot in slots for edge in slot.span()), len(text)]
    literals = tuple([text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True)])
    places = {turn: slot.span() for turn, slot in zip(order, slots, strict=True)}
    found = []
    for part in split(template, text, turns, ()):
        start, end = places[part.turn]
        first, last = part.span or (start, end)
        if not first <= start < end <= last:
            first, last = start, end
        if tail and text.startswith(tail, end):
            last = end + len(tail)
        found.append((part.turn, start - first, last - end))
    return Skeleton(order, literals, tuple(found))


# --- How they end -------------------------------------------------------------------------------


def tail_of(template: ChatTemplate, marks: Collection[str]) -> str:
    """The marks that a template writes after every reply, the last one too; "" without any.

    After the reply, or after what the template marks of it. A token that opens the next turn, or
    asks for a reply, follows some replies alone.
    """
    try:
        text, marked = template.render(_slots(_ROLES))
    except TemplateError:
        return ""
    ends = {int(slot[1]): slot.end() for slot in _SLOTS.finditer(text)}
    if len(marked) == len(_REPLIES):
        ends = dict(zip(_REPLIES, [last for _, last in marked], strict=True))
    if not ends.keys() >= set(_REPLIES):
        return ""
    one, other = (text[ends[i] :] for i in _REPLIES)
    found = _run_of(marks).match(one[: _shared(one, other)])
    return found[0] if found else ""


def _run_of(marks: Iterable[str]) -> re.Pattern[str]:
    """Marks one after the other, of which the longest counts; white space may come before."""
    longest_first = sorted(marks, key=len, reverse=True)
    return re.compile(rf"\s*(?:{'|'.join(map(re.escape, longest_first))})+")


def _slots(roles: Sequence[str]) -> list[Turn]:
    return [{"role": role, "content": _SLOT.format(i)} for i, role in enumerate(roles)]
