"""Which folders are runs, and which of them is meant without a name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from driven_app import drive, press, text, until

from profiles.errors import UserError
from profiles.runs import find_run, listing, rundir
from profiles.runs.rundir import RunDir
from profiles.runs.state import State
from tests.canned_run import canned_run
from tui.context import working_runs
from tui.main import run as advisor_here
from tui.screens.ask import Ask


@pytest.fixture
def call(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def called(*arguments):
        code = advisor_here([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def renamed(run, name):
    """The same run under another name."""
    return RunDir(run.path.rename(run.path.with_name(name)))


def empty(name="2030-01-01_0000_empty_aaaaa"):
    """A folder that looks like the newest run, with nothing in it."""
    run = RunDir(rundir.run_root() / name)
    run.path.mkdir(parents=True)
    os.utime(run.path, (2e9, 2e9))
    return run


@pytest.mark.parametrize("name", ["best", "my best_run", "2026-11-22 copy", "Ünïcode"])
def test_a_run_that_was_renamed_is_listed_by_what_it_holds(call, name):
    """And found by its name, or a part of it."""
    run = renamed(canned_run(end="failed"), name)

    assert listing.all_runs() == [run]
    assert call("runs")[1].splitlines()[1].startswith(name)
    assert find_run.find(name) == find_run.find(name[:3]) == run
    assert call("watch", name, "--json")[0] == 0
    assert run.end == name
    assert listing.not_listed() == []


def test_an_id_is_named_by_its_end():
    """Other names by all of them: their last word may be anything."""
    assert RunDir(Path("2026-11-22_0450_tiny-lora_rwdxs")).end == "rwdxs"
    assert RunDir(Path("my_run")).end == "my_run"


def test_folders_that_are_taken_for_no_run_are_told(call, home, tmp_path):
    """They hold none, lead elsewhere, or have a name that would be an option or a line."""
    run = canned_run(end="failed")
    for name in ("notes", ".hidden"):
        (home / "runs" / name).mkdir()
    (home / "runs" / "a file").touch()
    (home / "runs" / "link").symlink_to(run.path)
    renamed(canned_run(end="failed"), "-rf")
    renamed(canned_run(end="failed"), "two\nlines\x1b[2J")

    _, out, err = call("runs", "--json")

    assert [one["id"] for one in json.loads(out)] == [run.id]
    assert err == (
        "not listed (no run in it, a link, or no name to type): -rf, link, notes, two lines\n"
    )


def test_many_of_them_are_counted(call, home):
    """The first are named."""
    for number in range(7):
        (home / "runs" / f"n{number}").mkdir(parents=True)

    assert call("runs")[2].splitlines()[-1].endswith(": n0, n1, n2, n3, n4 and 2 more")


def test_an_empty_folder_is_not_the_newest_run(call):
    """Commands without a name would be about nothing."""
    run = canned_run(end="failed")
    nothing = empty()

    assert listing.all_runs() == [nothing, run]
    assert find_run.find(None) == run
    assert json.loads(call("watch", "--json")[1])["id"] == run.id
    assert find_run.find(nothing.id) == nothing


def test_a_folder_whose_run_is_being_made_is_passed_over_too():
    """It has folders of its own, and no file yet."""
    run = canned_run(end="failed")
    made = rundir.create("next")
    os.utime(made.path, (2e9, 2e9))

    assert find_run.find(None) == run
    assert working_runs() == []


@pytest.mark.parametrize("name", ["run.json", "attempt", "attempts", "exit.json"])
def test_whatever_tells_of_a_run_makes_one_of_a_folder(name):
    """Damaged as it may be."""
    canned_run(end="failed")
    run = empty()
    (run.path / name).write_text("{")
    os.utime(run.path, (2e9, 2e9))

    assert find_run.find(None) == run


def test_where_there_is_nothing_else_an_empty_folder_is_named():
    """So that the error says what it is."""
    nothing = empty()
    assert find_run.find(None) == nothing


def test_empty_folders_hide_no_run_that_works(call):
    """Only the newest are looked at."""
    run = canned_run()
    for number in range(2, 7):
        for letter in "abcdefgh":
            empty(f"2030-01-01_0000_empty_{letter}aaa{number}")

    assert working_runs() == [run]
    code, _, err = call("checkpoint")
    assert (code, err) == (0, f"{run.id} asked for a checkpoint\n")


def test_a_run_of_which_nobody_can_say_is_not_one_that_works(call, monkeypatch):
    """It neither goes on, as far as anybody knows, nor takes what is asked of the newest."""
    run, unknown = canned_run(), canned_run()
    unknown.exit.mkdir()  # as a file that cannot be read
    unknown.worker_events.unlink()
    unknown.worker_events.mkdir()

    assert json.loads(call("watch", unknown.id, "--json")[1])["state"] == State.UNKNOWN
    assert working_runs() == [run]
    assert not State.UNKNOWN.obeys


@pytest.mark.parametrize("state", State)
def test_whoever_is_asked_obeys_or_says_why_not(state):
    """What is over, elsewhere or unknown obeys nobody."""
    silent = {"stopped", "finished", "failed", "killed", "lost", "damaged", "elsewhere", "unknown"}
    assert state.obeys is (state not in silent)


def test_a_name_that_fits_no_run_is_refused():
    """With the newest."""
    run = canned_run(end="failed")
    with pytest.raises(UserError, match="no run is called 'x!'") as caught:
        find_run.find("x!")
    assert run.id in caught.value.why


def test_the_app_says_of_an_unknown_run_neither_that_it_goes_on_nor_offers_to_stop_it():
    """Whoever presses the key is told why."""
    run = canned_run(end="failed")
    run.worker_events.unlink()
    run.worker_events.mkdir()

    async def script(app, pilot):
        await until(app, pilot, "UNKNOWN")
        await until(app, pilot, "enter report")
        for absent in ("run goes on", "p pause", "s stop", "c checkpoint", "r resume"):
            assert absent not in text(app)
        await press(app, pilot, "s")
        await until(app, pilot, "cannot stop: the run is unknown")
        assert not isinstance(app.screen, Ask)

    drive(script, run_id=run.id)


def test_the_app_offers_to_stop_a_run_that_works():
    """And says that it goes on."""
    run = canned_run()

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        for there in ("run goes on", "p pause", "s stop"):
            assert there in text(app)

    drive(script, run_id=run.id)
