"""What was left in texts by mistake, and chats whose turns come in an odd order.

Counts placeholders that nobody filled in and special tokens, which a model reads as marks. Judges
nothing. Takes constant memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from profiles.data.rendering import END_MARKS
from profiles.data.words import printable
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

NUM_NAMES: Final = 5
"""Placeholders, tags or marks that are named to the user."""
MOST_NAMES: Final = 1000
"""That are told apart, to say how many more there are."""
WELL_KNOWN: Final = frozenset(
    (*END_MARKS, "<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "<|begin_of_text|>",
     "<start_of_turn>", "<|turn>", "<bos>", "<eos>", "[INST]", "[/INST]", "<|user|>",
     "<|assistant|>", "<|system|>", "<|start|>", "<|channel|>", "<|message|>",
     "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<image>", "<video>", "<audio>")
)  # fmt: skip
"""Special tokens of the families in use, where the tokenizer is not known."""
_BRACKETS: Final = re.compile(r"<[^<>\n]{1,60}>|\[[^\[\]\n]{1,60}\](?![(\[])|\{\{ ?\w{1,40} ?\}\}")
_TO_FILL: Final = re.compile(
    r"\{\{.*|[<\[](?:[A-Z][A-Z0-9_ '-]{2,}|(?:your|insert|enter) [^<>\[\]]+"
    r"|(?:Your|Insert|Enter) [^<>\[\]]+)[>\]]"
)
_WORDS: Final = re.compile(
    "INFO|ERROR|WARN(ING)?|DEBUG|TRACE|FATAL|CRITICAL|NOTICE|PASS(ED)?|FAIL(ED)?|DONE|TODO|FIXME"
    "|NOTE|TIP|IMPORTANT|CAUTION|INST|SYS|MASK|CLS|SEP|PAD|UNK|BOS|EOS|STEP|YES|NONE|NULL|.*-Z.*"
    "|DOCTYPE.*|IMG|DIV|PRE|CODE|BODY|HEAD|HTML|TABLE|FONT|SPAN|CENTER|STRONG|TITLE|INPUT|LINK"
)
"""What stands in brackets in capitals for itself: logs, notes, classes of a pattern, HTML."""


@dataclass(slots=True)
class Count:
    """How many rows have something, and the line of the first."""

    num_rows: int = 0
    line: int = 0
    names: dict[str, None] = field(default_factory=dict)
    """What was found, in order of appearance, and not much more than MOST_NAMES."""

    def add(self, line: int, names: Iterable[str] = ()) -> None:
        """Count a row."""
        if not self.num_rows:
            self.line = line
        self.num_rows += 1
        if len(self.names) < MOST_NAMES:
            self.names.update(dict.fromkeys(names))

    def sentence(self, total: int, what: str) -> list[str]:
        """Like "3 of 90 rows hold x (first: line 4): a, b"; none if there are no such rows."""
        if not self.num_rows:
            return []
        names = some_of([printable(name, 40) for name in self.names], NUM_NAMES)
        counted = f"{self.num_rows} of {total} {what} (first: line {self.line})"
        return [f"{counted}: {names}" if names else counted]


class Leftovers:
    """Counts over all usable rows of a file."""

    def __init__(self, special: Collection[str] | None = None, ours: Collection[str] = ()) -> None:
        """`special`: the tokens that the model reads as marks; None where it is not known.

        `ours`: what masks personal data, and is no leftover.
        """
        self._ours = frozenset(ours)
        self._special = WELL_KNOWN if special is None else frozenset(special)
        self._unfilled = Count()
        self._marks = Count()
        self._orders: dict[str, Count] = {}

    def add(self, texts: Sequence[str], roles: tuple[str, ...], line: int) -> None:
        """Take a row: its texts, and who says them where it is a chat."""
        unfilled: list[str] = []
        marks: list[str] = []
        for text in texts:
            if "<" in text or "[" in text or "{{" in text:
                self._look(text, unfilled, marks)
        if unfilled:
            self._unfilled.add(line, unfilled)
        if marks:
            self._marks.add(line, marks)
        for kind in _oddities(roles):
            self._orders.setdefault(kind, Count()).add(line)

    def _look(self, text: str, unfilled: list[str], marks: list[str]) -> None:
        for found in _BRACKETS.finditer(text):
            name = found[0]
            if name in self._special:
                marks.append(name)
            elif (
                name not in self._ours
                and _TO_FILL.fullmatch(name)
                and _stands_for_itself(text, found)
            ):
                unfilled.append(name)

    def warnings(self, total: int) -> list[str]:
        """Sentences for the user, the gravest first."""
        found = self._unfilled.sentence(total, "rows hold placeholders that nobody filled in")
        what = "rows hold special tokens in their texts, which a model reads as marks"
        found += self._marks.sentence(total, what)
        for kind, count in self._orders.items():
            found += count.sentence(total, f"rows {kind}")
        return found


def _stands_for_itself(text: str, found: re.Match[str]) -> bool:
    """No index of a list, no type, no word of a log and no tag with an end."""
    if found[0].startswith("{{"):
        return True
    name = found[0][1:-1]
    before = text[: found.start()][-1:]
    return not (before.isalnum() or _WORDS.fullmatch(name) or f"</{name}>" in text)


@lru_cache(maxsize=1024)
def _oddities(roles: tuple[str, ...]) -> tuple[str, ...]:
    """What is odd about the order of turns; many templates refuse or misread it."""
    found = []
    if "system" in roles[1:]:
        found.append("have a system turn that is not the first")
    said = [role for role in roles if role != "system"]
    pairs = list(pairwise(said))
    if ("user", "user") in pairs:
        found.append("have two turns of the user in a row")
    if ("assistant", "assistant") in pairs:
        found.append("have two replies in a row")
    if said[:1] == ["assistant"] and "user" in said:
        found.append("begin with a reply")
    return tuple(found)
