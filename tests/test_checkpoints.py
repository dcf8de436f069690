"""Checkpoints: committed by a rename, verified by their manifest, rotated by step."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from faulty_disk import Fault, FaultyDisk
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.runs import durable, rundir
from profiles.runs.rundir import RunDir
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
        (lambda p: (p / "MANIFEST.json").write_text('{"files": {"x": 7}}'), "damaged"),
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


def test_rotation_never_leaves_fewer_than_two(run):
    """The newest may turn out to be damaged."""
    for step in (10, 20, 30):
        save(run, step)

    assert checkpoints.rotate(run, keep=0) == [10]


def test_rotation_neither_counts_nor_removes_damaged_ones(run):
    """Two sound ones stay beside the damaged one."""
    for step in (10, 20, 30, 40):
        save(run, step)
    (run.checkpoints / "step-00000030" / "deep" / "weights").write_text("broken")

    assert checkpoints.rotate(run, keep=2) == [10]
    assert [c.step for c in checkpoints.committed(run)] == [40, 30, 20]


def test_rotation_reads_an_unchanged_file_once(run, monkeypatch):
    """Hashing gigabytes at every save would cost more than saving."""
    for step in (10, 20, 30, 40):
        save(run, step)
    checkpoints._hashes.clear()
    read = []
    original = checkpoints.hash_file
    monkeypatch.setattr(checkpoints, "hash_file", lambda p: read.append(p) or original(p))
    checkpoints.rotate(run, keep=3)
    checkpoints.rotate(run, keep=2)

    assert len(read) == len(set(read)) == 4


def test_what_cannot_be_removed_stays_for_the_next_rotation(run, monkeypatch):
    """A refusal is no reason to stop training, and no half checkpoint keeps its name."""
    for step in (10, 20, 30):
        save(run, step)
    fault = Fault(at=3, kind="error", number=errno.EIO, lasts=True)
    monkeypatch.setattr(durable, "disk", FaultyDisk(run.path, fault))
    refused = checkpoints.rotate(run, keep=2)
    monkeypatch.setattr(durable, "disk", durable.Disk())
    save(run, 40)
    later = checkpoints.rotate(run, keep=2)

    assert (refused, later) == ([10], [20])
    assert not list(run.checkpoints.glob(".del-*"))


def test_best_and_pinned_are_kept(run):
    """Whatever comes after them."""
    for step in (10, 20, 30, 40, 50):
        save(run, step)
    checkpoints.mark_best(run, 20, 0.5)
    checkpoints.pin(run, 10, "before the loss became NaN")

    assert checkpoints.rotate(run, keep=2) == [30]
    assert checkpoints.pins(run) == {10: "before the loss became NaN"}


def test_the_best_is_found_after_the_run_was_moved(run, tmp_path):
    """Its step is recorded, not its place (transformers#48319)."""
    save(run, 10)
    checkpoints.mark_best(run, 10, 0.5)

    moved = RunDir(Path(shutil.move(run.path, tmp_path / "elsewhere")))

    found = checkpoints.best(moved)
    assert found == checkpoints.Best(moved.checkpoints / "step-00000010", 10, 0.5)


def test_a_best_whose_directory_is_gone_is_none(run):
    """What is left may be better or worse: nobody knows."""
    save(run, 10)
    checkpoints.mark_best(run, 10, 0.5)
    shutil.rmtree(run.checkpoints / "step-00000010")

    assert checkpoints.best(run) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"step": "x"}', '{"steps": [1]}', "\0"])
def test_damaged_marks_are_no_marks(run, text):
    """Readers never raise on content."""
    for name in ("best.json", "pins.json"):
        (run.checkpoints / name).write_text(text)

    assert (checkpoints.best(run), checkpoints.pins(run)) == (None, {})


STEPS = st.integers(1, 9)


@settings(max_examples=25, deadline=None)
@given(
    sound=st.sets(STEPS),
    damaged=st.sets(STEPS, max_size=4),
    best=st.none() | STEPS,
    pinned=st.sets(STEPS, max_size=2),
    keep=st.integers(-1, 5),
)
def test_rotation_keeps_what_the_rule_says_and_no_more(sound, damaged, best, pinned, keep):
    """Any set of sound and damaged checkpoints, any marks, any limit, any clock."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        run.checkpoints.mkdir()
        for step in sound | damaged:
            path = save(run, step).path
            os.utime(path, (step * 7 % 10, step * 7 % 10))
            if step in damaged:
                (path / "deep" / "weights").write_text("rot")
        if best is not None:
            checkpoints.mark_best(run, best, 1.0)
        for step in pinned:
            checkpoints.pin(run, step, "")
        removed = checkpoints.rotate(run, keep)
        left = {c.step for c in checkpoints.committed(run)}

    good = sorted(sound - damaged, reverse=True)
    kept = {*good[: max(2, keep)], *pinned, best}
    few = len(sound | damaged) <= max(2, keep)
    assert set(removed) == (set() if few else {step for step in good if step not in kept})
    assert left == (sound | damaged) - set(removed)


class RefusesFinalNames(durable.Disk):
    """Lets a checkpoint go from its final name, and none come to one."""

    def rename(self, source, target):
        if target.name.startswith("step-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().rename(source, target)


def test_a_replaced_checkpoint_gets_its_name_back(run, monkeypatch):
    """The new one never came: the older one waited under another name."""
    save(run, 10, "first")
    monkeypatch.setattr(durable, "disk", RefusesFinalNames())
    with pytest.raises(OSError, match="Input/output"):
        save(run, 10, "second")
    names = [p.name[:5] for p in run.checkpoints.iterdir()]
    monkeypatch.setattr(durable, "disk", durable.Disk())

    checkpoints.clear_staging(run)

    assert names == [".old-"]
    assert [p.name for p in run.checkpoints.iterdir()] == ["step-00000010"]
    assert checkpoints.verify(run.checkpoints / "step-00000010") is None


def test_a_sync_that_fails_costs_the_whole_checkpoint_and_no_other(run, monkeypatch):
    """The device did not confirm a file: it counts as lost, and the staging goes."""
    save(run, 10)
    staging = checkpoints.stage(run, 20)
    (staging / "weights").write_text("x")
    disk = FailingSync()
    monkeypatch.setattr(durable, "disk", disk)

    with pytest.raises(OSError, match="Input/output"):
        checkpoints.commit(run, staging, 20)

    assert [p.name for p in run.checkpoints.iterdir()] == ["step-00000010"]
    assert disk.num_syncs == 1


class FailingSync(durable.Disk):
    """A device that confirms nothing."""

    num_syncs = 0

    def fsync(self, _fd):
        self.num_syncs += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_leftovers_of_the_model_are_settled_with_those_of_the_checkpoints(run):
    """An interrupted publishing gives the older model its name back."""
    (run.path / ".old-model-0123ab").mkdir()
    (run.path / ".tmp-model").mkdir()
    (run.path / ".tmp-proc.json-0123ab").touch()

    checkpoints.clear_staging(run)

    assert run.model.is_dir()
    assert not (run.path / ".tmp-model").exists()
    assert (run.path / ".tmp-proc.json-0123ab").exists()


def test_files_beside_the_checkpoints_are_no_reason_to_fail(run):
    """A torn mark is cleared like a directory; a missing directory holds no checkpoint."""
    (run.checkpoints / ".tmp-best.json-0123ab").write_text("{")

    assert checkpoints.clear_staging(run) == 1
    shutil.rmtree(run.checkpoints)
    assert checkpoints.committed(run) == []
