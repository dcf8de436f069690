"""Checkpoints: committed by a rename, verified by their manifest, rotated by step."""

from __future__ import annotations

import os

import pytest

from profiles import rundir
from runner import checkpoints


@pytest.fixture
def run():
    """An empty run directory."""
    return rundir.create("a run")


def save(run, step, text="weights"):
    """Commit a small checkpoint."""
    staging = checkpoints.stage(run, step)
    (staging / "deep").mkdir()
    (staging / "deep" / "weights").write_text(text)
    return checkpoints.commit(run, staging, step)


def test_a_committed_checkpoint_verifies(run):
    """Nothing is wrong with what was just written."""
    assert checkpoints.verify(save(run, 10).path) is None


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda p: (p / "deep/weights").write_text("weighty"), "changed"),
        (lambda p: (p / "deep/weights").write_text("w"), "1 bytes"),
        (lambda p: (p / "deep/weights").unlink(), "missing"),
        (lambda p: (p / "MANIFEST.json").write_text("{"), "damaged"),
        (lambda p: (p / "MANIFEST.json").unlink(), "missing"),
    ],
)
def test_a_harmed_checkpoint_is_passed_over_with_its_reason(run, harm, words):
    """The older sound one is taken, and the newer one's fault is told."""
    save(run, 10)
    harm(save(run, 20).path)

    sound, faults = checkpoints.newest_sound(run)

    assert sound is not None
    assert sound.step == 10
    assert words in next(iter(faults.values()))


def test_staging_is_never_taken_for_a_checkpoint(run):
    """A crash while saving leaves the older checkpoint the newest."""
    save(run, 10)
    (checkpoints.stage(run, 20) / "weights").write_text("half")

    sound, faults = checkpoints.newest_sound(run)

    assert (sound.step if sound else None, faults) == (10, {})


def test_leftover_staging_is_reclaimed(run):
    """The next attempt clears what a crashed one left."""
    (checkpoints.stage(run, 20) / "weights").write_text("half")

    assert checkpoints.clear_staging(run) == 4
    assert list(run.checkpoints.iterdir()) == []


def test_rotation_goes_by_step_and_not_by_clock(run):
    """A clock that was set back must not make the newest checkpoint the oldest."""
    for step in (10, 20, 30):
        saved = save(run, step)
        os.utime(saved.path, (100 - step, 100 - step))

    removed = checkpoints.rotate(run, keep=2)

    assert (removed, [c.step for c in checkpoints.committed(run)]) == ([10], [30, 20])


def test_saving_a_step_again_replaces_it(run):
    """A stop right after a periodic save is no error."""
    save(run, 10, "first")

    save(run, 10, "second")

    (only,) = checkpoints.committed(run)
    assert (only.path / "deep" / "weights").read_text() == "second"


def test_damaged_checkpoints_that_were_set_aside_do_not_push_out_good_ones(run):
    """Two damaged newer ones and a limit of two: the good one and the next one stay."""
    save(run, 60)
    for step in (80, 100):
        (save(run, step).path / "deep" / "weights").write_text("broken")
    _, faults = checkpoints.newest_sound(run)

    for checkpoint in faults:
        checkpoints.set_aside(checkpoint)
    save(run, 70)

    assert checkpoints.rotate(run, keep=2) == []
    assert [c.step for c in checkpoints.committed(run)] == [70, 60]
