"""What in the content of sound rows a person should look at before training on them.

Counts, each with the line of the first: repeats, contradictions, prompts that are missing, replies
that are nearly so, HTML, control characters; what was left in texts by mistake is leftovers.py's.
Judges nothing and changes no row. Takes constant memory but for 28 bytes a row.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from profiles import personal
from profiles.data.classes import NUM_LABELS
from profiles.data.leftovers import Count, Leftovers
from profiles.data.personal_count import PersonalCount
from profiles.data.repeats import Likeness, RowHashes, RowIndex
from profiles.data.scripts import ScriptCount

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from profiles.data.formats.spec import Example, Segments

SHORT_REPLY_CHARS: Final = 10
NUM_TAGS: Final = 32
_HTML = re.compile(
    r"</?(a|b|blockquote|body|br|code|div|em|font|h[1-6]|head|hr|html|i|img|li|meta|ol|p|pre"
    r"|script|span|strong|style|sub|sup|table|t[bdhr]|tbody|thead|title|ul)(\s[^<>]{0,300})?/?>"
    r"|&(?:nbsp|amp|lt|gt|quot|#\d{1,6});",
    re.IGNORECASE,
)
_LOWER: Final = bytes(range(256)).lower()
_SPACES: Final = b" \t\n\r\v\f"
_CAPITALS_AND_SPACES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" + _SPACES
_TEXT_BYTES: Final = bytes({9, 10, 13, *range(32, 127), *range(128, 256)})
"""What is left of UTF-8 without these is control characters."""


class Quality:
    """Counts over all usable rows of a file."""

    def __init__(self, special: Collection[str] | None = None, masks: Collection[str] = ()) -> None:
        """`special`: the tokens that the model reads as marks; None where it is not known.

        `masks`: kinds of personal data in whose place marks stand.
        """
        self.num_rows = 0
        self.leftovers = Leftovers(special, [personal.BY_NAME[kind].mark for kind in masks])
        self.index = RowIndex()
        self.scripts = ScriptCount()
        self.labels = Counter[str]()
        self.one_sided = Count()
        self.short = Count()
        self.silent = Count()
        self.html = Count()
        self.control = Count()
        self.broken = Count()
        self.equal_pairs = Count()
        self.personal = PersonalCount()

    def add(self, example: Example, segments: Segments, line: int) -> None:
        """Take a row."""
        self.num_rows += 1
        texts = [text for text, _ in segments]
        if example.rejected is not None:
            if example.rejected == texts[-1]:
                self.equal_pairs.add(line)
            texts.append(example.rejected)
        roles = tuple([turn.role for turn in example.messages])
        normal = [_normalised(text) for text in texts]
        self.index.add(_hashes(example, roles, texts, normal), line)
        label = example.label if example.is_good is None else str(example.is_good).lower()
        if label is not None and (label in self.labels or len(self.labels) < NUM_LABELS):
            self.labels[label] += 1
        self._look_at_shape(example, segments, line)
        self._look_at_texts(texts, normal, line)
        self.leftovers.add(texts, roles, line)

    def _look_at_shape(self, example: Example, segments: Segments, line: int) -> None:
        if example.text is not None:
            return
        asked, is_silent = bool(example.prompt and not example.prompt.isspace()), False
        for turn in example.messages[:-1]:
            says_nothing = not turn.content or turn.content.isspace()
            if turn.role != "assistant":
                asked = asked or not says_nothing
            elif says_nothing and not turn.calls:
                is_silent = True
        if is_silent:
            self.silent.add(line)
        # Both replies of a pair may tell the whole dialogue, so that no prompt is missing
        if not asked and example.rejected is None:
            self.one_sided.add(line)
        if len(segments[-1][0].strip()) < SHORT_REPLY_CHARS:
            self.short.add(line)

    def _look_at_texts(self, texts: list[str], normal: list[bytes], line: int) -> None:
        whole = "\n".join(texts)
        data = whole.encode()
        signs = personal.signs_of(data)
        self.personal.add(whole, signs, line)
        is_ascii = whole.isascii()
        num_solid = sum(map(len, normal)) if is_ascii else len(data.translate(None, _SPACES))
        num_letters = num_solid - len(signs.translate(None, _CAPITALS_AND_SPACES))
        self.scripts.add(num_letters, b"" if is_ascii else signs)
        if b"<" in signs or b"&" in signs:
            tags = [tag for text in texts for tag in _tags(text)]
            if tags:
                self.html.add(line, [f"<{tag[1].lower()}>" if tag[1] else tag[0] for tag in tags])
        if signs.translate(None, _TEXT_BYTES):
            self.control.add(line)
        if not is_ascii and "\ufffd" in whole:
            self.broken.add(line)

    def warnings(self, likeness: Likeness) -> list[str]:
        """Sentences for the user, the gravest first."""
        total = self.num_rows
        found = self.equal_pairs.sentence(total, "pairs choose and reject the same text")
        found += self.one_sided.sentence(total, "rows have a reply but nothing that it replies to")
        found += self.silent.sentence(total, "rows have an empty reply before their last")
        found += self.leftovers.warnings(total)
        found += _repeat_warnings(likeness, total)
        found += self.broken.sentence(
            total, "rows hold U+FFFD, what a wrong decoding leaves behind"
        )
        found += self.personal.sentences(total)
        found += self.control.sentence(total, "rows hold control characters")
        found += self.html.sentence(total, "rows hold HTML")
        if self.short.num_rows * 2 <= total:  # where most are short, that is the task
            few = f"rows have a reply shorter than {SHORT_REPLY_CHARS} characters"
            found += self.short.sentence(total, few)
        return found


def _tags(text: str) -> Iterator[re.Match[str]]:
    """Tags and entities of HTML: the first few tell what kind of text it is."""
    return islice(_HTML.finditer(text), NUM_TAGS)


def _repeat_warnings(likeness: Likeness, total: int) -> list[str]:
    sentences = (
        (likeness.prompt, "ask what an earlier row asks, and answer otherwise"),
        (likeness.exact, "repeat an earlier row exactly"),
        (likeness.near, "repeat an earlier row but for white space and case"),
    )
    return [f"{one.count} of {total} rows {what} ({one})" for one, what in sentences if one.count]


def _hashes(
    example: Example, roles: tuple[str, ...], texts: list[str], normal: list[bytes]
) -> RowHashes:
    """Of the last text as the reply, of those before it as the prompt; `normal`: normalised."""
    exact = hash((roles, *texts, example.label, example.is_good))
    if example.label is not None:  # the label is the reply to the text
        return RowHashes(exact, hash(normal[0]), hash(example.label))
    if example.is_good is not None:  # many replies to one prompt are the rule
        return RowHashes(exact, hash(tuple(normal)), hash(example.is_good))
    if example.rejected is not None:  # many pairs with one prompt are the rule
        return RowHashes(exact, hash(tuple(normal)), 0)
    if not any(normal[:-1]):  # nothing is asked, so nothing can be answered otherwise
        return RowHashes(exact, hash(normal[-1]), 0)
    return RowHashes(exact, hash(tuple(normal[:-1])), hash(normal[-1]))


def _normalised(text: str) -> bytes:
    """Without white space and, as far as that is defined, without case."""
    folded = text if text.isascii() else text.casefold()
    return folded.encode().translate(_LOWER, _SPACES)
