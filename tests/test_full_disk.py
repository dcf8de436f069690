"""A wholly full disk: what is asked of a run reaches it, and nothing printed there ends it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
from doubles import end_everything, wait_for

from profiles.runs import durable, find_run, rundir
from profiles.runs.state import State, status
from runner.supervision import control, exit_record


@pytest.fixture
def run(home):
    """A run that nobody works on."""
    found = rundir.create("a run")
    durable.write_json(found.manifest, {"created": 1.0})
    rundir.keep_rooms(found)
    return found


class Full(durable.Disk):
    """Gives no new blocks: no file is made, and none that was never written grows."""

    def open(self, path, flags, *_mode):
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return super().open(path, flags)


@pytest.fixture
def full(monkeypatch):
    """From now on the disk is."""
    return lambda: monkeypatch.setattr(durable, "disk", Full())


def verbs(run):
    """What waits for an answer, in order."""
    return [request.verb for request in control.waiting(run)]


def test_requests_are_left_in_room_that_was_kept(run, full):
    """Four at once, and as they would be on any disk; then there is none left."""
    full()
    for verb in ("pause", "checkpoint", "stop", "stop_now"):
        control.leave(run, verb, 1)

    assert verbs(run) == ["pause", "checkpoint", "stop", "stop_now"]
    with pytest.raises(OSError, match="No space left"):
        control.leave(run, "pause", 1)


def test_an_answered_request_is_room_for_the_next(run, full):
    """So that asking goes on for as long as the run answers, longer requests too."""
    full()
    for number in range(3 * rundir.NUM_ROOMS):
        control.leave(run, "change", 1, {"eval_every": min(10**number, 10**9)})
        (request,) = control.pending(run)
        control.answer(run, request, "obeyed")

    assert control.waiting(run) == []
    assert len(list(run.rooms.iterdir())) == rundir.NUM_ROOMS


def test_with_room_kept_files_stay_as_they_are(run):
    """No more of them gather."""
    before = {path.name: path.read_bytes() for path in run.rooms.iterdir()}
    control.leave(run, "pause", 1)
    control.answer(run, control.pending(run)[0], "obeyed")

    assert {path.name: path.read_bytes() for path in run.rooms.iterdir()} == before
    assert list(run.requests.iterdir()) == []


def test_a_request_too_long_to_be_kept_is_taken_away(run):
    """Whoever wrote it."""
    for room in run.rooms.iterdir():
        room.unlink()
    content = {"run": run.id, "attempt": 1, "verb": "pause", "padding": "x" * rundir.ROOM_BYTES}
    durable.write_json(run.requests / "long.json", content)
    control.answer(run, control.pending(run)[0], "obeyed")

    assert list(run.rooms.iterdir()) == []


def test_another_fault_than_a_full_disk_uses_no_room(run, monkeypatch):
    """A disk that is broken is told."""

    class Broken(durable.Disk):
        def open(self, path, *_):
            raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(durable, "disk", Broken())
    with pytest.raises(OSError, match="Input/output"):
        control.leave(run, "stop", 1)
    assert len(list(run.rooms.iterdir())) == rundir.NUM_ROOMS


@pytest.mark.parametrize("size", [4096, 4097])
def test_room_takes_what_fits_into_it(tmp_path, size):
    """And is left alone by what does not."""
    durable.keep_room(tmp_path / "room", 4096)
    fits = size <= 4096
    with contextlib.nullcontext() if fits else pytest.raises(OSError, match="more than the room"):
        durable.fill_room(tmp_path / "room", tmp_path / "final", b"x" * size)

    assert (tmp_path / "final").exists() == fits
    assert fits or (tmp_path / "room").read_bytes() == b" " * 4096


def test_the_end_of_a_run_has_room(run, full):
    """Kept when the attempt began."""
    record = exit_record.ExitRecord(run)
    full()
    record.write({"state": "stopped"})

    assert json.loads(run.exit.read_text()) == {"state": "stopped"}


PRINT = """
from runner.supervision import console
console.print_what_fits()
import sys
for _ in range(3):
    print("loss " * 5000)
    print("warning " * 5000, file=sys.stderr, flush=True)
sys.exit(7)
"""


def test_what_is_printed_on_a_full_disk_ends_nothing():
    """Neither while it is printed nor at the end of the process; Python's own streams do."""
    codes = []
    for text in (PRINT, PRINT.replace("console.print_what_fits()\n", "\n")):
        with open("/dev/full", "w") as full:  # noqa: PTH123  # a device
            done = subprocess.run(
                [sys.executable, "-c", text], stdout=full, stderr=full, check=False
            )
        codes.append(done.returncode)

    assert codes[0] == 7
    assert codes[1] != 7


def test_what_is_printed_where_there_is_room_is_kept_in_order(tmp_path):
    """Line by line, whatever its characters are."""
    text = PRINT.split("import sys", maxsplit=1)[0] + (
        "import sys\nprint('loss \\u00e9 \\udcff')\nprint('x', file=sys.stderr)\nprint('end')\n"
    )
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", text], stdout=log, stderr=log, check=True)

    assert (tmp_path / "log").read_text() == "loss é \\udcff\nx\nend\n"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 30 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this host lets us mount nothing")
    yield folder
    subprocess.run([shutil.which("umount"), "-l", str(folder)], check=False)


def fill(folder):
    """Leave no block free."""
    with (folder / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 65536):
            pass
    assert os.statvfs(folder).f_bavail == 0


@pytest.mark.slow
def test_a_run_on_a_full_disk_pauses_goes_on_saves_and_stops(
    advisor, small_disk, tiny_model, orders, tmp_path, monkeypatch
):
    """Each as it is asked; with room again it is resumed from what it had saved."""
    monkeypatch.setenv("TUNEDECK_HOME", str(small_disk))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'schema = 1\nname = "tiny"\n[model]\nid = "{tiny_model}"\n'
        f'[data]\ntrain = "{orders.name}"\nmax_length = 96\nsplit = "1:0:0"\n'
        '[method]\nname = "lora"\nrank = 4\n'
        '[train]\nmax_steps = 100000\nprecision = "fp32"\nsave_every = 5\n'
    )

    def wait(state, run, after=-1):
        def seen():
            now = status(run)
            return now.state is state and now.step > after and now

        return wait_for(seen, f"{state} after step {after}", 60)

    def ask(*words):
        done = advisor(*words, run.id)
        assert done.returncode == 0, done.stderr

    started = advisor("run", recipe)
    run = find_run.find(started.stdout.strip())
    try:
        wait(State.RUNNING, run, 6)
        fill(small_disk)
        ask("pause")
        paused = wait(State.PAUSED, run)
        ask("checkpoint")
        ask("stop")
        stopped = wait(State.STOPPED, run)
        assert stopped.resumable_from % 5 == 0
        assert 5 <= stopped.resumable_from <= paused.step <= stopped.step
        (small_disk / "fill").unlink()
        ask("resume")
        wait(State.RUNNING, run, stopped.step + 5)
        fill(small_disk)
        ask("stop", "--now", "--yes")
        assert wait(State.STOPPED, run).resumable_from >= 5
    finally:
        end_everything(run)
