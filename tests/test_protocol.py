"""What a trainer owes at its steps: the beginning, records, the numbers, the ranks."""

from __future__ import annotations

import dataclasses
import math

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from stand_ins import Clock, Notes, OneOfTwo, Trainer, at  # noqa: E402
from transformers import TrainerControl  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs.records.metrics import Loss  # noqa: E402
from profiles.runs.records.worker import Changed, Guard, Paused, Phase, TrainBegun  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.engines.ranks import Ranks  # noqa: E402
from runner.training.protocol import ProtocolCallback  # noqa: E402
from runner.training.selection import Selection  # noqa: E402
from runner.training.stopping import NoStepLeft  # noqa: E402


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


@pytest.fixture
def attempt(run):
    """Its attempt, with journals in memory."""
    quiet = real_runs.quiet(run)
    return dataclasses.replace(quiet, events=Notes(), metrics=Notes(), began=900.0)


@pytest.fixture
def clock(monkeypatch):
    """The protocol's time."""
    clock = Clock()
    monkeypatch.setattr("runner.training.protocol.time", clock)
    return clock


@pytest.fixture
def trainer(attempt):
    """A trainer of one process."""
    return Trainer(attempt, Ranks(1, is_main=True))


@pytest.fixture
def callback(trainer):
    """Its callback; a spike is only told."""
    return ProtocolCallback(trainer, on_spike="warn")


def told(attempt, kind):
    """The events of one kind."""
    return [e for e in attempt.events.records if isinstance(e, kind)]


def committed(run, *steps):
    """Checkpoints of these steps."""
    for step in steps:
        staging = checkpoints.stage(run, step)
        (staging / "weights").write_text("w")
        checkpoints.commit(run, staging, step)


def log(callback, loss, *, step=1, flow=None, **more):
    """Log a loss."""
    callback.on_log(None, at(step), flow or TrainerControl(), {"loss": loss, **more})


def log_many(callback, losses, **more):
    """Log one loss after the other."""
    for loss in losses:
        log(callback, loss, **more)


def test_training_begins_with_what_comes_before_and_the_longest_batch(
    clock, trainer, callback, attempt
):
    """In this order; then it is told, with the seconds since the attempt began."""
    clock.now = 912.34

    callback.on_train_begin(None, at(3, last=10), None)

    assert trainer.done == ["before steps", "longest batch, longest"]
    assert attempt.events.records == [
        Phase(phase="longest", total=0),
        TrainBegun(step=3, num_steps=10, seconds=12.3),
    ]


def test_a_stop_waits_for_the_steps_end_once_training_has_begun(callback, attempt):
    """Before that it is answered at once."""
    assert attempt.stop.may_interrupt

    callback.on_train_begin(None, at(0), None)

    assert not attempt.stop.may_interrupt


@pytest.mark.parametrize("step", [10, 11])
def test_a_run_that_made_all_its_steps_makes_no_more(callback, trainer, attempt, step):
    """The Trainer would make one."""
    with pytest.raises(NoStepLeft):
        callback.on_train_begin(None, at(step, last=10), None)

    assert trainer.done == []
    assert attempt.events.records == []


def test_a_run_that_was_stopped_early_makes_no_more_steps(callback, trainer):
    """Its evaluations had no gain for as long as the recipe waits."""
    trainer.selection = Selection(patience=1, losses={2: 1.0, 4: 2.0})

    with pytest.raises(NoStepLeft):
        callback.on_train_begin(None, at(4, last=10), None)


def test_changes_of_earlier_attempts_hold_and_are_not_told_again(callback, trainer, attempt):
    """The latest of each interval; what was not changed stays."""
    trainer.changes = [
        Changed(step=2, log_every=4, eval_every=8),
        Changed(step=3, log_every=6),
    ]
    state = at(3)

    callback.on_train_begin(None, state, None)

    assert (state.logging_steps, state.eval_steps) == (6, 8)
    assert told(attempt, Changed) == []


def test_the_intervals_are_those_of_the_recipe_and_not_of_the_checkpoint(callback, trainer):
    """Which may have been edited since."""
    trainer.args.logging_steps, trainer.args.eval_steps, trainer.args.save_steps = 3, None, 7
    state = at(3, log_every=1, eval_every=5)

    callback.on_train_begin(None, state, None)

    assert (state.logging_steps, state.eval_steps, state.save_steps) == (3, 5, 7)


def test_the_optimizers_time_is_its_own_phase(callback, trainer):
    """From before the optimizer's step to its end."""
    recorder = trainer.recorder

    callback.on_pre_optimizer_step(None, None, None)
    during = list(recorder.open)
    callback.on_optimizer_step(None, None, None)

    assert (during, recorder.open, recorder.closed) == (["optimizer"], [], ["optimizer"])


def test_the_ranks_are_compared_after_the_first_optimizer_step_alone(callback, trainer):
    """Also where nobody told that the optimizer's step begins."""
    for _ in range(3):
        callback.on_optimizer_step(None, None, None)

    assert trainer.done == ["ranks compared"]


def test_a_steps_record_has_the_counts_of_all_ranks(attempt):
    """Written by the first rank."""
    trainer = Trainer(attempt, OneOfTwo(is_main=True, others=2))

    ProtocolCallback(trainer, on_spike="warn").on_step_end(None, at(4), TrainerControl())

    assert trainer.recorder.finished == [(4, {"rows": 5, "tokens": 42})]
    assert attempt.progress.step == 4


def test_other_ranks_write_no_steps_and_no_losses(attempt):
    """They would be there twice."""
    trainer = Trainer(attempt, OneOfTwo(is_main=False))
    callback = ProtocolCallback(trainer, on_spike="warn")

    callback.on_step_end(None, at(4), TrainerControl())
    log(callback, 2.0)

    assert trainer.recorder.finished == []
    assert attempt.progress.step == 0
    assert attempt.metrics.records == []


