"""A small part of `bench/fuzz_readers.py`: spoilt run directories, each read in all ways."""

from __future__ import annotations

import random
import shutil

import odd_runs
import pytest
from read_everything import MOST_BYTES, Tally, Watched, fuzz, nothing_starts, read_all_ways

from profiles.errors import ExitCode, UserError


@pytest.mark.parametrize("number", [20, pytest.param(60, marks=pytest.mark.long)])
def test_no_reader_of_a_spoilt_run_fails_hangs_swells_or_writes(tmp_path, monkeypatch, number):
    """The same directories for ever; holes are larger than what may be taken."""
    monkeypatch.setattr(odd_runs, "HOLE_BYTES", MOST_BYTES + (56 << 20))
    found = fuzz(tmp_path, number, seed=3)

    assert found.violations == []
    assert found.num_directories == number
    assert found.num_calls > number * 12


def test_a_sound_run_is_read_in_all_ways(home, tmp_path):
    """Or the others would be refused for another reason than what is odd about them."""
    tally = Tally()
    for run in odd_runs.write_sound(home, tmp_path / "base"):
        odd_runs._age(run.path)
        with nothing_starts():
            read_all_ways(run, tally, run.id)

    assert tally.violations == []


def test_every_kind_of_change_is_among_those_that_are_made(home, tmp_path):
    """What is never drawn is never held."""
    (run, *_) = odd_runs.write_sound(home, tmp_path / "base")
    folder = run.path.rename(tmp_path / "sound")
    told = ""
    for number in range(400):
        shutil.copytree(folder, run.path)
        told += "\n".join(odd_runs.spoil(run, random.Random(number)))  # noqa: S311  # the same
        shutil.rmtree(run.path)

    wanted = [*odd_runs.KINDS, "empty", "UTF-16", "hole after", "hole before", "many times", "cut"]
    assert [kind for kind in wanted if kind not in told] == []
    assert "beside: " in told
    assert " is gone" in told


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda run: run.console.write_text("x"), "changed"),
        (lambda _: bytearray(300 << 20), "MiB"),
        (lambda _: None, ""),
    ],
)
def test_what_no_reader_may_do_is_noticed(home, tmp_path, does, told):
    """The watch itself can fail."""
    run, tally = odd_runs.write_sound(home, tmp_path / "base")[0], Tally()

    Watched(tally, "a run", run).call("a reader", lambda: does(run))

    assert bool(tally.violations) is bool(told)
    assert told in "".join(tally.violations)


def test_an_error_for_its_user_is_no_fault(home, tmp_path):
    """It is how a reader says what it cannot read."""
    run, tally = odd_runs.write_sound(home, tmp_path / "base")[0], Tally()

    def refuse():
        raise UserError("what", why="why", do="do", where="where", code=ExitCode.USAGE)

    Watched(tally, "a run", run).call("a reader", refuse)

    assert tally.violations == []
