"""Preference pairs: a chosen and a rejected reply, to a prompt under any of the names in use."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from profiles.data.formats.alpaca import question
from profiles.data.formats.spec import Example, Field, Format, Message, RowError
from profiles.data.formats.turns import (
    CHAT_FIELDS,
    chat,
    ending_with_a_reply,
    plain,
    turns,
    turns_of,
)
from profiles.data.formats.values import optional_text, text

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row

_PROMPTS = ("conversations", "messages", "prompt")
_WITHOUT_PROMPT = "have no prompt: the words that both replies begin with are read as it"


def _read(row: Row) -> Example:
    chosen, rejected = _replies(row, "chosen"), _replies(row, "rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        asked = _asked(row)
        if asked == "" and (begin := _shared(chosen, rejected)):
            texts = {"completion": chosen[len(begin) :], "rejected": rejected[len(begin) :]}
            found = plain(row, prompt=begin, **texts)
            return replace(found, remarks=(*found.remarks, _WITHOUT_PROMPT))
        if isinstance(asked, str):
            return plain(row, prompt=asked, completion=chosen, rejected=rejected)
        reply = Message(role="assistant", content=chosen)
        return chat(row, [*asked, reply], *_PROMPTS, rejected=rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowError("have a text and turns in `chosen` and `rejected`")
    conversation = ending_with_a_reply(chosen)
    worse = _last_alone(ending_with_a_reply(rejected), conversation)
    if len(conversation) == 1:
        asked = _asked(row)
        before = [Message(role="user", content=asked)] if isinstance(asked, str) else asked
        conversation = [*(one for one in before if one.content), *conversation]
    return chat(row, conversation, *_PROMPTS, "chosen", "rejected", rejected=worse)


def _last_alone(rejected: list[Message], chosen: list[Message]) -> str:
    """The rejected reply; RowError where the pair differs in more than the text of its last."""
    if len(rejected) > 1 and len(chosen) > 1 and rejected[:-1] != chosen[:-1]:
        raise RowError("have other turns before the rejected reply than before the chosen one")
    if rejected[-1].calls or rejected[-1].reasoning:
        raise RowError("reject a call or reasoning: only rejected texts are read")
    return rejected[-1].content


def _shared(chosen: str, rejected: str) -> str:
    """The words that two texts begin with, if both go on: no space at their end is among them."""
    pairs = zip(chosen, rejected, strict=False)
    num_alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    words = re.sub(r" ?\S*\Z", "", chosen[:num_alike])
    go_on = all(one[len(words) :].strip() for one in (chosen, rejected))
    return words if go_on and chosen != rejected else ""


def _replies(row: Row, key: str) -> str | list[Message]:
    """A reply as it is written: a text, one turn, or all turns that lead to it."""
    value = row.get(key)
    if isinstance(value, dict):
        return turns_of(value, key)
    return turns(row, key) if isinstance(value, list) else text(row, key)


def _asked(row: Row) -> str | list[Message]:
    """What both replies of a pair answer, under any of the names in use."""
    for key in _PROMPTS:
        if isinstance(row.get(key), list):
            return turns(row, key)
    return question(row) if "instruction" in row else optional_text(row, "prompt")


PREFERENCE = Format(
    name="preference",
    required=(Field(name="chosen", holds="either"), Field(name="rejected", holds="either")),
    optional=(
        Field(name="prompt", aliases=("question", "query"), holds="either"),
        Field(name="conversations", holds="list"),
        Field(name="messages", holds="list"),
        Field(name="instruction"),
        Field(name="input"),
        *CHAT_FIELDS,
    ),
    read=_read,
    kind="preference",
    needs="preference training (DPO)",
    instead='name the task: `--task dpo`, in a recipe `task = "dpo"`; or give a file with one '
    "reply per row, for example the `chosen` replies as `output`",
)
