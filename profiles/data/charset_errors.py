"""What a user is told of a data file that is not UTF-8, with the command that converts it.

Decides the words, and what is asked of the file: whether its other lines are UTF-8, and which
encoding all of it is in.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from profiles.data import charsets, streams
from profiles.data.charsets import ENCODINGS, Guess, said
from profiles.errors import ExitCode, UserError

_SAMPLE_BYTES: Final = 1 << 16
"""Of lines that are more than ASCII, from which the encoding is guessed."""


def wide_encoding(path: str, name: str, evidence: str) -> UserError:
    """Tell of a text with two or four bytes a character; `name` is Python's of the encoding."""
    return _bad_data(
        f"the file is {said(name)}, not UTF-8",
        why=f"seen from {evidence}",
        do=_ways(path, name),
        where=f"{path}:1:1",
    )


def not_utf8(path: str, place: str, error: UnicodeDecodeError) -> UserError:
    """Tell of a byte that is not UTF-8: another encoding, or damage to one line."""
    line = place.removeprefix(path).split(":")[1]
    what = f"line {line}: byte 0x{error.object[error.start]:02x} is not UTF-8"
    faulty = _line_around(error.object, error.start)
    sample = _sample(path, faulty)
    if charsets.is_mostly_utf8(sample):
        own = charsets.guesses(faulty) if not charsets.is_mostly_utf8(faulty) else None
        return _bad_data(
            what + (f"; looks like {said(own.name)}" if own else ""),
            why="the rest of the file is UTF-8, which a conversion of the whole would spoil",
            do="repair the damaged characters of the line",
            where=place,
        )
    guess = _encoding_of(path, sample)
    if guess is None:
        return _bad_data(
            what,
            why="no encoding that is read fits the whole file: its parts may be of several",
            do=f"convert each part to UTF-8 by itself; `iconv -f NAME` knows {_names()}",
            where=place,
        )
    others = " or ".join(map(said, guess.others[:3]))
    return _bad_data(
        f"{what}; looks like {said(guess.name)}",
        why="data files are read as UTF-8"
        + (f"; so little text could be {others} too, so look at the result" if others else ""),
        do=_ways(path, guess.name),
        where=place,
    )


def not_in_encoding(path: str, name: str, line: int, byte: int) -> UserError:
    """Tell of a byte that is not of the encoding that the user named."""
    return _bad_data(
        f"line {line}: byte 0x{byte:02x} is not {said(name)}",
        why=f'the file is to be read as {said(name)} (data.encoding = "{name}")',
        do="leave data.encoding out: the error then names the encoding that is found",
        where=f"{path}:{line}",
    )


def _ways(path: str, name: str) -> str:
    return (
        f'{_iconv(path, name)}; or read it as it is: data.encoding = "{name}" (--encoding {name})'
    )


def _iconv(path: str, name: str) -> str:
    file, source = Path(path), shlex.quote(path)
    with Path(path).open("rb") as opened:
        is_packed = opened.read(2) == streams.GZIP_MAGIC
    inner = file.with_suffix("") if is_packed and file.suffix.lower() == ".gz" else file
    new = shlex.quote(str(file.with_name(f"{inner.stem}.utf8{inner.suffix}")))
    if is_packed:
        return f"gunzip -c {source} | iconv -f {ENCODINGS[name]} -t UTF-8 > {new}"
    return f"iconv -f {ENCODINGS[name]} -t UTF-8 {source} > {new}"


def _names() -> str:
    return ", ".join(ENCODINGS.values())


def _line_around(data: bytes, index: int) -> bytes:
    """The line that holds a byte, or of a giant one the part from there on."""
    start = data.rfind(b"\n", 0, index) + 1
    end = data.find(b"\n", index)
    line = data[start : end if end >= 0 else len(data)]
    return line if len(line) <= _SAMPLE_BYTES else _whole(data[index : index + _SAMPLE_BYTES])


def _whole(data: bytes) -> bytes:
    """Up to the last space or quote, which is no part of a longer character in any encoding."""
    return data[: max(map(data.rfind, (b" ", b'"', b","))) + 1] or data


def _sample(path: str, faulty: bytes) -> bytes:
    """Lines of the file that are more than ASCII, from its beginning, and the faulty one."""
    found, size, rest = [faulty], 0, b""
    with streams.chunks_of(path) as chunks:
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _SAMPLE_BYTES:
                lines.append(_whole(rest))
            chosen = [line for line in lines if not line.isascii()]
            found += chosen
            size += sum(map(len, chosen))
            if size > _SAMPLE_BYTES or len(rest) > _SAMPLE_BYTES:
                break
        else:
            found.append(rest)
    return b"\n".join(found)


def _encoding_of(path: str, sample: bytes) -> Guess | None:
    """The likeliest encoding that all of the file is in."""
    guess = charsets.guesses(sample)
    if guess is None:
        return None
    names = (guess.name, *guess.others)
    for name in names:
        with streams.chunks_of(path) as chunks:
            if charsets.fits(chunks, name):
                return Guess(name, tuple([other for other in names if other != name]))
    return None


def _bad_data(what: str, *, why: str, do: str, where: str) -> UserError:
    return UserError(what, why=why, do=do, where=where, code=ExitCode.BAD_DATA)
