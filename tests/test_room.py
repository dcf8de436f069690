"""Room on a disk: what is enough, what is lacking, and which errors mean that it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.training.room import Shortfall, shortfall, shortfall_of

BLOCK = 4096
FOLDER = Path("/runs/checkpoints")
NEEDED = 1 << 30
MARGIN = 16 << 20


@pytest.fixture
def disk(monkeypatch):
    """Say what the file system has free: blocks of 4 KiB, and names."""

    def arrange(free, *, names=(10**6, 10**6)):
        found = SimpleNamespace(
            f_bavail=free // BLOCK, f_frsize=BLOCK, f_files=names[0], f_favail=names[1]
        )
        monkeypatch.setattr(os, "statvfs", lambda _: found)

    return arrange


def test_a_checkpoint_fits_with_sixteen_mebibytes_to_spare(disk):
    """The journals are written to the same disk."""
    disk(NEEDED + MARGIN)
    assert shortfall(FOLDER, NEEDED) is None

    disk(NEEDED + MARGIN - BLOCK)
    assert shortfall(FOLDER, NEEDED) == Shortfall(FOLDER, NEEDED, NEEDED + MARGIN - BLOCK)


def test_fewer_than_a_hundred_file_names_are_too_few(disk):
    """Free bytes are of no use without them; some file systems do not count names."""
    disk(2 * NEEDED, names=(1000, 100))
    assert shortfall(FOLDER, NEEDED) is None

    disk(2 * NEEDED, names=(1000, 99))
    assert "no file names" in shortfall(FOLDER, NEEDED).cause
    assert shortfall(FOLDER, NEEDED).free_bytes == 2 * NEEDED

    disk(2 * NEEDED, names=(0, 0))
    assert shortfall(FOLDER, NEEDED) is None


def test_a_file_system_that_cannot_be_asked_counts_as_one_with_room(tmp_path):
    """The write will tell."""
    assert shortfall(tmp_path / "nowhere", 1 << 60) is None


def test_what_is_lacking_is_told_in_its_unit_or_by_its_cause():
    """What the checkpoint needs is told with the spare room, so that freeing it is enough."""
    plain = Shortfall(FOLDER, 1_000_000_000, 2_000_000)
    assert str(plain) == f"{FOLDER} has 1.9 MiB free, the checkpoint needs 969.7 MiB"

    assert str(Shortfall(FOLDER, 1, 2, cause="no names")) == f"{FOLDER}: no names"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "your quota is used up"),
        (ValueError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (ValueError(f"quota (os error {errno.EDQUOT})"), "your quota is used up"),
    ],
)
def test_an_error_that_says_so_is_a_want_of_room_that_nobody_can_measure(disk, error, cause):
    """A quota, or a disk that somebody has made room on since."""
    disk(2 * NEEDED)

    assert shortfall_of(error, FOLDER, NEEDED) == Shortfall(FOLDER, NEEDED, 0, cause=cause)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        RuntimeError("shapes do not fit"),
        ValueError("no (os error x)"),
    ],
)
def test_another_error_is_a_want_of_room_only_where_the_disk_is_full(disk, error):
    """What torch says of a full disk does not name it."""
    disk(2 * NEEDED)
    assert shortfall_of(error, FOLDER, NEEDED) is None

    disk(BLOCK)
    assert shortfall_of(error, FOLDER, NEEDED) == Shortfall(FOLDER, NEEDED, BLOCK)


def test_a_number_in_the_text_of_a_systems_error_is_passed_over(disk):
    """Its own number counts."""
    disk(2 * NEEDED)

    assert shortfall_of(OSError(errno.EIO, "(os error 28)"), FOLDER, NEEDED) is None
