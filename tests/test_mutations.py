"""Each rule of the durable protocol is needed: without it the crash suite finds a violation."""

from __future__ import annotations

import contextlib
import os
import random
import sys

import pytest
import workload
from faulty_disk import FaultyDisk
from workload import World, violations

from profiles.runs import durable
from runner import checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faulty disk reads /proc")

PUBLISH, SYNC_TREE, FSYNC = durable.publish_dir, durable.sync_tree, FaultyDisk.fsync
LEFTOVERS = durable._leftovers


class TellsTooEarly(World):
    """Acknowledges a checkpoint before it is committed."""

    def _save(self, events, step):
        self.acknowledge(events, step)
        super()._save(events, step)


def no_fsync_of_files(patch):
    patch.setattr(FaultyDisk, "fsync", lambda *_: None)


def no_fsync_of_directories(patch):
    patch.setattr(FaultyDisk, "fsync_dir", lambda *_: None)


def eio_on_fsync_ignored(patch):
    def fsync(disk, fd):
        with contextlib.suppress(OSError):
            FSYNC(disk, fd)

    patch.setattr(FaultyDisk, "fsync", fsync)


def manifest_after_the_rename(patch):
    def commit(run, staging, step, **facts):
        final = run.checkpoints / f"step-{step:08d}"
        durable.publish_dir(staging, final)
        checkpoints.seal(final, step=step, **facts)
        return checkpoints.Checkpoint(final, step)

    patch.setattr(checkpoints, "commit", commit)


def rename_before_fsync(patch):
    def publish(staging, final):
        PUBLISH(staging, final)
        SYNC_TREE(final)

    patch.setattr(durable, "sync_tree", lambda _: None)
    patch.setattr(durable, "publish_dir", publish)


def writing_in_place(patch):
    def write(path, data):
        fd = durable.disk.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            durable.disk.write(fd, data)
            durable.disk.fsync(fd)
        finally:
            os.close(fd)
        durable.sync_dir(path.parent)

    patch.setattr(durable, "write_atomic", write)


def staging_under_the_final_name(patch):
    def stage(run, step):
        path = run.checkpoints / f"step-{step:08d}"
        with contextlib.suppress(FileExistsError):
            durable.disk.mkdir(path)
        durable.remove_tree(path / "deep", inside=path)
        return path

    patch.setattr(checkpoints, "stage", stage)
    patch.setattr(durable, "publish_dir", lambda a, b: SYNC_TREE(a) if a == b else PUBLISH(a, b))


def event_before_the_commit(_patch):
    return TellsTooEarly


def saving_again_by_delete_then_rename(patch):
    def publish(staging, final):
        SYNC_TREE(staging)
        durable.remove_tree(final, inside=final.parent)
        durable.disk.rename(staging, final)
        durable.sync_dir(final.parent)

    patch.setattr(durable, "publish_dir", publish)


def replaced_names_not_given_back(patch):
    def leftovers(folder, names):
        return ((path, "del", name) for path, _, name in LEFTOVERS(folder, names))

    patch.setattr(durable, "_leftovers", leftovers)


def no_end_of_a_torn_line(patch):
    patch.setattr(durable, "_END_OF_TORN_LINE", b"")


def _rotation_of(order, fewest):
    """A rotation that keeps the first `fewest` in this order."""

    def rotate(run, _keep):
        marked = checkpoints.best(run)
        kept = {marked.step if marked else None, *checkpoints.pins(run)}
        for checkpoint in order(run)[fewest:]:
            if checkpoint.step not in kept:
                checkpoints.discard(checkpoint.path)

    return rotate


def _sound(run):
    return [c for c in checkpoints.committed(run) if checkpoints.verify(c.path) is None]


def rotation_by_clock(patch):
    def order(run):
        return sorted(_sound(run), key=lambda c: -c.path.stat().st_mtime)

    patch.setattr(checkpoints, "rotate", _rotation_of(order, 2))


def rotation_that_counts_damaged_ones(patch):
    patch.setattr(checkpoints, "rotate", _rotation_of(checkpoints.committed, 2))


def rotation_below_two(patch):
    patch.setattr(checkpoints, "rotate", _rotation_of(_sound, 1))


def rotation_that_forgets_best_and_pinned(patch):
    patch.setattr(checkpoints, "best", lambda _: None)


def removal_before_the_name_is_surely_gone(patch):
    def remove(run):
        for path in run.checkpoints.glob(".del-*"):
            durable.remove_tree(path, inside=run.path)

    patch.setattr(checkpoints, "_remove_doomed", remove)


def _all_crashes():
    return workload.crashes() + workload.torn_writes()


def _errors():
    return workload.errors(last=False)


def _losses_that_keep_inner_names():
    return workload.power_losses("inner")


MUTATIONS = {
    no_fsync_of_files: workload.power_losses,
    no_fsync_of_directories: workload.power_losses,
    eio_on_fsync_ignored: _errors,
    manifest_after_the_rename: _all_crashes,
    rename_before_fsync: workload.power_losses,
    writing_in_place: _all_crashes,
    staging_under_the_final_name: _all_crashes,
    event_before_the_commit: _all_crashes,
    saving_again_by_delete_then_rename: _all_crashes,
    replaced_names_not_given_back: _all_crashes,
    no_end_of_a_torn_line: workload.torn_writes,
    rotation_by_clock: _all_crashes,
    rotation_that_counts_damaged_ones: _all_crashes,
    rotation_below_two: _all_crashes,
    rotation_that_forgets_best_and_pinned: _all_crashes,
    removal_before_the_name_is_surely_gone: _losses_that_keep_inner_names,
}
"""Each with the part of the suite that is there to find it."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_without_this_rule_the_suite_finds_a_violation(monkeypatch, mutation):
    """The faults are those of test_crashes.py, in a mixed order."""
    faults = MUTATIONS[mutation]()
    random.Random(4).shuffle(faults)  # noqa: S311  # no secret
    world_of = mutation(monkeypatch) or World

    assert next(violations(faults, world_of), None) is not None
