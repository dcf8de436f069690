"""HTML in texts: tags and entities taken out, code left as it is.

Only elements of HTML count, so `vector<int>`, `a < b` and `<answer>` stay. What stands between
backquotes or in a fenced block is code and is left. A tag that needs an end (`<b>`) counts only in
a text that has both, so `#include <map>` stays too. Takes linear time.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache
from html.parser import HTMLParser
from typing import Final, NamedTuple

CODE: Final = re.compile(r"(?:```|~~~)[\s\S]*?(?:```|~~~|\Z)|`[^`\n]+`")
"""Fenced blocks, and code inside a line."""
_TAG: Final = re.compile(r"<!--|</?[A-Za-z][^<>]{0,2000}>|<![A-Za-z][^<>]{0,200}>")
_ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LINES: Final = _words(
    "address article aside blockquote body br caption center dd details div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html legend li main nav ol "
    "optgroup option p pre section select summary table tbody tfoot thead title tr ul"
)
"""Begin a line of their own, and end it."""
_CELLS: Final = frozenset({"td", "th"})
_LOST: Final = frozenset({"script", "style", "template"})
"""What they hold is no text."""
_CLOSINGS: Final = {
    "!--": re.compile("-->"),
    **{name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _LOST},
}
"""Where what is lost ends."""
_ALONE: Final = _words(
    # Have no end, or may be without
    "area base br col embed hr img input link meta param source track wbr "
    "p li dt dd option optgroup tr td th tbody thead tfoot colgroup caption html head body "
    "rt rp"
)
_KNOWN: Final = (
    _LINES
    | _CELLS
    | _LOST
    | _ALONE
    | _words(
        "a abbr acronym audio b bdi bdo big button canvas cite code data datalist del dfn dialog "
        "em font i iframe ins kbd label map mark meter noscript object output picture progress q "
        "ruby s samp small span strike strong sub sup svg textarea time tt u var video"
    )
)
_BARE_ATTRIBUTES: Final = _words(
    "allowfullscreen async autofocus autoplay checked compact controls default defer disabled "
    "download hidden ismap loop multiple muted nohref noshade novalidate nowrap open readonly "
    "required reversed selected"
)
"""May be without a value; `<b and c>` is no tag."""


class _Tag(NamedTuple):
    name: str
    is_end: bool
    is_closed: bool
    """Begins and ends at once: `<br/>`."""


class _Reader(HTMLParser):
    """Reads one tag."""

    found: _Tag | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it if its attributes are such as HTML has."""
        if all(value is not None or name in _BARE_ATTRIBUTES for name, value in attrs):
            self.found = _Tag(tag, is_end=False, is_closed=False)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """The same."""
        self.handle_starttag(tag, attrs)
        self.found = self.found and self.found._replace(is_closed=True)

    def handle_endtag(self, tag: str) -> None:
        """Keep it."""
        self.found = _Tag(tag, is_end=True, is_closed=False)


@lru_cache(maxsize=4096)
def _read(text: str) -> _Tag | None:
    """A tag of HTML; None for what only looks like one."""
    reader = _Reader(convert_charrefs=False)
    reader.feed(text)
    return reader.found if reader.found and reader.found.name in _KNOWN else None


def without_html(text: str) -> str:
    """The text without tags and comments, with lines where they began some; entities unescaped."""
    if "<" not in text and "&" not in text:
        return text
    parts, end = ["\n"], 0
    for code in CODE.finditer(text):
        parts.append(_outside_code(text[end : code.start()], parts[-1][-1:]))
        parts.append(code[0])
        end = code.end()
    parts.append(_outside_code(text[end:], parts[-1][-1:]))
    cleaned = "".join(parts[1:])
    return cleaned if text.endswith("\n") else cleaned.rstrip("\n")


def _outside_code(text: str, before: str) -> str:
    stripped = _without_tags(text, before) if "<" in text else text
    return _ENTITY.sub(lambda one: html.unescape(one[0]), stripped) if "&" in stripped else stripped


def _without_tags(text: str, written: str) -> str:
    """Entities are left: what they stand for is text, not tags. `written`: what comes before."""
    places = [(one, _read(one[0])) for one in _TAG.finditer(text)]
    starts = {tag.name for _, tag in places if tag and not tag.is_end}
    ends = {tag.name for _, tag in places if tag and tag.is_end}
    counted, endless = _ALONE | (starts & ends), set[str]()
    parts: list[str] = []
    end = 0
    for found, tag in places:
        if found.start() < end:
            continue
        name = "!--" if found[0] == "<!--" else tag.name if tag else found[0][1:9].lower()
        if name not in {"!doctype", "!--"} and not _counts(tag, counted):
            continue
        last = found.end()
        if name in _CLOSINGS and not (tag and tag.is_end):
            closing = None if name in endless else _CLOSINGS[name].search(text, last)
            if closing is None:
                endless.add(name)  # none will be found further on either
                continue
            last = closing.end()
        before = text[end : found.start()]
        written = before[-1:] or written
        what = "\n" if name in _LINES else " " if name in _CELLS and tag and tag.is_end else ""
        is_there = what == "\n" and "\n" in (written, text[last : last + 1])
        parts += [before, "" if is_there else what]
        written = parts[-1] or written
        end = last
    return "".join([*parts, text[end:]])


def _counts(tag: _Tag | None, counted: frozenset[str]) -> bool:
    return tag is not None and (tag.name in counted or tag.is_closed)
