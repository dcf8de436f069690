"""Saving while a run trains: staged, committed, waited for where there is no room; loaded back."""

from __future__ import annotations

import contextlib
import errno
import os
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from small_trainer import Pairs, small_trainer  # noqa: E402
from transformers import Trainer  # noqa: E402

from profiles.errors import UserError  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.engines import loading  # noqa: E402
from runner.training import room  # noqa: E402
from runner.training.batches import Counts  # noqa: E402
from runner.training.room import Shortfall  # noqa: E402

STEP = 2


@pytest.fixture
def trainer():
    """One that has trained two steps of eight and saved none."""
    trainer = small_trainer(steps=8)
    trainer.create_optimizer_and_scheduler(8)
    trainer.state.global_step, trainer.state.epoch = STEP, 0.25
    return trainer


def save(trainer):
    trainer._save_checkpoint(trainer.model, None)


def told(trainer, kind):
    return real_runs.events(trainer.attempt.run, kind)


def steps(trainer):
    """Of the checkpoints that are there."""
    return [c.step for c in checkpoints.committed(trainer.attempt.run)]


def leftovers(trainer):
    """What else lies beside them."""
    names = (path.name for path in trainer.attempt.run.checkpoints.iterdir())
    return [name for name in names if not name.startswith("step-")]


def test_a_checkpoint_is_announced_written_and_committed(trainer):
    """With what an optimizer needs to go on, and where in the data it was."""
    save(trainer)

    assert [event.kind for event in read_all(trainer.attempt.run.worker_events)] == [
        *("save_begun", "checkpoint"),
    ]
    assert [told(trainer, kind)[0]["step"] for kind in ("save_begun", "checkpoint")] == [STEP] * 2
    (done,) = checkpoints.committed(trainer.attempt.run)
    manifest = read_json(done.path / checkpoints.MANIFEST)
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"} <= set(
        manifest["files"]
    )
    assert (manifest["step"], manifest["epoch"], manifest["seed"]) == (STEP, 0.25, 0)
    assert checkpoints.verify(done.path) is None
    assert leftovers(trainer) == []


def test_saving_is_shown_as_such(trainer, monkeypatch):
    """It may last long without a step."""
    phases = []
    real = Trainer._save_checkpoint

    def seen(self, *args):
        phases.append(self.attempt.progress.phase)
        return real(self, *args)

    monkeypatch.setattr(Trainer, "_save_checkpoint", seen)
    save(trainer)

    assert phases == ["checkpoint"]


def test_the_time_of_a_save_belongs_to_no_step(trainer):
    """Nor does what was collected before it."""
    trainer.recorder.count(Counts(100, 100, 100, 100, 100))

    save(trainer)

    assert trainer.recorder.counts["rows"] == 0


def test_weights_are_loaded_back_to_the_last_bit(trainer):
    """Into the trainer's model, or the one that the library names."""
    save(trainer)
    saved = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    (done,) = checkpoints.committed(trainer.attempt.run)
    other = Pairs()

    torch.nn.init.zeros_(trainer.model.table.weight)
    trainer._load_from_checkpoint(str(done.path), other)
    assert torch.equal(other.table.weight, saved["table.weight"])
    assert not trainer.model.table.weight.any()

    trainer.load_weights(done.path)
    assert torch.equal(trainer.model.table.weight, saved["table.weight"])


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_never_stopped():
    """Loaded by the library's own way."""
    undisturbed, first = small_trainer(save_steps=2), small_trainer(save_steps=2)
    undisturbed.train()
    first.train()
    run = first.attempt.run
    again = small_trainer(attempt=first.attempt)
    torch.nn.init.zeros_(again.model.table.weight)

    again.train(resume_from_checkpoint=str(checkpoints.of_step(run, 2).path))

    torch.testing.assert_close(again.model.state_dict(), undisturbed.model.state_dict())
    assert steps(undisturbed) == [4, 2]


def test_a_checkpoint_has_the_models_own_names_and_what_is_published_the_public_ones(
    trainer, monkeypatch, tmp_path
):
    """Mixtures are published expert by expert."""
    names = []

    @contextlib.contextmanager
    def own(model):
        names.append(model)
        yield

    monkeypatch.setattr(loading, "own_names", own)

    trainer.save_model(str(tmp_path / "published"))
    assert names == []
    assert set(load_file(tmp_path / "published" / "model.safetensors")) == {
        *("table.weight", "frozen"),
    }
    save(trainer)
    assert names == [trainer.model]


def test_weights_that_are_not_finite_are_never_saved(trainer):
    """Nor is a save announced."""
    trainer.model.table.weight.data[3, 3] = torch.nan

    with pytest.raises(UserError, match="diverged at step 2"):
        save(trainer)

    assert (steps(trainer), told(trainer, "save_begun"), leftovers(trainer)) == ([], [], [])


@pytest.fixture
def waits(trainer, monkeypatch):
    """Answers to whether room came; keeps what was lacking each time."""
    asked = []

    def arrange(*answers):
        left = list(answers)

        def wait_for_room(state, lacking, needed):
            assert state is trainer.state
            asked.append((lacking, needed))
            return left.pop(0)

        monkeypatch.setattr(trainer.protocol, "wait_for_room", wait_for_room)
        return asked

    return arrange


