"""A copied run directory, or one seen from another container, harms no run and says what it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from doubles import end_everything, kill, start, steps_done, wait_for, who

from profiles.errors import ExitCode, UserError
from profiles.runs import copies, identity, processes, rundir
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, status
from runner.supervision import control, launch, leftovers

IN_ANOTHER_TIME = ["unshare", "--time", "--boottime", "86400", "--monotonic", "500"]
__all__ = ["start"]  # a fixture
NEEDS_UNSHARE = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run([*IN_ANOTHER_TIME, "true"], capture_output=True, check=False).returncode != 0,
    reason="this host does not let us make a time namespace",
)


@pytest.fixture
def live(start):
    """A run that works."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    return run


def copied(run, folder):
    """The run's directory, copied with everything in it."""
    shutil.copytree(run.path, folder, symlinks=True)
    return RunDir(folder)


@pytest.mark.parametrize("is_in_place", [True, False], ids=["beside the runs", "anywhere"])
def test_a_copy_of_a_live_run_is_lost_and_says_so(live, tmp_path, *, is_in_place):
    """With the place where the run itself goes on."""
    folder = (
        rundir.run_root() / live.id.replace("a-run", "b-run") if is_in_place else tmp_path / "x"
    )
    copy = copied(live, folder)

    found = status(copy)

    assert (status(live).state, found.state) == (State.RUNNING, State.LOST)
    assert found.reason == f"copied while it worked in {live.path}, where it goes on"
    assert found.notice == f"copy of {live.id}"
    assert not processes.supervisor_is_alive(copy)


def test_what_is_asked_of_a_copy_never_reaches_the_run(live, tmp_path, advisor):
    """Not even `stop --now`, with everything in the copy pointing to live processes."""
    copy = copied(live, tmp_path / "copy")
    before = {part: who(live, part) for part in ("supervisor", "worker")}

    answers = [advisor("stop", "--now", "--yes", copy.path), advisor("stop", copy.path)]
    ended = leftovers.end(copy)

    assert [answer.returncode for answer in answers] == [ExitCode.USAGE] * 2
    assert all("copied while it worked" in answer.stderr for answer in answers)
    assert ended == ([], [])
    assert {part: who(live, part) for part in before} == before
    assert all(one.is_alive for one in before.values())
    assert control.waiting(live) == []
    assert len(processes.marked(live)) > 0


def test_a_copy_whose_original_was_removed_does_not_own_its_processes(live, tmp_path):
    """They still write into the directory that has no name any more."""
    copy = copied(live, tmp_path / "copy")
    while live.path.exists():  # they write new files meanwhile
        shutil.rmtree(live.path, ignore_errors=True)

    assert status(copy).state is State.LOST
    assert processes.marked(copy) == []


def test_a_run_that_is_moved_while_it_works_is_itself(live, tmp_path):
    """Its processes are found where it is now."""
    moved = RunDir(tmp_path / live.id)
    live.path.rename(moved.path)
    try:
        assert status(moved).state is State.RUNNING
        assert status(moved).notice == ""
        assert len(processes.marked(moved)) > 0
    finally:
        end_everything(moved)


def test_a_run_that_was_moved_and_is_lost_says_where_it_was_moved_from(start, tmp_path):
    """A worker that is moved cannot save, and ends; nobody could write down why."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    end_everything(run)
    run.exit.unlink(missing_ok=True)

    before = status(run).reason
    moved = RunDir(run.path.rename(tmp_path / "moved"))

    assert "moved" not in before
    assert f"; moved from {run.path}: a run that is moved while it works" in status(moved).reason


def test_a_copy_of_a_run_that_is_over_says_what_it_is_and_can_go_on(start, tmp_path):
    """As a run of its own; both are then told apart."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 11, "steps")
    kill(run, "worker")
    wait_for(run.exit.exists, "the end")
    copy = copied(run, tmp_path / run.id)

    notice = status(copy).notice
    launch.resume(copy)
    wait_for(lambda: status(copy).state is State.RUNNING, "the copy at work")
    try:
        assert notice == f"copy of {run.id}"
        assert status(run).state is State.KILLED
        assert leftovers.end(run) == ([], [])
        assert status(copy).state is State.RUNNING
    finally:
        end_everything(copy)


@pytest.mark.parametrize("made", [None, 7, "/nowhere", "a\0b", "."])
def test_a_manifest_that_names_no_other_run_makes_no_copy(home, made):
    """Of another path, a moved run and what an older version wrote."""
    run = rundir.create("one")
    rundir.durable.write_json(run.manifest, {"id": run.id, "path": made})
    assert copies.original(run) is None


def test_another_run_at_the_old_place_makes_no_copy(home):
    """It has an id of its own."""
    run, other = rundir.create("one"), rundir.create("other")
    for one in (run, other):
        rundir.durable.write_json(one.manifest, {"id": one.id, "path": str(other.path)})
    assert copies.original(run) is None


LOOK = """
import sys
from pathlib import Path
from profiles.runs.rundir import RunDir
from profiles.runs.state import status
from profiles.runs import processes
run = RunDir(Path(sys.argv[1]))
print(status(run).state, processes.supervisor_is_alive(run), len(processes.marked(run)))
"""


@NEEDS_UNSHARE
def test_a_reader_with_another_clock_sees_the_run_work(live):
    """In a time namespace of its own, /proc shows it other start times."""
    seen = subprocess.run(
        [*IN_ANOTHER_TIME, sys.executable, "-c", LOOK, str(live.path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert seen.stdout.split() == ["running", "True", str(len(processes.marked(live)))]


@pytest.mark.parametrize(
    ("offsets", "ticks"),
    [
        ("monotonic           0         0\nboottime        86400         0\n", 8_640_000),
        ("monotonic 5 0\nboottime -10 0\n", -1000),
        ("monotonic 5 0\nboottime 1 500000000\n", 150),
        ("nonsense\n", 0),
        ("boottime x y\n", 0),
    ],
)
def test_start_times_are_those_of_the_host(monkeypatch, offsets, ticks):
    """Whatever clock this process was given; parts of a tick are rounding."""
    me = identity.of_process(os.getpid())
    real = identity.Path.read_text

    def read(path, *args, **kwargs):
        return offsets if path.name == "timens_offsets" else real(path, *args, **kwargs)

    monkeypatch.setattr(identity.Path, "read_text", read)
    monkeypatch.setattr(os, "sysconf", lambda _name: 100)
    identity._ticks_ahead.cache_clear()
    try:
        assert identity._ticks_ahead() == ticks
        moved = replace(me, start=me.start - ticks)
        assert [replace(moved, start=moved.start + n).is_alive for n in (-2, -1, 0, 1, 2)] == [
            *(False, True, True, True, False)
        ]
    finally:
        identity._ticks_ahead.cache_clear()


def test_a_copy_is_not_resumed_into_the_original(live, tmp_path):
    """It takes claims of its own, and none of the run's."""
    copy = copied(live, tmp_path / live.id)
    launch.resume(copy)
    try:
        wait_for(lambda: status(copy).state is State.RUNNING, "the copy at work")
        assert (live.attempt(), copy.attempt()) == (1, 2)
        assert not status(live).state.is_over
        with pytest.raises(UserError, match="cannot resume: the run is"):
            launch.resume(live)
    finally:
        end_everything(copy)
