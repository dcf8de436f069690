"""What is taken out of rows before they are written for the model, where a recipe asks for it.

Rows are cleaned between their format and the chat template, in the one pass that check, preview and
training share. Nothing is changed that is not counted, and nothing at all unless it was asked for.
Labels and the names of tools stay as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from profiles import personal
from profiles.data.formats.spec import Example, Message, Row
from profiles.data.html_text import CODE, without_html

if TYPE_CHECKING:
    from profiles.data.rendering import Written

Change = Callable[[str], str]
_LINE_ENDS: Final = re.compile(r"\r\n?")
_INVISIBLE: Final = re.compile("[\u200b\u2060\ufeff\u180e]")
"""Of no width and no meaning; joiners (U+200C, U+200D) have one, in emoji and many scripts."""
_SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
"""Other spaces than the one of ASCII; that of Chinese (U+3000) is kept."""
_RUN: Final = re.compile(r"(?<=[^\s])[ \t]{2,}(?=[^\s])")
_ENDS_OF_LINES: Final = re.compile(r"[ \t]+\n")
_EMPTY_LINES: Final = re.compile(r"\n{3,}")
_CODE_LINE: Final = re.compile(r" {4}|\t")


def tidy(text: str) -> str:
    """White space in one form; lines that are code keep theirs inside and before them."""
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text))
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [_tidy_prose(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _tidy_prose(text[end:])])


def _tidy_prose(text: str) -> str:
    text = _ENDS_OF_LINES.sub("\n", _SPACES.sub(" ", text))
    if "  " in text or "\t" in text:
        lines = text.split("\n")
        text = "\n".join(one if _CODE_LINE.match(one) else _RUN.sub(" ", one) for one in lines)
    return _EMPTY_LINES.sub("\n\n", text)


def compose(text: str) -> str:
    """Unicode's normal form C."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


_CHANGES: Final[dict[str, tuple[Change, str]]] = {
    "html": (without_html, "had HTML taken out (data.clean.html)"),
    "unicode": (compose, "had characters composed (data.clean.unicode)"),
    "whitespace": (tidy, "had white space tidied (data.clean.whitespace)"),
}
"""In the order in which they are made: what stands for a space in HTML is one of those then."""
STEPS: Final = (*_CHANGES, "duplicates")
"""What `data.clean` may have, by name."""


@dataclass(slots=True)
class Cleaner:
    """Cleans the rows of one file, in order, and counts."""

    steps: Collection[str] = ()
    """Of STEPS, those that are asked for."""
    masks: tuple[str, ...] = ()
    """Kinds of personal data that are replaced by a mark such as <EMAIL>."""
    changed: Counter[str] = field(default_factory=Counter)
    """Rows changed, by step."""
    masked: Counter[str] = field(default_factory=Counter)
    """Marks written, by kind of personal data, and"""
    masked_rows: Counter[str] = field(default_factory=Counter)
    """rows with them."""
    num_repeats: int = 0
    """Rows left out."""
    first: dict[str, int] = field(default_factory=dict)
    """Line of the first row, by what was done."""
    seen: set[int] = field(default_factory=set)
    """64 bits of each row so far, where repeats are left out."""

    def clean(self, example: Example, line: int) -> Example:
        """The example as it is trained on."""
        for name, (change, _) in _CHANGES.items():
            if name in self.steps:
                cleaned = _mapped(example, change)
                if cleaned is not example:
                    self.changed[name] += 1
                    self.first.setdefault(name, line)
                example = cleaned
        return self._mask(example, line) if self.masks else example

    def _mask(self, example: Example, line: int) -> Example:
        counts = Counter[str]()

        def change(text: str) -> str:
            masked, found = personal.masked(text, self.masks)
            counts.update(found)
            return masked

        masked = _mapped(example, change, with_calls=True)
        self.masked.update(counts)
        self.masked_rows.update(counts.keys())
        for kind in counts:
            self.first.setdefault(kind, line)
        return masked

    def is_repeat(self, example: Example, written: Sequence[Written], line: int) -> bool:
        """Whether the model has read an earlier row as it would this one."""
        if "duplicates" not in self.steps:
            return False
        roles = tuple([message.role for message in example.messages])
        read = tuple((one.text, one.learnt) for one in written) or (roles, example.segments)
        key = hash((read, example.rejected, example.label, example.is_good))
        if key not in self.seen:
            self.seen.add(key)
            return False
        self.num_repeats += 1
        self.first.setdefault("duplicates", line)
        return True

    @property
    def kinds_told(self) -> tuple[str, ...]:
        """What was done, without counts; each completes "rows like this ..."."""
        marks = (personal.BY_NAME[kind].mark for kind in self.masked)
        return (
            *(what for name, (_, what) in _CHANGES.items() if self.changed[name]),
            *(f"have {mark} in the place of personal data (data.mask)" for mark in marks),
            *(["repeat an earlier one (data.clean.duplicates)"] if self.num_repeats else []),
        )

    def sentences(self, total: int) -> list[str]:
        """What was done, for people."""
        found = [
            f"{self.changed[name]} of {total} rows {what} (first: line {self.first[name]})"
            for name, (_, what) in _CHANGES.items()
            if self.changed[name]
        ]
        for kind, number in self.masked.items():
            about = personal.BY_NAME[kind]
            rows = f"{self.masked_rows[kind]} of {total} rows (first: line {self.first[kind]})"
            found.append(f"masked: {number} {about.title} in {rows}, as {about.mark}")
        if self.num_repeats:
            found.append(
                f"left out: {self.num_repeats} of {total} rows repeat an earlier one "
                f"(data.clean.duplicates; first: line {self.first['duplicates']})"
            )
        return found

    def counts(self) -> dict[str, int]:
        """Rows changed or left out, by all that was asked for."""
        return {
            **{name: self.changed[name] for name in _CHANGES if name in self.steps},
            **{f"mask {kind}": self.masked_rows[kind] for kind in self.masks},
            **({"duplicates": self.num_repeats} if "duplicates" in self.steps else {}),
        }


# --- The texts of an example --------------------------------------------------------------------


def _mapped(example: Example, change: Change, *, with_calls: bool = False) -> Example:
    """The example with its texts changed; itself if none is."""
    new: dict[str, Any] = {
        name: text
        for name in ("prompt", "completion", "text", "rejected")
        if (old := getattr(example, name)) and (text := change(old)) != old
    }
    messages = tuple(_changed(one, change, with_calls=with_calls) for one in example.messages)
    if any(one is not other for one, other in zip(messages, example.messages, strict=True)):
        new["messages"] = messages
    return replace(example, **new) if new else example


def _changed(message: Message, change: Change, *, with_calls: bool) -> Message:
    new: dict[str, Any] = {
        name: text
        for name in ("content", "reasoning")
        if (old := getattr(message, name)) and (text := change(old)) != old
    }
    if with_calls and message.calls:
        calls = tuple([_in_arguments(call, change) for call in message.calls])
        new |= {"calls": calls} if calls != message.calls else {}
    return replace(message, **new) if new else message


def _in_arguments(call: Row, change: Change) -> Row:
    """A call of a tool with the texts among its arguments changed, not its name."""
    if isinstance(inner := call.get("function"), dict):
        return call | {"function": _in_arguments(inner, change)}
    if "arguments" not in call:
        return call
    return call | {"arguments": _in_values(call["arguments"], change)}


def _in_values(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _in_values(one, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_in_values(one, change) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):  # a telephone may be one
        return value if change(str(value)) == str(value) else change(str(value))
    return value
