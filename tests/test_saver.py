"""Checkpoints of a run: their size foretold, committed, told of; which one is kept as the best."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from method_cases import CASES  # noqa: E402

from advisor.choice import storage  # noqa: E402
from advisor.registry.lookup import OPTIMIZERS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from profiles.runs import rundir  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from runner import checkpoints, methods  # noqa: E402
from runner.training import saving  # noqa: E402
from runner.training.room import Shortfall  # noqa: E402
from runner.training.saving import Saver  # noqa: E402
from runner.training.selection import Selection  # noqa: E402


class Mixed(torch.nn.Module):
    """Six trained numbers of 4 bytes, four of 2; a hundred that are not trained."""

    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Parameter(torch.ones(2, 3))
        self.narrow = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        self.frozen = torch.nn.Parameter(torch.ones(100), requires_grad=False)


@pytest.fixture
def saver():
    """The saver of a new run, with two checkpoints kept."""
    return Saver(
        attempt=real_runs.quiet(rundir.create("saver")),
        keep=2,
        optimizer=OPTIMIZERS["adamw"],
        facts={"seed": 5},
        selection=Selection(),
    )


def commit(saver, step, *, started=0.0, size=10, has_arguments=True):
    """Stage what the Trainer would, and commit it."""
    staging = checkpoints.stage(saver.run, step)
    folder = staging / f"checkpoint-{step}"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_text("w" * size)
    if has_arguments:
        (folder / "training_args.bin").write_text("a pickle")
    saver.commit(staging, step, epoch=step / 8, started=started)
    return staging


def test_the_size_of_weights_is_that_of_those_that_are_trained():
    """In their own types."""
    assert saving.weights_bytes(Mixed()) == 6 * 4 + 4 * 2


@pytest.mark.parametrize("name", ["last layers", "bitfit", "full", "lora", "houlsby"])
def test_the_size_of_weights_is_that_of_the_files(name, tiny_model, tmp_path):
    """Of the whole model where no adapter is added; the estimate of the disk says the same."""
    plan = CASES[name].plan(seq_len=8, precision="bf16")
    model = methods.prepare(plan, tiny_model, 0)

    model.save_pretrained(tmp_path)

    written = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    disk = storage.disk(from_folder(tiny_model), plan)
    assert saving.weights_bytes(model) == pytest.approx(written, rel=0.05)
    assert disk.artefact_bytes == pytest.approx(written, rel=0.05)
    assert disk.checkpoint_bytes >= disk.artefact_bytes


@pytest.mark.parametrize(
    ("optimizer", "size"),
    [("adamw", 2 * (24 + 8)), ("lion", 10 * 4), ("adamw_8bit", 2 * 10), ("sgd", 24 + 8)],
)
def test_the_size_of_states_is_the_optimizers(optimizer, size):
    """So many for each trained weight, in its type or in a byte."""
    assert saving.state_bytes(Mixed(), OPTIMIZERS[optimizer]) == size


def test_the_size_of_states_is_that_of_the_weights_that_are_here():
    """A shard of each."""
    first = lambda weight: weight.flatten()[:2]  # noqa: E731

    assert saving.state_bytes(Mixed(), OPTIMIZERS["adamw"], first) == 2 * (2 * 4 + 2 * 2)


def test_a_first_checkpoint_is_as_large_as_weights_and_states(saver):
    """Nobody has seen one."""
    assert saver.needed_bytes(Mixed()) == 32 + 64


def test_a_further_checkpoint_is_as_large_as_the_newest(saver):
    """All of its files, those in folders too."""
    commit(saver, 2, size=5000)
    commit(saver, 4, size=1000)
    newest = checkpoints.of_step(saver.run, 4).path

    found = saver.needed_bytes(Mixed())

    assert found == 1000 + (newest / "MANIFEST.json").stat().st_size


def test_room_is_looked_for_where_the_checkpoints_are(saver, monkeypatch):
    """Another disk may be full."""
    asked = []
    free = SimpleNamespace(f_bavail=100, f_frsize=1, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda path: (asked.append(path), free)[1])

    assert saver.shortfall(70) == Shortfall(saver.run.checkpoints, 70, 100)
    assert asked == [saver.run.checkpoints]


def failing(number):
    """A write that the system refuses."""

    def write():
        raise OSError(number, os.strerror(number))

    return write


def test_a_write_that_lacks_room_says_so_and_any_other_error_goes_up(saver):
    """What was written comes back otherwise."""
    assert saver.try_to(lambda: 7, 1) == 7
    lacking = saver.try_to(failing(errno.ENOSPC), 9)
    assert (lacking.folder, lacking.needed_bytes) == (saver.run.checkpoints, 9)
    assert lacking.cause == "the disk is full"
    with pytest.raises(OSError, match="Input/output"):
        saver.try_to(failing(errno.EIO), 1)


def test_a_committed_checkpoint_is_whole_told_and_has_no_pickle_of_arguments(saver):
    """Under its name, with what later attempts compare; nothing is left of the staging."""
    staging = commit(saver, 4)

    (done,) = checkpoints.committed(saver.run)
    manifest = read_json(done.path / "MANIFEST.json")
    assert checkpoints.verify(done.path) is None
    assert set(manifest["files"]) == {"deep/weights"}
    assert (manifest["step"], manifest["epoch"], manifest["seed"]) == (4, 0.5, 5)
    assert not staging.exists()
    (event,) = real_runs.events(saver.run, "checkpoint")
    assert (event["step"], event["bytes"]) == (4, saver.needed_bytes(Mixed()))
    assert real_runs.events(saver.run, "rotated") == []


def test_a_checkpoint_without_a_pickle_of_arguments_is_committed_too(saver):
    """Not every version of the library leaves one."""
    commit(saver, 4, has_arguments=False)

    assert [c.step for c in checkpoints.committed(saver.run)] == [4]


def test_the_time_of_a_checkpoint_is_counted_from_where_it_began(saver, monkeypatch):
    """To a tenth of a millisecond."""
    monkeypatch.setattr(saving.time, "perf_counter", lambda: 112.34567)

    commit(saver, 4, started=100.0)

    assert real_runs.events(saver.run, "checkpoint")[0]["seconds"] == 12.3457


def test_checkpoints_that_are_too_old_are_removed_and_told(saver):
    """As many are kept as the recipe says."""
    for step in (2, 4, 6):
        commit(saver, step)

    assert [c.step for c in checkpoints.committed(saver.run)] == [6, 4]
    assert [e["steps"] for e in real_runs.events(saver.run, "rotated")] == [[2]]


def test_the_checkpoint_with_the_lowest_loss_is_marked_before_old_ones_go(saver):
    """Of those that were evaluated; the earlier of two that are as good."""
    for step, loss in ((2, 3.0), (4, 1.0), (6, 1.0), (8, 2.0)):
        saver.selection.add(step, loss)
        commit(saver, step)
    commit(saver, 10)
    saver.selection.add(12, 0.5)  # without a checkpoint

    saver.mark_best()

    best = checkpoints.best(saver.run)
    assert (best.step, best.loss) == (4, 1.0)
    assert [c.step for c in checkpoints.committed(saver.run)] == [10, 8, 4]


def test_without_a_finite_loss_no_checkpoint_is_the_best(saver):
    """Nor without a checkpoint."""
    saver.selection.add(2, 1.0)
    saver.mark_best()
    saver.selection.add(4, None)
    commit(saver, 4)

    assert checkpoints.best(saver.run) is None
    assert not (saver.run.checkpoints / "best.json").exists()


def test_a_mark_that_cannot_be_written_is_no_reason_to_lose_the_checkpoint(saver, monkeypatch):
    """The checkpoint itself is there."""
    monkeypatch.setattr(checkpoints, "mark_best", lambda *_: failing(errno.ENOSPC)())
    saver.selection.add(2, 1.0)

    commit(saver, 2)

    assert [c.step for c in checkpoints.committed(saver.run)] == [2]


STATE = SimpleNamespace(global_step=9, log_history=[])


def test_only_a_trained_weight_that_is_not_finite_is_refused():
    """By its name, with code 82; a frozen one was so from the beginning."""
    run, model = rundir.create("refused"), Mixed()
    whole = lambda weight: weight  # noqa: E731
    model.frozen.data[0] = torch.nan
    saving.refuse_nonfinite(model, whole, STATE, run)

    model.narrow.data[3] = torch.inf
    with pytest.raises(UserError, match="the weights narrow are not finite") as caught:
        saving.refuse_nonfinite(model, whole, STATE, run)
    assert caught.value.code is ExitCode.DIVERGED

    saving.refuse_nonfinite(model, lambda weight: weight.flatten()[:2], STATE, run)
