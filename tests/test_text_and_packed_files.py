"""Plain text files, and files packed with gzip."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tracemalloc

import pytest
from data_files import GOOD, examples, refused, write

from profiles.data import dataset
from profiles.data.datafile import MAX_RECORD_BYTES

LINES = "".join(json.dumps(GOOD | {"id": number}) + "\n" for number in range(3)).encode()


def texts(path):
    """What is learnt of each row."""
    return [one.text for one in examples(path)]


@pytest.mark.parametrize(
    ("content", "blocks"),
    [
        ("one\n\ntwo\n", ["one", "two"]),
        ("\n\n one\nstill one\n \t\n\n\ntwo", [" one\nstill one", "two"]),
        ("\ufeffone\r\nstill one\r\n\r\ntwo\r\n", ["one\nstill one", "two"]),
        ("[1] a list of no objects\n", ["[1] a list of no objects"]),
        ("{in braces}\n", ["{in braces}"]),
    ],
)
def test_a_row_of_a_text_file_is_a_block_of_lines(tmp_path, content, blocks):
    """Blank lines stand between them, however many; line ends of Windows are as others."""
    path = write(tmp_path, content, "a.txt")

    assert texts(path) == blocks
    assert dataset.check(path).container == "text, a row is a block of lines between blank lines"


def test_blocks_are_found_by_their_first_line(tmp_path):
    """As an editor counts."""
    path = write(tmp_path, "\none\nmore\n\n\ntwo\n", "a.txt")

    assert [(line, number) for line, number, _ in dataset.read_rows(path)] == [(2, 1), (6, 2)]


def test_faults_of_a_text_file_have_their_place(tmp_path):
    """NUL bytes, and blocks that are larger than a row may be."""
    assert refused(write(tmp_path, "one\n\ntw\0\n", "a.txt")).where.endswith("a.txt:3:3")
    line = b"x" * (MAX_RECORD_BYTES // 3) + b"\n"
    assert refused(write(tmp_path, b"a\n\n" + line * 3, "b.txt")).where.endswith("b.txt:3")
    assert "0 usable examples" in refused(write(tmp_path, "\n \n", "c.txt")).what


def test_json_lines_with_the_suffix_of_text_are_rows(tmp_path):
    """As they were always read."""
    assert len(examples(write(tmp_path, LINES, "a.txt"))) == 3


@pytest.mark.parametrize(
    ("name", "content", "container"),
    [
        ("a.jsonl.gz", LINES, "JSON Lines, gzip"),
        ("a.JSONL.GZ", LINES, "JSON Lines, gzip"),
        ("rows.gz", LINES, "JSON Lines, gzip"),
        ("a.jsonl", LINES, "JSON Lines, gzip"),
        ("a.json.gz", b"[" + LINES.strip().replace(b"\n", b",\n") + b"]", "JSON list, gzip"),
        ("a.csv.gz", b"prompt,completion\n" + b"why?,because\n" * 3, "CSV, gzip, commas"),
        ("a.txt.gz", b"one\n\ntwo\n\nthree", "text, gzip"),
    ],
)
def test_packed_files_are_read_as_what_is_in_them(tmp_path, name, content, container):
    """In one member or in several, as `cat` joins them."""
    path = write(tmp_path, gzip.compress(content[:7]) + gzip.compress(content[7:]), name)

    found = dataset.check(path)

    assert found.num_rows == 3
    assert found.container.startswith(container)
    assert found.num_bytes == path.stat().st_size


def test_the_hash_of_a_packed_file_is_of_the_packed_bytes(tmp_path):
    """As the lock of a run has it."""
    path = write(tmp_path, gzip.compress(LINES), "a.jsonl.gz")
    assert dataset.check(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_packed_file_that_is_cut_or_damaged_is_told(tmp_path):
    """Not as a fault of the disk."""
    whole = gzip.compress(LINES * 500)
    assert "ends too early" in refused(write(tmp_path, whole[:-9], "a.jsonl.gz")).what
    flipped = whole[:40] + bytes([whole[40] ^ 255]) + whole[41:]
    assert "damaged" in refused(write(tmp_path, flipped, "b.jsonl.gz")).what
    assert "damaged" in refused(write(tmp_path, whole + b"rubbish", "c.jsonl.gz")).what


def test_a_bomb_takes_no_more_memory_than_a_row_may(tmp_path):
    """Half a gigabyte of one line in half a megabyte: given up where a row is too large."""
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(512):
            file.write(b"a" * (1 << 20))

    tracemalloc.start()
    error = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "larger than 64 MB" in error.what
    assert peak < 3 * MAX_RECORD_BYTES


def test_the_advice_on_a_lone_object_works_for_a_packed_file(tmp_path):
    """What reads JSON cannot unpack."""
    path = write(tmp_path, gzip.compress(b'{"rows": [{"text": "t"}]}'), "a.json.gz")

    advice = refused(path).do

    assert "gunzip -c" in advice
    assert "| jq '.[\"rows\"]' > rows.json" in advice
    if shutil.which("jq"):
        command = advice.partition("`rows`: ")[2]
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)  # noqa: S602
        assert len(examples(tmp_path / "rows.json")) == 1


def test_a_file_that_is_packed_twice_is_told_and_the_advice_works(tmp_path):
    """It is no text in another encoding."""
    rows = gzip.compress(b'{"text": "t"}\n')
    path = write(tmp_path, gzip.compress(rows), "a.jsonl.gz")

    error = refused(path)

    assert error.what == "the file is packed twice"
    command = error.do.removeprefix("unpack it once: ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)  # noqa: S602
    assert len(examples(tmp_path / "unpacked.a.jsonl.gz")) == 1
