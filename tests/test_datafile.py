"""Which files are opened as data, and what a user is told of the others."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from data_files import GOOD, refused, write, write_rows

from profiles.data import datafile, dataset, streams
from profiles.errors import ExitCode


def test_missing_file_names_the_near_one(tmp_path: Path) -> None:
    """A misspelled path is answered with the file that is there."""
    write_rows(tmp_path, [GOOD], "train.jsonl")
    error = refused(tmp_path / "trian.jsonl")
    assert (error.code, error.do) == (ExitCode.NO_INPUT, "did you mean train.jsonl?")


def test_folder_names_its_files(tmp_path: Path) -> None:
    """A folder is answered with the data files inside."""
    write_rows(tmp_path, [GOOD], "train.jsonl")
    error = refused(tmp_path)
    assert (error.code, error.do) == (ExitCode.NO_INPUT, "give one of its files: train.jsonl")
    write_rows(tmp_path, [GOOD], "eval.jsonl")
    assert refused(tmp_path).do == "give one of its files: eval.jsonl, train.jsonl"


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """A named pipe is refused and not waited for."""
    os.mkfifo(tmp_path / "p.jsonl")
    assert "not a regular file" in refused(tmp_path / "p.jsonl").what


@pytest.mark.parametrize("name", ["a\0b.jsonl", "x" * 300 + ".jsonl"])
def test_impossible_path(tmp_path: Path, name: str) -> None:
    """A path the system cannot even look up is an error of the user, not ours."""
    assert refused(tmp_path / name).code in (ExitCode.NO_INPUT, ExitCode.IO_ERROR)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without read permission is answered with the command that gives it."""

    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(streams.io, "FileIO", refuse)
    error = refused(write_rows(tmp_path, [GOOD]))
    assert (error.code, error.why) == (ExitCode.NO_INPUT, "Permission denied")
    assert "chmod u+r" in error.do


def test_a_disk_that_fails_is_told_as_such(tmp_path, monkeypatch):
    """By another exit code than a path that is wrong."""

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(streams.io, "FileIO", fail)
    error = refused(write_rows(tmp_path, [GOOD]))
    assert (error.code, error.why) == (
        ExitCode.IO_ERROR,
        "the system says: Input/output error",
    )


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path):
    """Of the same size too, as an editor in place leaves it."""
    path = write_rows(tmp_path, [GOOD | {"id": number} for number in range(1000)])
    changed = "the file changed while it was read; is it still being written or copied?"

    assert changed not in dataset.inspect(path).dataset.warnings
    found = dataset.inspect(path, progress=lambda *_: os.utime(path, (1, 1)))
    assert found.dataset.warnings[0] == changed


def test_the_share_that_is_read_is_told_on_the_way(tmp_path):
    """Every thousand rows, of the bytes, which are read ahead by a little."""
    path = write_rows(tmp_path, [GOOD | {"id": f"{number:0999}"} for number in range(2500)])
    told = []

    dataset.inspect(path, progress=lambda *one: told.append(one))

    assert [number for number, _ in told] == [1000, 2000]
    assert [share for _, share in told] == pytest.approx([0.4, 0.8], abs=0.03)


@pytest.mark.parametrize(
    ("name", "data", "command"),
    [
        ("a.tar.gz", gzip.compress(b"a.jsonl\0\0", mtime=0), "tar -xzf {0}"),
        ("a.tar", b"a.jsonl\0\0", "tar -xf {0}"),
        ("a.zip", b"PK\x03\x04", "unzip {0}"),
        ("a.jsonl", b"\xfd7zXZ", "unxz -c {0} > {1}/a.unpacked.jsonl"),
        ("a.jsonl", b"BZh9", "bunzip2 -c {0} > {1}/a.unpacked.jsonl"),
        ("a.jsonl", b"7z\xbc\xaf", "7z x {0}"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "unzstd -c {0} > {1}/a.jsonl"),
    ],
)
def test_packed_files_are_answered_with_the_command_that_unpacks(tmp_path, name, data, command):
    """Gzip alone is unpacked here."""
    path = write(tmp_path, data, name)

    error = refused(path)

    assert "packed" in error.what
    assert error.do == "unpack it: " + command.format(path, tmp_path)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.py", b"import os; os.abort()\n"),
        ("a.pkl", b"\x80\x04\x95"),
        ("a.pt", b"PK\x03\x04"),
        ("a.h5", b"\x89HDF"),
        ("a.yaml", b"!!python/object/apply:os.abort []\n"),
    ],
)
def test_only_known_containers_are_read(tmp_path, name, data):
    """No loading script, no pickle, nothing that could run code."""
    error = refused(write(tmp_path, data, name))

    assert error.code is ExitCode.BAD_DATA
    assert "not read" in error.what


def test_a_name_that_nobody_can_look_at_is_a_file_of_its_own():
    """A longer name than any file has; what opens it says why."""
    name = "x" * 300

    assert datafile.files_of(name) == (Path(name),)