def no_room(folder, needed):
    return Shortfall(folder, needed, 1000)


@pytest.fixture
def disk(monkeypatch):
    """The file system's answers, in turn; then there is room."""

    def arrange(*answers):
        left = list(answers)
        monkeypatch.setattr(room, "shortfall", lambda *a: left.pop(0)(*a) if left else None)

    return arrange


def test_a_save_waits_until_there_is_room(trainer, waits, disk):
    """As often as it takes; then it is as any other."""
    asked = waits(True, True)
    disk(no_room, no_room)

    save(trainer)

    needed = 3 * 7 * 7 * 4
    assert asked == [(no_room(trainer.attempt.run.checkpoints, needed), needed)] * 2
    assert (steps(trainer), told(trainer, "save_failed")) == ([STEP], [])


def test_a_save_that_is_given_up_is_told_and_training_goes_on(trainer, waits, disk):
    """With what was lacking."""
    asked = waits(False)
    disk(no_room)

    save(trainer)

    (failed,) = told(trainer, "save_failed")
    assert (failed["step"], failed["what"]) == (STEP, str(asked[0][0]))
    assert (steps(trainer), leftovers(trainer), len(asked)) == ([], [], 1)


def failing_once(monkeypatch, place, name, error):
    """Let one call fail, after it has done its work."""
    real, errors = getattr(place, name), [error]

    def call(*args, **kw):
        found = real(*args, **kw)
        if errors:
            raise errors.pop()
        return found

    monkeypatch.setattr(place, name, call)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (checkpoints, "stage"),
        (Trainer, "_save_checkpoint"),
        (checkpoints, "commit"),
        (checkpoints, "rotate"),
    ],
    ids=["staging", "writing", "committing", "rotating"],
)
def test_a_disk_that_fills_up_while_saving_is_waited_for(trainer, waits, monkeypatch, place, name):
    """Whatever was being done; what was half-written is gone before the next try."""
    asked = waits(True)
    failing_once(monkeypatch, place, name, FULL)

    save(trainer)

    (lacking, _) = asked[0]
    assert (lacking.cause, len(asked)) == ("the disk is full", 1)
    assert steps(trainer) == [STEP]
    if name != "stage":  # an empty folder, which the next attempt clears
        assert leftovers(trainer) == []


def test_a_library_that_has_no_word_for_a_full_disk_is_understood(
    trainer, waits, disk, monkeypatch
):
    """The file system is asked; what was staged is gone when somebody is waited for."""
    asked = waits(True)
    disk(lambda *_: None, no_room)
    failing_once(monkeypatch, Trainer, "_save_checkpoint", RuntimeError("unexpected pos"))

    save(trainer)

    assert len(asked) == 1
    assert (steps(trainer), leftovers(trainer)) == ([STEP], [])


@pytest.mark.parametrize("name", ["_save_checkpoint", "rotate"])
def test_a_disk_that_is_broken_ends_the_run(trainer, waits, monkeypatch, name):
    """Nobody waits for room, and half a checkpoint does not stay."""
    asked = waits()
    place = Trainer if name == "_save_checkpoint" else checkpoints
    failing_once(monkeypatch, place, name, BROKEN)

    with pytest.raises(OSError, match="Input/output"):
        save(trainer)

    assert (asked, leftovers(trainer)) == ([], [])


def test_of_several_processes_none_waits_for_room_while_the_others_wait_for_it(
    trainer, waits, monkeypatch
):
    """They are in a collective: the run ends."""
    asked = waits()
    trainer.ranks.world_size = 2
    failing_once(monkeypatch, Trainer, "_save_checkpoint", FULL)

    with pytest.raises(OSError, match="No space"):
        save(trainer)

    assert (asked, steps(trainer), leftovers(trainer)) == ([], [], [])


def test_another_process_than_the_first_writes_its_part_and_commits_nothing(trainer, monkeypatch):
    """Where the first one says; the first one gives the checkpoint its name."""
    staging = checkpoints.stage(trainer.attempt.run, STEP)
    said = iter([1000, None, staging, None])
    trainer.ranks = SimpleNamespace(world_size=2, is_main=False, from_main=lambda _: next(said))
    staged = []
    monkeypatch.setattr(checkpoints, "stage", lambda *_: staged.append(1))

    save(trainer)

    assert (steps(trainer), staged) == ([], [])
    assert (staging / f"checkpoint-{STEP}" / "rng_state.pth").is_file()
    assert told(trainer, "checkpoint") == []


def test_a_checkpoint_is_committed_when_every_process_has_written(trainer):
    """Not before."""
    seen = []

    def wait_for_everyone():
        written = trainer.attempt.run.checkpoints.rglob("*")
        seen.append((steps(trainer), {path.name for path in written}))

    trainer.accelerator.wait_for_everyone = wait_for_everyone
    save(trainer)

    committed, names = seen[-1]
    assert committed == []
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"} <= names
    assert steps(trainer) == [STEP]


def test_what_a_checkpoint_lacks_is_asked_of_the_saver(trainer, disk):
    """For whoever waits for room."""
    disk(no_room)

    assert trainer.shortfall(70) == Shortfall(trainer.attempt.run.checkpoints, 70, 1000)
