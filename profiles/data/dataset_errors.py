"""What a user is told about the content of a broken data file.

Decides the words: what is wrong, why it is refused, and the command or edit that repairs it; of
encodings charset_errors.py tells. Finds no fault itself: the readers do.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.data.formats import cell_kinds, describe, names
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Collection

    from profiles.data.formats.spec import Format

_ROWS_KEY = re.compile(rb'"([^"\\]{1,60})"\s*:\s*\[\s*\{')
"""A key whose value may be rows."""


def not_json(place: str, reason: str, text: str, index: int) -> UserError:
    """Tell of a fault at one character of a text, shown with what is around it."""
    if text[index : index + 1] == "\0":
        return nul_bytes(place)
    start = max(0, index - 30)
    excerpt = printable(text[start : index + 30].strip(), 60)
    return _bad_data(
        f"not JSON: {'…' if start else ''}{excerpt}",
        why=reason,
        do="repair the line; in JSON Lines each line is one complete object",
        where=place,
    )


def carriage_returns(path: str, place: str, *, is_packed: bool) -> UserError:
    """Tell of lines that end with a carriage return alone, as old Macs wrote them."""
    file, source = Path(path), shlex.quote(path)
    if is_packed:
        file = file.with_suffix("")
    new = shlex.quote(str(file.with_name(f"{file.stem}-lines{file.suffix}")))
    tr = "tr '\\r' '\\n'"
    command = f"gunzip -c {source} | {tr} > {new}" if is_packed else f"{tr} < {source} > {new}"
    return _bad_data(
        "lines end with a carriage return alone",
        why="so the whole file is one line; a line ends with a line feed",
        do=f"write it with line feeds: {command}",
        where=place,
    )


def torn(place: str, text: str, *, has_changed: bool) -> UserError:
    """Tell of a file that ends too early."""
    grown = " (it changed while it was read)" if has_changed else ""
    return _bad_data(
        "the file ends in the middle of a record - is the file still being written or copied?",
        why=f"the last record is incomplete{grown}: …{printable(text[-40:], 40)}",
        do="wait until the file is complete, or copy it again",
        where=place,
    )


def too_big(place: str, max_bytes: int) -> UserError:
    """Tell of a record that may not fit in memory."""
    return _bad_data(
        f"a single record is larger than {max_bytes // 1_000_000} MB",
        why="a record is held in memory whole; usually a line break or a quote is missing",
        do="split the record, or write one object per line",
        where=place,
    )


def too_deep(place: str, max_depth: int) -> UserError:
    """Tell of a record with lists in lists in lists."""
    return _bad_data(
        f"a record is nested deeper than {max_depth} levels",
        why="no data format needs more than 4 levels",
        do="check how the file was written",
        where=place,
    )


def no_object(subject: str, place: str) -> UserError:
    """Tell of a row that is JSON but has no keys."""
    return _bad_data(
        f"{subject} is not an object",
        why='each row must be a JSON object such as {"prompt": "…", "completion": "…"}',
        do=f"write the rows in one of the formats: {describe()}",
        where=place,
    )


def lone_object(path: str, head: bytes, *, suffix: str, is_packed: bool) -> UserError:
    """Tell of a file with one object, which may hold the rows in one of its values."""
    do = "put the rows in a list: [ {…}, {…} ], or write one object per line in a .jsonl file"
    source, key = shlex.quote(path), _ROWS_KEY.search(head)
    name, command, then = key[1].decode(errors="replace") if key else "", "", ""
    if name and cell_kinds().get(name) != "list":
        name = printable(name, 60)
        command, then = f"jq '.[\"{name}\"]'", "rows.json"
        do += f"; if the rows are in `{name}`"
    elif suffix != ".json":
        command, then = "jq -c .", "rows.jsonl"
    if command:
        unpack = f"gunzip -c {source} | {command}" if is_packed else f"{command} {source}"
        do += f": {unpack} > {then}"
    return _bad_data(
        "the file is a single object, or objects spread over lines, not a list of rows",
        why="a .json file must hold a list of objects, a .jsonl file one object per line",
        do=do,
        where=f"{path}:1:1",
    )


def not_read(path: str, kind: str) -> UserError:
    """Tell of a kind of file that no reader is for."""
    return _bad_data(
        f"this kind of file is not read ({kind})",
        why="data is read from .json (a list of objects), .jsonl (one object per line), .csv, "
        f".tsv, .txt and .parquet, in the formats {describe()}",
        do="convert the file to JSON Lines (.jsonl) in UTF-8",
        where=path,
    )


_UNPACK = {
    ".tgz": "tar -xzf {old}",
    ".bz2": "bunzip2 -c {old} > {new}",
    ".xz": "unxz -c {old} > {new}",
    ".zst": "unzstd -c {old} > {new}",
    ".zip": "unzip {old}",
    ".7z": "7z x {old}",
    ".tar": "tar -xf {old}",
}


def packed(path: str, suffix: str) -> UserError:
    """Tell of a compressed file, with the command that unpacks it."""
    file = Path(path)
    new = file.with_suffix("") if file.suffix.lower() == suffix else None
    if new is None or not new.suffix:
        new = file.with_name(f"{file.stem}.unpacked.jsonl")
    command = _UNPACK[suffix].format(old=shlex.quote(path), new=shlex.quote(str(new)))
    return _bad_data(
        f"the file is packed ({suffix.lstrip('.')})",
        why="of packed files those of gzip are read (.jsonl.gz, .json.gz, .csv.gz, .txt.gz)",
        do=f"unpack it: {command}",
        where=path,
    )


def damaged_gzip(path: str, reason: str, *, is_cut: bool) -> UserError:
    """Tell of a file that does not unpack to its end."""
    return _bad_data(
        "the packed file ends too early - is it still being written or copied?"
        if is_cut
        else "the packed file is damaged",
        why=f"gzip says: {printable(reason, 200)}",
        do="wait until the file is complete, or copy it again",
        where=path,
    )


def packed_twice(path: str) -> UserError:
    """Tell of a packed file in a packed file, with the command that takes one off."""
    new = Path(path).with_name(f"unpacked.{Path(path).name}")
    return _bad_data(
        "the file is packed twice",
        why="what gzip unpacks from it is packed with gzip again",
        do=f"unpack it once: gunzip -c {shlex.quote(path)} > {shlex.quote(str(new))}",
        where=path,
    )


def no_parquet(path: str) -> UserError:
    """Tell of a .parquet file that holds something else."""
    return _bad_data(
        "the file is not a Parquet file",
        why="a Parquet file begins with the letters PAR1",
        do="copy the file again, or give it the name of what it is (.jsonl, .csv)",
        where=path,
    )


def damaged_columns(path: str, kind: str, reason: str, *, has_changed: bool) -> UserError:
    """Tell of a file of columns, Parquet or Arrow, that the library cannot read."""
    grown = " (it changed while it was read)" if has_changed else ""
    return _bad_data(
        f"the {kind} file is damaged or not complete",
        why=f"{printable(' '.join(reason.split()), 200)}{grown}",
        do="copy or write the file again; its index stands at the end and is written last",
        where=path,
    )


def nul_bytes(place: str) -> UserError:
    """Tell of a file that a copy or a disk left holes in."""
    return _bad_data(
        "the file holds NUL bytes",
        why="a copy or a disk failed: NUL bytes are never part of text",
        do="copy or write the file again",
        where=place,
    )


def not_csv(place: str, reason: str) -> UserError:
    """Tell of a record whose quotes or line breaks do not fit."""
    return _bad_data(
        "not CSV",
        why=reason,
        do='write a quote inside a quoted cell twice (""), and each row on a line of its own',
        where=place,
    )


def open_quote(place: str, num_lines: int) -> UserError:
    """Tell of a quote that swallows the rest of the file."""
    return _bad_data(
        "a quote is opened here and never closed",
        why=f"{num_lines} lines from here on were read as one cell, up to the end of the file",
        do="close the quote; if the file is cut off, wait until it is complete or copy it again",
        where=place,
    )


def bad_header(place: str, what: str) -> UserError:
    """Tell of a table whose columns cannot be told apart."""
    return _bad_data(
        what,
        why="the first line names the columns, each by a name of its own",
        do="write the names of the columns into the first line",
        where=place,
    )


def bad_row(place: str, fault: str) -> UserError:
    """Tell of one row, where rows are read without being counted."""
    return _bad_data(
        f"1 row or more {fault}",
        why="each row must be one object with keys of its own",
        do="repair the row; `advisor data check` counts all that are faulty",
        where=place,
    )


def faulty_rows(place: str, faults: str, *, why: str, do: str) -> UserError:
    """Tell of rows that do not fit the format, counted by kind."""
    return _bad_data(faults, why=why, do=do, where=place)


def no_examples(path: str, reason: str, *, has_rows: bool) -> UserError:
    """Tell of a file that has nothing to learn from, though it may have rows."""
    copied = "check that the file was written or copied completely"
    return _bad_data(
        "0 usable examples",
        why=reason,
        do="give rows with a reply that is learnt; `advisor data show` shows these"
        if has_rows
        else copied,
        where=path,
    )


def not_to_be_divided_by(path: str, column: str, *, why: str, do: str) -> UserError:
    """Tell of a `data.split_by` that names no column, or one with too many values."""
    return _bad_data(
        f"rows cannot be divided by `{printable(column, 40)}` (data.split_by)",
        why=why,
        do=do,
        where=path,
    )


def no_row_there(path: str, place: str) -> UserError:
    """Tell of a place that is not in the file."""
    return _bad_data(
        f"no row begins at {place} or after it",
        why="the file ends before, or has no row at all",
        do="name an earlier one; `advisor data check` tells how many there are",
        where=path,
    )


def other_training(path: str, found: Format, kinds: Collection[str], *, instead: str) -> UserError:
    """Tell of sound data whose rows are of another kind than these, and what to do `instead`."""
    return _bad_data(
        f"{found.name} data is for {found.needs}, not for this task",
        why=f"here it can be {', '.join(names(kinds))}",
        do=instead,
        where=path,
    )


def nothing_to_learn(path: str, problem: str) -> UserError:
    """Tell of a length that cuts the replies off."""
    return _bad_data(
        problem,
        why="prompts come first, and what is behind max_length is cut off",
        do="raise max_length above the p95 length, or shorten the prompts",
        where=path,
    )


def _bad_data(what: str, *, why: str, do: str, where: str) -> UserError:
    return UserError(what, why=why, do=do, where=where, code=ExitCode.BAD_DATA)
