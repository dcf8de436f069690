"""How far a run has come, as its status says: from whatever told of it last."""

from __future__ import annotations

import on_disk
import pytest
from record_examples import example

from profiles.runs import durable, rundir, state
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.metrics import Loss, Step
from profiles.runs.records.supervisor import SupervisorStarted
from profiles.runs.records.worker import Resumed, TrainBegun, WorkerStarted


@pytest.fixture
def run():
    """A run that was started at second 5, in its second attempt."""
    found = rundir.create("a run")
    durable.write_json(found.manifest, {"created": 1e9 + 5})
    durable.write_atomic(found.attempt_file, b"2\n")
    return found


def tell(run, record, at=10.0, *, attempt=2):
    """Let the worker write it where it belongs."""
    is_metric = isinstance(record, Step | Loss)
    on_disk.tell(run.metrics if is_metric else run.worker_events, record, at, attempt=attempt)


@pytest.mark.parametrize(
    ("record", "step"),
    [
        (example(Step, step=7), 7),
        (example(Loss, step=8), 8),
        (TrainBegun(step=6, num_steps=9), 6),
        (Evaluated(step=5, loss=1.0, seconds=1.0), 5),
        (Resumed(from_step=4, passed_over=()), 4),
        (WorkerStarted(pid=3), 0),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_the_step_is_the_last_that_a_record_tells_of(run, record, step):
    """Whichever file it is in."""
    tell(run, record)

    assert state.status(run).step == step


def test_an_earlier_attempt_tells_nothing_of_this_ones_step(run):
    """It may have come further than the checkpoint that this one goes on from."""
    tell(run, TrainBegun(step=50, num_steps=90), attempt=1)
    tell(run, example(Step, step=60), attempt=1)
    tell(run, Resumed(from_step=40, passed_over=()))

    found = state.status(run)

    assert (found.step, found.num_steps) == (40, 90)


def test_the_newest_sign_is_the_newest_records(run):
    """Of this attempt; before it has written any, the run's creation."""
    tell(run, example(Step, step=1), at=9, attempt=1)
    signs = [state.status(run).since]
    tell(run, WorkerStarted(pid=3), at=20)
    signs.append(state.status(run).since)
    tell(run, example(Step, step=2), at=30)
    signs.append(state.status(run).since)
    on_disk.tell(run.supervisor_events, SupervisorStarted(pid=2), 40, attempt=2)
    signs.append(state.status(run).since)

    assert signs == [1e9 + at for at in (5, 20, 30, 40)]


def test_losses_are_the_base_models_and_the_newest(run):
    """Of all attempts: only the first one evaluates the base."""
    for step, loss, attempt in ((0, 4.0, 1), (5, 3.0, 1), (9, 2.0, 2)):
        tell(run, Evaluated(step=step, loss=loss, seconds=1.0), at=step, attempt=attempt)

    assert (state.status(run).base_loss, state.status(run).eval_loss) == (4.0, 2.0)


def test_a_run_whose_base_was_not_evaluated_has_no_loss_of_it(run):
    """The first one it has is not the base model's."""
    tell(run, Evaluated(step=5, loss=3.0, seconds=1.0))

    assert (state.status(run).base_loss, state.status(run).eval_loss) == (None, 3.0)


@pytest.mark.parametrize("last_step", [2**63, -(2**70), 10**400, "7", None, 7.5])
def test_an_exit_record_with_an_impossible_step_tells_of_none(run, last_step):
    """No percentage could be made of it."""
    content = {"attempt": 2, "state": "killed", "last_step": last_step}
    durable.write_json(run.exit, content)
    tell(run, example(Step, step=7))

    assert state.status(run).step == 7
