"""Which weights are published, and how: complete, or not at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from played_session import PlayedTrainer, attempt, commit, events  # noqa: E402

from profiles.errors import ExitCode  # noqa: E402
from profiles.runs import durable  # noqa: E402
from profiles.runs.records.evaluation import Published  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.training.room import Shortfall  # noqa: E402
from runner.training.stopping import StopEarly  # noqa: E402


@pytest.fixture
def run():
    """A run with one question for the model."""
    return real_runs.new_run("model", "data", more="samples = 1\n")


@pytest.fixture
def trainer(run):
    """A trainer that makes ten steps of ten."""
    return PlayedTrainer(real_runs.quiet(run))


@pytest.fixture
def go(run, trainer):
    """Run the attempt to its end; the exit code."""
    return partial(attempt, run, trainer)


def test_the_published_model_is_sealed_and_has_no_pickle(go, run, trainer):
    """It is as its manifest says; what an earlier try left is not in it."""
    staging = run.path / f"{durable.STAGING_PREFIX}model"

    def leave():
        (run.path / ".trainer").mkdir()
        staging.mkdir()
        (staging / "old").write_text("x")

    trainer.during_training = leave

    go()

    names = {path.name for path in run.model.iterdir()}
    assert names == {"adapter_model.safetensors", checkpoints.MANIFEST}
    assert checkpoints.verify(run.model) is None
    assert read_json(run.model / checkpoints.MANIFEST)["step"] == 10
    assert not (run.path / ".trainer").exists()
    assert not staging.exists()


def test_a_model_without_the_trainers_pickle_is_published_too(go, run, trainer, monkeypatch):
    """Another version of the library may leave none."""
    save = trainer.save_model

    def without(place):
        save(place)
        (Path(place) / "training_args.bin").unlink()

    monkeypatch.setattr(trainer, "save_model", without)

    assert go() == ExitCode.FINISHED
    assert run.model.is_dir()


def test_publishing_waits_for_room(go, run, trainer):
    """Of the size of what is trained."""
    trainer.lacking = [Shortfall(Path("/disk"), 5, 1, cause="full")] * 2

    assert go() == ExitCode.FINISHED

    assert trainer.done.count("wait for 60 bytes: /disk: full") == 2
    assert run.model.is_dir()


def test_a_stop_while_publishing_waits_ends_the_run(go, run, trainer):
    """The last checkpoint has the weights."""
    trainer.lacking, trainer.waits = [Shortfall(Path("/disk"), 5, 1)] * 2, False

    with pytest.raises(StopEarly):
        go()

    assert "save" not in trainer.done
    assert events(run, Published) == []


@pytest.mark.parametrize(
    ("keeps_best", "losses", "step"),
    [
        (True, {4: 1.0, 8: 2.0, 10: 3.0}, 4),
        (False, {4: 1.0, 8: 2.0, 10: 3.0}, 10),
        (True, {4: 3.0, 10: 1.0}, 10),
        (True, {10: float("nan")}, 10),
    ],
    ids=["best", "last", "the last is the best", "none is any good"],
)
def test_the_step_that_the_recipe_asks_for_is_published(go, run, trainer, keeps_best, losses, step):
    """With that step's weights; the event names it and the manifest."""
    commit(run, 4)
    trainer.keeps_best = keeps_best
    for at, loss in losses.items():
        trainer.selection.add(at, loss)

    go()

    loads = [text for text in trainer.done if text.startswith("load")]
    assert loads == (["load step-00000004"] if step == 4 else [])
    (published,) = events(run, Published)
    assert (published.step, published.last_step, published.what) == (step, 10, "")
    assert read_json(run.model / checkpoints.MANIFEST)["step"] == step


def test_a_best_checkpoint_that_is_damaged_leaves_the_last_step(go, run, trainer):
    """Told with what is wrong."""
    (commit(run, 4) / "weights").unlink()
    trainer.selection.losses = {4: 1.0, 10: 3.0}

    assert go() == ExitCode.FINISHED

    assert not [text for text in trainer.done if text.startswith("load")]
    (published,) = events(run, Published)
    assert (published.step, published.last_step) == (10, 10)
    assert "step 4 was the best" in published.what
    assert "weights is missing" in published.what
