"""Writing: old content or new content, never a part, whatever operation fails."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import pytest
from faulty_disk import Fault, FaultyDisk

from profiles.runs import durable
from profiles.runs.durable import Appender, Disk

ROOT = Path(__file__).parent.parent


def refusing(monkeypatch, folder, at, number=errno.ENOSPC, *, lasts=False):
    """Put a disk in place that fails at the n-th operation."""
    disk = FaultyDisk(folder, Fault(at=at, kind="error", number=number, lasts=lasts))
    monkeypatch.setattr(durable, "disk", disk)
    return disk


@pytest.mark.parametrize("fail_at", range(1, 6))
def test_a_failed_atomic_write_leaves_the_old_or_the_new_content(tmp_path, monkeypatch, fail_at):
    """Every operation of write_atomic fails once; a reader never sees a part."""
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    refusing(monkeypatch, tmp_path, fail_at)

    with pytest.raises(OSError, match="No space"):
        durable.write_atomic(path, b"new content")

    assert path.read_bytes() in (b"old content", b"new content")


def test_there_are_five_operations_to_fail(tmp_path, monkeypatch):
    """The parametrization above covers open, write, sync, rename and the directory's sync."""
    disk = refusing(monkeypatch, tmp_path, 0)

    durable.write_atomic(tmp_path / "file", b"content")

    assert disk.count == 5


def test_a_failed_atomic_write_leaves_no_litter(tmp_path, monkeypatch):
    """The temporary file goes when the rename fails."""
    refusing(monkeypatch, tmp_path, 4)

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
    """What a crash tore is ended, marked, and neither cut off nor continued."""
    path = tmp_path / "log"
    path.write_bytes(b"whole\nto")

    file = Appender(path)
    file.append(b"next")
    file.close()

    assert path.read_bytes() == b"whole\nto torn\nnext\n"


def test_a_file_whose_sync_failed_is_opened_anew(tmp_path, monkeypatch):
    """The kernel reports a lost write once: the same open file would say that all is well."""
    file = Appender(tmp_path / "log")
    file.append(b"one")
    refused = os.fstat(file._fd)
    refusing(monkeypatch, tmp_path, 1, errno.EIO)

    with pytest.raises(OSError, match="error"):
        file.sync()
    closed = file._fd
    file.append(b"two")
    file.sync()

    assert closed is None
    assert os.fstat(file._fd).st_ino == refused.st_ino
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


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


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_what_is_published_is_private_whoever_wrote_it(tmp_path, mask):
    """The umask and a library's chmod do not decide."""
    before = os.umask(mask)
    try:
        (tmp_path / "staging" / "deep").mkdir(parents=True)
        (tmp_path / "staging" / "shared").write_text("x")
        (tmp_path / "staging" / "deep" / "open").write_text("x")
        (tmp_path / "staging" / "deep" / "open").chmod(0o666)
        durable.publish_dir(tmp_path / "staging", tmp_path / "final")
    finally:
        os.umask(before)

    found = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "final").rglob("*")}
    assert found == {"deep": 0o700, "shared": 0o600, "open": 0o600}
    assert (tmp_path / "final").stat().st_mode & 0o777 == 0o700


def published(folder, text):
    """A staged directory with one file, private already."""
    staging = folder / ".tmp-model"
    staging.mkdir(0o700)
    (staging / "file").write_text(text)
    (staging / "file").chmod(0o600)
    durable.publish_dir(staging, folder / "model")


def test_publishing_again_replaces_and_leaves_nothing_over(tmp_path):
    """The second model is there, and nothing of the first."""
    published(tmp_path, "first")
    published(tmp_path, "second")

    assert (tmp_path / "model" / "file").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("fail_at", [1, 2, 3, 4], ids=["file", "folder", "aside", "rename"])
def test_a_publishing_that_fails_leaves_the_older_one(tmp_path, monkeypatch, fail_at):
    """If the second rename is refused, the first is taken back."""
    published(tmp_path, "first")
    refusing(monkeypatch, tmp_path, fail_at)

    with pytest.raises(OSError, match="No space"):
        published(tmp_path, "second")

    assert (tmp_path / "model" / "file").read_text() == "first"


def test_a_symbolic_link_is_not_published(tmp_path):
    """Its target is not ours to sync, to make private or to count."""
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "link").symlink_to("/etc/passwd")

    with pytest.raises(OSError, match="symbolic"):
        durable.publish_dir(tmp_path / "staging", tmp_path / "final")

    assert not (tmp_path / "final").exists()


def test_removing_a_tree_does_not_follow_links(tmp_path):
    """Links to files and directories go; what they point to stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    tree = tmp_path / "root" / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "data").write_text("12345")
    (tree / "to-dir").symlink_to(outside)
    (tree / "to-file").symlink_to(outside / "precious")

    num_bytes = durable.remove_tree(tree, inside=tmp_path / "root")

    assert not tree.exists()
    assert (outside / "precious").read_text() == "x"
    assert num_bytes >= 5


def test_removing_a_link_to_a_directory_removes_the_link(tmp_path):
    """A run directory that is a link must not cost what it points to."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "precious")

    durable.remove_tree(tmp_path / "link", inside=tmp_path)

    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("path", ["outside/tree", "root/../outside/tree", "root/link/tree"])