@pytest.mark.parametrize(
    ("step", "sets", "wanted"),
    [(10, "rows", True), (11, "rows", True), (9, "rows", False), (10, None, False)],
)
def test_the_last_step_is_evaluated_where_something_is_held_out(
    callback, trainer, step, sets, wanted
):
    """Before its checkpoint, which may be the best."""
    trainer.eval_dataset, flow = sets, TrainerControl()

    callback.on_step_end(None, at(step, last=10), flow)

    assert flow.should_evaluate is wanted


def test_what_is_logged_of_a_step_is_kept(callback, attempt):
    """Numbers that the Trainer logs as text or tensors too; no step waits for the disk."""
    log(callback, torch.tensor(2.5), step=7, grad_norm=1.25, learning_rate="1e-3", epoch=0.5, x=1)
    log(callback, 2.25, step=8)

    assert attempt.metrics.records == [
        Loss(step=7, loss=2.5, grad_norm=1.25, learning_rate=1e-3, epoch=0.5),
        Loss(step=8, loss=2.25),
    ]
    assert attempt.metrics.synced == [False, False]


@pytest.mark.parametrize("logs", [None, {}, {"eval_loss": 1.0}, {"train_runtime": 3.0}])
def test_logs_without_a_loss_are_passed_over(callback, attempt, logs):
    """Evaluations and the end of training log too."""
    callback.on_log(None, at(3), TrainerControl(), logs)

    assert attempt.metrics.records == []
    assert attempt.events.records == []


def test_a_sound_loss_says_nothing(callback, attempt):
    """Only the number is kept."""
    log(callback, 2.0, grad_norm=1.0)

    assert attempt.events.records == []


def test_a_loss_that_is_not_finite_ends_the_run_and_is_told(callback, attempt, run):
    """With the step, and what is left of the run."""
    with pytest.raises(UserError, match="diverged at step 6") as caught:
        log(callback, math.nan, step=6)

    assert (caught.value.code, caught.value.where) == (ExitCode.DIVERGED, str(run.metrics))
    assert told(attempt, Guard) == [
        Guard(step=6, fault="nonfinite_loss", what="the loss became nan")
    ]
    assert math.isnan(attempt.metrics.records[0].loss)


def test_a_gradient_that_is_not_finite_ends_the_run(callback):
    """Without a scaler, whose first steps overflow on purpose."""
    with pytest.raises(UserError, match="the gradient became inf"):
        log(callback, 2.0, grad_norm=math.inf)


def test_with_a_scaler_one_wild_gradient_is_told_and_the_run_goes_on(attempt, run):
    """The scaler skips the step; nothing is pinned for it."""
    committed(run, 2)
    callback = ProtocolCallback(
        Trainer(attempt, Ranks(1, is_main=True), fp16=True), on_spike="stop"
    )

    log(callback, 2.0, grad_norm=math.inf)

    assert [e.fault for e in told(attempt, Guard)] == ["nonfinite_gradient"]
    assert checkpoints.pins(run) == {}


@pytest.mark.parametrize(
    ("loss", "gradient", "fault"), [(0.0, 1.0, "zero_loss"), (2.0, 0.0, "zero_gradient")]
)
def test_a_run_that_learns_nothing_is_ended(callback, attempt, loss, gradient, fault):
    """It has not diverged: the data is looked at, not the learning rate."""
    with pytest.raises(UserError, match="stopped at step 1") as caught:
        log_many(callback, [loss] * 5, grad_norm=gradient)

    assert "no token of these batches is learnt" in caught.value.why
    assert "learning_rate" not in caught.value.do
    assert caught.value.code is ExitCode.DIVERGED
    assert [e.fault for e in told(attempt, Guard)] == [fault]


def spike(callback, flow=None):
    """Log losses up to a spike."""
    log_many(callback, [2.0] * 60 + [8.0] * 4, step=64, flow=flow)


def test_a_spike_is_told_and_the_newest_checkpoint_before_it_kept(callback, attempt, run):
    """The run goes on."""
    committed(run, 20, 40)
    flow = TrainerControl()

    spike(callback, flow)

    assert [e.fault for e in told(attempt, Guard)] == ["loss_spike"]
    assert list(checkpoints.pins(run)) == [40]
    assert not flow.should_training_stop
    assert told(attempt, Paused) == []


def test_a_spike_before_the_first_checkpoint_pins_nothing(callback, run):
    """And does no harm."""
    spike(callback)

    assert checkpoints.pins(run) == {}


def test_a_checkpoint_that_cannot_be_pinned_does_not_end_the_run(
    callback, attempt, run, monkeypatch
):
    """A full disk."""
    committed(run, 20)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "pin", full)

    spike(callback)

    assert len(told(attempt, Guard)) == 1


def test_only_the_first_rank_pins(attempt, run):
    """The others would write the same file."""
    committed(run, 20)

    spike(ProtocolCallback(Trainer(attempt, OneOfTwo(is_main=False)), on_spike="warn"))

    assert checkpoints.pins(run) == {}


def test_a_spike_ends_the_run_where_the_recipe_says_so(trainer, run):
    """With a code of its own; what was before it is pinned."""
    committed(run, 20)

    with pytest.raises(UserError, match="loss spike at step 64") as caught:
        spike(ProtocolCallback(trainer, on_spike="stop"))

    assert (caught.value.code, caught.value.where) == (ExitCode.LOSS_SPIKE, str(run.metrics))
    assert list(checkpoints.pins(run)) == [20]
