"""Encodings of text other than UTF-8: their names, and which one the bytes of a file are in.

Decides which encodings are read and what they are called, here and by `iconv`. A guess comes from
`charset-normalizer`, which is loaded only when there is something to guess.
"""

from __future__ import annotations

import codecs
import difflib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

UTF8: Final = "utf-8"

ENCODINGS: Final = {
    "gb18030": "GB18030",
    "iso8859-1": "ISO-8859-1",
    "cp1252": "CP1252",
    "big5": "BIG5",
    "cp932": "CP932",
    "euc_jp": "EUC-JP",
    "cp949": "CP949",
    "cp1251": "CP1251",
    "koi8-r": "KOI8-R",
    "cp1250": "CP1250",
    "cp1253": "CP1253",
    "cp1254": "CP1254",
    "cp1255": "CP1255",
    "cp1256": "CP1256",
    "cp874": "CP874",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "utf-32": "UTF-32",
}
"""Python's names of those that are read, and those of `iconv`; the likelier first."""
_SAID: Final = {"iso8859-1": "Latin-1", "cp1252": "Windows-1252", "cp932": "Shift_JIS"}
_SUPERSETS: Final = {"gbk": "gb18030", "gb2312": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}
"""Every text in the first is the same text in the second."""
_OF_TWO_BYTES: Final = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
_HIGH_RUN: Final = re.compile(rb"[\x80-\xff]+")
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_C1: Final = re.compile("[\x80-\x9f]")
"""Control characters that no text has; where they come out, the bytes meant something else."""
_CLOSE: Final = 0.05
"""Difference of what the library calls chaos, a share, below which two guesses are alike."""


class Guess(NamedTuple):
    """What bytes may be encoded in."""

    name: str
    """Python's."""
    others: tuple[str, ...] = ()
    """That fit as well, but are less common."""


def python_name(name: str) -> str:
    """The name of an encoding that is read, by any name it has; ValueError with the nearest."""
    try:
        found = codecs.lookup(name).name if name.isascii() else ""
    except (LookupError, ValueError):
        found = ""
    found = _SUPERSETS.get(found, found)
    if found in (*ENCODINGS, UTF8):
        return found
    near = difflib.get_close_matches(name.lower(), (*ENCODINGS, UTF8), n=1)
    do = f"did you mean {near[0]}?" if near else f"there are {UTF8}, {', '.join(ENCODINGS)}"
    raise ValueError(f"there is no encoding {name[:40]!r} that is read; {do}")


def said(name: str) -> str:
    """What people call an encoding."""
    return _SAID.get(name, ENCODINGS[name])


def is_mostly_utf8(sample: bytes) -> bool:
    """Most bytes beyond ASCII are part of UTF-8 characters: the rest is damage to them."""
    num_high = len(_HIGH.findall(sample))
    num_sound = len(_HIGH.findall(sample.decode(errors="ignore").encode()))
    return num_sound * 2 > num_high


def guesses(sample: bytes) -> Guess | None:
    """The likeliest encoding of a text that is not UTF-8; None if none fits."""
    from charset_normalizer import from_bytes  # noqa: PLC0415  # only for files that are not UTF-8

    # A letter with an accent stands alone; two bytes make most of what is written in Asia
    has_odd = any(len(run) % 2 for run in _HIGH_RUN.findall(sample))
    names = [name for name in ENCODINGS if not name.startswith("utf")]
    ranked = sorted(names, key=lambda name: has_odd and name in _OF_TWO_BYTES)
    ranks = {name: rank for rank, name in enumerate(ranked)}
    found: dict[str, tuple[float, float, int]] = {}
    for match in from_bytes(sample, cp_isolation=list(ranks), preemptive_behaviour=False):
        for name in map(_canonical, match.could_be_from_charset):
            if name in ranks:
                found[name] = (match.chaos, -match.coherence, ranks[name])
    if not found:
        found = {name: (0.0, 0.0, rank) for name, rank in ranks.items()}
    usable = [name for name in sorted(found, key=found.__getitem__) if fits([sample], name)]
    if not usable:
        return None
    best, text = found[usable[0]], sample.decode(usable[0])
    same = [name for name in ranked if fits([sample], name) and sample.decode(name) == text]
    alike = [name for name in usable if name not in same and _is_close(found[name], best)]
    return Guess(same[0], tuple(alike))


def _is_close(one: tuple[float, float, int], best: tuple[float, float, int]) -> bool:
    return one[0] - best[0] < _CLOSE and one[1] == best[1]


def _canonical(name: str) -> str:
    return codecs.lookup(name).name


def fits(chunks: Iterable[bytes], name: str) -> bool:
    """Whether all of a text is in an encoding."""
    decoder = codecs.getincrementaldecoder(name)()
    try:
        if any(_C1.search(decoder.decode(chunk)) for chunk in chunks):
            return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