def test_removing_outside_of_the_root_is_refused(tmp_path, path):
    """Neither by another place, nor by dots, nor by a link on the way."""
    (tmp_path / "outside" / "tree").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")

    with pytest.raises(PermissionError, match="not inside"):
        durable.remove_tree(tmp_path / path, inside=tmp_path / "root")

    assert (tmp_path / "outside" / "tree").is_dir()


def test_leftovers_are_settled(tmp_path):
    """A replaced name without a successor is given back; the rest goes, other names stay."""
    for name in (".old-a-0123ab", ".old-b-0123ab", "b", ".tmp-c-0123ab", ".del-d-0123ab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / ".tmp-e.json-0123ab").write_text("half")
    (tmp_path / "lock").touch()

    num_bytes = durable.clear_leftovers(tmp_path)

    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "lock"}
    assert (tmp_path / "a" / "file").read_text() == ".old-a-0123ab"
    assert num_bytes == len(".old-b-0123ab.tmp-c-0123ab.del-d-0123abhalf")


def test_leftovers_of_another_writer_are_left_alone(tmp_path):
    """The worker must not take away what the supervisor is writing at this moment."""
    for name in (".tmp-model", ".tmp-proc.json-0123ab"):
        (tmp_path / name).mkdir()

    durable.clear_leftovers(tmp_path, "model")

    assert [p.name for p in tmp_path.iterdir()] == [".tmp-proc.json-0123ab"]


WRITERS = {
    "write_text",
    "write_bytes",
    "replace",
    "rename",
    "renames",
    "unlink",
    "remove",
    "removedirs",
    "rmdir",
    "rmtree",
    "move",
    "copyfile",
    "copy",
    "copy2",
    "copytree",
    "truncate",
    "ftruncate",
    "touch",
}
MODULES = {"os", "shutil"}
PATH_METHODS = {"write_text", "write_bytes", "unlink", "rename", "rmdir", "touch", "replace"}
ALLOWED = {
    "runner/supervision/console.py: os.truncate": "the console log is cut while it is appended to",
    "runner/training/heartbeat.py: .open": "stack traces from a process in distress",
    "runner/training/saving.py: .unlink": "out of a staging directory, before it is sealed",
    "runner/training/session.py: .unlink": "out of a staging directory, before it is sealed",
    "runner/methods/own_file.py: .write_text": "in a staging directory, before it is sealed",
    "runner/methods/own_file.py: shutil.copyfile": "in a staging directory, before it is sealed",
    "runner/methods/low_rank.py: config.write_text": "in a staging directory, before it is sealed",
    "runner/training/merging.py: shutil.copyfile": "in a staging directory, before it is sealed",
    "runner/supervision/supervisor.py: .unlink": "a heartbeat is worthless when old",
    "tui/commands/demo.py: shutil.rmtree": "the base model of the demo is made anew",
}
"""`file: call` -> why it need not be durable."""


def writes_in(path):
    """Calls that change a disk, by their names alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id == "open" and _writes(node, 1):
            yield "open"
        elif isinstance(called, ast.Attribute):
            owner = called.value.id if isinstance(called.value, ast.Name) else ""
            if called.attr == "open" and owner not in ("os", "disk") and _writes(node, 0):
                yield f"{owner}.open"
            elif owner == "json" and called.attr == "dump":
                yield "json.dump"
            elif (owner in MODULES and called.attr in WRITERS) or _is_path_method(node):
                yield f"{owner}.{called.attr}"


def _writes(call, place):
    modes = [a for a in call.args[place : place + 1] if isinstance(a, ast.Constant)]
    modes += [k.value for k in call.keywords if k.arg == "mode"]
    texts = [set(str(mode.value)) for mode in modes]
    return any(text <= set("rwxabt+") and text & set("wax+") for text in texts)


def _is_path_method(call):
    """`replace` of a path takes one argument, that of a text two; `disk` is the shim itself."""
    owner = call.func.value
    of_disk = isinstance(owner, ast.Attribute) and owner.attr == "disk"
    is_text = call.func.attr == "replace" and len(call.args) != 1
    return call.func.attr in PATH_METHODS and not of_disk and not is_text


def test_nothing_else_writes():
    """Every write that matters goes through durable; the exceptions are listed with a reason."""
    files = [f for room in ("profiles", "runner", "tui") for f in (ROOT / room).rglob("*.py")]
    found = {
        f"{file.relative_to(ROOT)}: {call}"
        for file in files
        if file.name != "durable.py"
        for call in writes_in(file)
    }

    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "code",
    [
        "open(p, 'w')",
        "p.open('ab')",
        "p.open(mode='x')",
        "p.write_text('x')",
        "os.replace(a, b)",
        "shutil.rmtree(a)",
        "a.replace(b)",
        "json.dump(x, file)",
    ],
)
def test_the_search_for_writes_finds(tmp_path, code):
    """It has teeth."""
    (tmp_path / "m.py").write_text(code)

    assert len(list(writes_in(tmp_path / "m.py"))) == 1


def test_every_method_of_the_disk_is_shimmed():
    """An operation that the faulty disk does not count would never be crashed."""
    methods = {name for name in vars(Disk) if not name.startswith("_")}

    assert methods <= set(vars(FaultyDisk))
