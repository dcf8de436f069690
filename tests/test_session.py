"""An attempt from its start to the published model, with a trainer that the test plays."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from played_session import LOCK, OneRank, PlayedTrainer, attempt, events, splits  # noqa: E402
from stand_ins import Clock  # noqa: E402

from profiles.errors import ExitCode  # noqa: E402
from profiles.runs import durable  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.records.evaluation import Published  # noqa: E402
from profiles.runs.records.inputs import Drift, InputsTouched  # noqa: E402
from profiles.runs.records.worker import End, Phase, Prepared  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from profiles.runs.state import State  # noqa: E402
from runner import checkpoints  # noqa: E402


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


def test_an_attempt_evaluates_trains_evaluates_and_publishes(go, run, trainer):
    """And answers before and after; the phases of the start are told with how much there is."""
    assert go() == ExitCode.FINISHED

    assert trainer.done == [
        "train from None",
        "evaluate at 0",
        "answer 1 of 96 tokens before",
        "flush",
        "evaluate at 10",
        "save",
        "answer 1 of 96 tokens after",
    ]
    assert trainer.phase == "training"
    first, second, *told = [(e.phase, e.total) for e in events(run, Phase)]
    assert (first, second) == (("hashing", 0), ("preparing", 0))
    assert told == [("evaluating", 2), ("answering", 1), ("answering", 1)]
    kinds = [type(e) for e in read_all(run.worker_events) if not isinstance(e, Phase)]
    assert kinds == [Prepared, Published, End]
    (published,), (end,) = events(run, Published), events(run, End)
    assert (published.step, published.last_step, published.what) == (10, 10, "")
    assert (end.state, end.step) == (State.FINISHED, 10)


def test_inputs_that_are_written_to_while_it_works_are_told_once(go, run, trainer):
    """At the next checkpoint, or at the end; with their names."""
    trainer.during_training = lambda: (trainer.after_saving(), trainer.after_saving())
    go(lock=LOCK | {"stamps": {"data.train": [0], "model/gone.safetensors": None}})

    (told,) = events(run, InputsTouched)
    assert (told.step, told.names) == (0, ("data.train",))
    assert told.warning.startswith("data.train changed while the run works")


def test_no_pickle_of_the_trainer_is_published(go, run):
    """It would be code for whoever loads the result."""
    go()
    assert sorted(p.name for p in run.model.iterdir()) == [
        "MANIFEST.json",
        "adapter_model.safetensors",
    ]


def test_evaluations_on_the_way_are_followed_by_answers(go, trainer):
    """The session says what comes after one."""

    def evaluate():
        trainer.after_evaluation()

    trainer.during_training = evaluate

    go()

    assert "answer 1 of 96 tokens during" in trainer.done


def test_what_was_prepared_is_told(go, run, monkeypatch):
    """Rows that are learnt, that are not, that are cut; weights; where they are; how long."""
    clock, clear = Clock(), checkpoints.clear_staging

    def slowly(run):
        clock.sleep(1.23456)
        return clear(run)

    monkeypatch.setattr("runner.training.session.time", clock)
    monkeypatch.setattr(checkpoints, "clear_staging", slowly)
    left = checkpoints.stage(run, 3)
    (left / "half").write_bytes(b"x" * 70)

    go(splits(train=7))

    (told,) = events(run, Prepared)
    assert (told.num_train, told.num_dropped, told.num_at_max_length) == (3, 4, 1)
    assert (told.num_tokens, told.num_learnt) == (90, 30)
    assert told.num_trainable == 2 * 5 + 5
    assert told.reclaimed_bytes == 70
    assert (told.device, told.compute_capability) == ("cpu", None)
    assert told.seconds == 1.235


def test_a_gpu_is_told_with_its_generation(go, run, trainer, monkeypatch):
    """As NVIDIA writes it."""
    trainer.args.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))

    go()

    (told,) = events(run, Prepared)
    assert (told.device, told.compute_capability) == ("cuda", "9.0")


def test_without_held_out_rows_nothing_is_evaluated_and_nothing_answered(go, run, trainer):
    """There is nothing to compare."""
    assert go(splits(held_out=0)) == ExitCode.FINISHED

    assert trainer.done == ["train from None", "flush", "save"]
    assert [e.phase for e in events(run, Phase)] == ["hashing", "preparing"]


def test_a_last_step_that_was_evaluated_is_not_evaluated_again(go, trainer):
    """It is evaluated before its checkpoint."""
    trainer.during_training = lambda: trainer.selection.add(10, 1.0)

    go()

    assert "evaluate at 10" not in trainer.done


def test_several_processes_answer_nothing(go, trainer):
    """None of them has the whole model."""
    trainer.args.world_size = 2

    go()

    assert not [text for text in trainer.done if text.startswith("answer")]


@pytest.mark.parametrize("reached", [4, 9])
def test_an_attempt_that_stops_before_its_last_step_publishes_nothing(go, run, trainer, reached):
    """Code 75: it goes on with `advisor resume`."""
    trainer.reaches = reached

    assert go() == ExitCode.STOPPED

    (end,) = events(run, End)
    assert (end.state, end.step) == (State.STOPPED, reached)
    assert trainer.done[-1] == "flush"
    assert not run.model.exists()


def test_a_run_without_gain_is_finished_before_its_last_step(go, run, trainer):
    """Stopped early by its evaluations, not by a person."""
    trainer.selection.patience, trainer.reaches = 1, 6
    trainer.selection.losses = {4: 1.0, 6: 2.0}
    trainer.keeps_best = False

    assert go() == ExitCode.FINISHED

    (published,) = events(run, Published)
    assert (published.step, published.last_step) == (6, 6)


def test_what_changed_since_the_first_attempt_is_told(go, run):
    """The first fifty names; the first attempt alone writes the lock."""
    lock = LOCK | {"packages": {f"p{n}": "1" for n in range(70)}}
    go(lock=lock)
    go(lock=lock)
    assert read_json(run.recipe_lock) == lock
    assert events(run, Drift) == []

    go(lock=LOCK | {"packages": dict.fromkeys(lock["packages"], "2")})

    (drift,) = events(run, Drift)
    assert len(drift.changed) == 50
    assert read_json(run.recipe_lock) == lock


def test_a_bar_of_the_library_does_not_fill_the_console(go):
    """The log is for errors."""
    from transformers.utils import logging

    logging.enable_progress_bar()

    go()

    assert not logging.is_progress_bar_enabled()


def test_another_rank_trains_and_writes_nothing(go, run, trainer, monkeypatch):
    """It saves its part, and the first rank publishes; what a crash left is not its business."""
    monkeypatch.setenv("RANK", "1")
    trainer.ranks = OneRank()
    left = checkpoints.stage(run, 3)
    staging = run.path / f"{durable.STAGING_PREFIX}model"

    def begin():
        staging.mkdir()
        (staging / "part").write_text("of the first rank")

    trainer.during_training = begin

    assert go(is_main=False) == ExitCode.FINISHED

    assert "save" in trainer.done
    assert (staging / "part").exists()
    assert not run.model.exists()
    assert left.exists()
    assert read_json(run.recipe_lock) is None
