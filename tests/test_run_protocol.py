"""The run protocol as a part of a trainer: how it is made of a recipe, what it adds to a step."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402

from profiles.runs.records.metrics import PHASES  # noqa: E402
from runner.engines.engine import Engine  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training.protocol import ProtocolCallback  # noqa: E402
from runner.training.telemetry import COUNTS, TOKEN_STATS  # noqa: E402
from runner.training.trainer import RunProtocol  # noqa: E402

MORE = """keep = "last"
keep_checkpoints = 5
early_stopping = 3
on_spike = "stop"
"""


class EnoughError(Exception):
    """The trainer is made."""


@pytest.fixture
def made(tiny_model, orders, monkeypatch):
    """Make the trainer of a recipe; it, the run, and the accelerators that engines arranged."""

    def make(more=MORE):
        run, found, arranged = real_runs.new_run(tiny_model, orders, more=more), [], []
        init = RunSft.__init__

        def enough(trainer, *args, **kw):
            init(trainer, *args, **kw)
            found.append(trainer)
            raise EnoughError

        with monkeypatch.context() as patch:
            patch.setattr(RunSft, "__init__", enough)
            patch.setattr(Engine, "before_wrapping", lambda _, one: arranged.append(one))
            with pytest.raises(EnoughError):
                real_runs.attempt(run)
        return found[0], run, arranged

    return make


def test_a_trainer_does_as_the_recipe_says(made):
    """Which checkpoints are kept, which weights are published, when it stops by itself."""
    trainer, run, _ = made()
    usual, _, _ = made("")

    assert (trainer.keeps_best, usual.keeps_best) == (False, True)
    assert (trainer.selection.patience, usual.selection.patience) == (3, None)
    assert (trainer.saver.keep, usual.saver.keep) == (5, 3)
    assert trainer.saver.selection is trainer.selection
    assert trainer.saver.facts["method"] == "lora"
    assert trainer.saver.optimizer.name == "adamw"
    assert trainer.saver.run == trainer.attempt.run == run
    assert (trainer.division.rows, trainer.division.accumulation) == (2, 3)
    assert "train.checkpointing = true" in trainer.division.lighter
    assert trainer.division.device == trainer.args.device


def test_a_trainer_is_called_at_its_steps_and_knows_that_it_is_alone(made):
    """With the callback that obeys requests."""
    trainer, _, arranged = made()

    assert trainer.protocol in trainer.callback_handler.callbacks
    assert isinstance(trainer.protocol, ProtocolCallback)
    assert (trainer.ranks.world_size, trainer.ranks.is_main) == (1, True)
    assert arranged == [trainer.accelerator]


def test_nothing_comes_before_the_steps_unless_the_attempt_says_so(made):
    """Nor after an evaluation; whole batches are trained, in earnest."""
    trainer, run, _ = made()

    assert trainer.before_steps() is None
    assert trainer.after_evaluation() is None
    assert (trainer.base_rows, trainer.changes, trainer.begun) == ({}, [], [])
    assert (trainer.is_trial, trainer.share, trainer.staging) == (False, 1.0, None)
    assert not run.model.exists()


def test_batches_come_with_what_they_hold(made):
    """Counted where they are made."""
    trainer, _, _ = made()
    rows = [trainer.train_dataset[index] for index in (0, 1)]

    batch = trainer.data_collator(rows)

    assert batch[TOKEN_STATS].tokens == sum(len(row["input_ids"]) for row in rows)


def test_the_backward_pass_is_its_own_phase(made):
    """And still makes gradients."""
    trainer, run, _ = made()
    weight = torch.ones(3, requires_grad=True)

    trainer.accelerator.backward((weight * 2).sum())
    trainer.recorder.finish(1, dict.fromkeys(COUNTS, 0))
    trainer.recorder.flush()

    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    (step,) = real_runs.steps(run)
    assert set(step["phases"]) == {"backward", "other"} < set(PHASES)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_several_processes_are_compared_at_the_step_that_they_made(processes):
    """One has nobody to differ from."""
    asked = []
    trainer = SimpleNamespace(
        ranks=SimpleNamespace(world_size=processes),
        state=SimpleNamespace(global_step=4),
        engine=SimpleNamespace(refuse_apart=lambda *args: asked.append(args)),
        model="model",
        attempt=SimpleNamespace(run="run"),
    )

    RunProtocol.compare_ranks(trainer)

    assert asked == ([("model", trainer.ranks, 5, "run")] if processes > 1 else [])
