"""Writing: old content or new content, never a part, whatever operation fails."""

from __future__ import annotations

import errno

import pytest

from profiles import durable
from profiles.durable import Appender, Disk


class FailingDisk(Disk):
    """Fails at the n-th operation; a failing write leaves half of its bytes."""

    def __init__(self, fail_at):
        self.count = 0
        self.fail_at = fail_at

    def _step(self):
        self.count += 1
        if self.count == self.fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, path, flags):
        self._step()
        return super().open(path, flags)

    def write(self, fd, data):
        try:
            self._step()
        except OSError:
            super().write(fd, data[: len(data) // 2])
            raise
        super().write(fd, data)

    def fsync(self, fd):
        self._step()
        super().fsync(fd)

    def rename(self, source, target):
        self._step()
        super().rename(source, target)


@pytest.mark.parametrize("fail_at", range(1, 6))
def test_a_failed_atomic_write_leaves_the_old_or_the_new_content(tmp_path, monkeypatch, fail_at):
    """Every operation of write_atomic fails once; a reader never sees a part."""
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    monkeypatch.setattr(durable, "disk", FailingDisk(fail_at))

    with pytest.raises(OSError, match="No space"):
        durable.write_atomic(path, b"new content")

    assert path.read_bytes() in (b"old content", b"new content")


def test_there_are_five_operations_to_fail(tmp_path, monkeypatch):
    """The parametrization above covers open, write, sync, rename and the directory's sync."""
    disk = FailingDisk(0)
    monkeypatch.setattr(durable, "disk", disk)

    durable.write_atomic(tmp_path / "file", b"content")

    assert disk.count == 5


def test_a_failed_atomic_write_leaves_no_litter(tmp_path, monkeypatch):
    """The temporary file goes when the rename fails."""
    monkeypatch.setattr(durable, "disk", FailingDisk(4))

    with pytest.raises(OSError, match="No space"):
        durable.write_atomic(tmp_path / "file", b"new")

    assert list(tmp_path.iterdir()) == []


def test_writing_through_a_symbolic_link_is_refused(tmp_path):
    """A planted link must not redirect an append."""
    target = tmp_path / "target"
    target.write_text("precious\n")
    link = tmp_path / "link"
    link.symlink_to(target)

    with pytest.raises(OSError, match="symbolic"):
        Appender(link)

    assert target.read_text() == "precious\n"


def test_appending_after_a_torn_line_starts_a_new_line(tmp_path):
    """What a crash tore is ended, not cut off and not continued."""
    path = tmp_path / "log"
    path.write_bytes(b"whole\nto")

    file = Appender(path)
    file.append(b"next", sync=True)
    file.close()

    assert path.read_bytes() == b"whole\nto\nnext\n"


def test_a_directory_is_made_exclusively(tmp_path):
    """The second maker is told."""
    durable.make_dir(tmp_path / "run")

    with pytest.raises(FileExistsError):
        durable.make_dir(tmp_path / "run")


def test_files_are_private(tmp_path):
    """Others on the box read nothing of a run."""
    path = tmp_path / "file"

    durable.write_atomic(path, b"x")

    assert path.stat().st_mode & 0o777 == 0o600
