"""What people ask of a run while it trains: obeyed at the ends of steps, by all ranks alike."""

from __future__ import annotations

import dataclasses
import errno

import pytest

pytest.importorskip("torch")

import real_runs
from stand_ins import Notes, OneOfTwo, Trainer, answers, at, ends_step, orders

from profiles.runs.records.worker import Changed, StopAccepted
from runner.engines.ranks import Ranks
from runner.supervision import control
from runner.training.protocol import Asked, ProtocolCallback


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


@pytest.fixture
def attempt(run):
    """Its attempt, with journals in memory."""
    return dataclasses.replace(real_runs.quiet(run), events=Notes(), metrics=Notes())


@pytest.fixture
def trainer(attempt):
    """A trainer of one process."""
    return Trainer(attempt, Ranks(1, is_main=True))


@pytest.fixture
def callback(trainer):
    """Its callback; a spike is only told."""
    return ProtocolCallback(trainer, on_spike="warn")


def test_nothing_asked_nothing_done(callback, attempt):
    """A step ends as the Trainer would end it."""
    assert orders(ends_step(callback)) == (False, False)
    assert attempt.events.records == []


def test_a_checkpoint_is_saved_where_somebody_asks_for_one(callback, attempt, run):
    """Training goes on."""
    control.leave(run, "checkpoint", 1)

    assert orders(ends_step(callback)) == (False, True)
    assert answers(run) == [("checkpoint", "obeyed")]
    assert attempt.events.records == []
    assert orders(ends_step(callback, 5)) == (False, False)


@pytest.mark.parametrize(("verb", "saves"), [("stop", True), ("stop_now", False)])
def test_a_run_stops_where_somebody_asks(callback, attempt, run, verb, saves):
    """With a checkpoint, or at once; it is told with the step."""
    control.leave(run, verb, 1)

    assert orders(ends_step(callback, 4)) == (True, saves)
    assert attempt.events.records == [StopAccepted(step=4, verb=verb)]
    assert answers(run) == [(verb, "obeyed")]


def test_a_second_stop_changes_nothing(callback, attempt, run):
    """The checkpoint that was promised is saved."""
    control.leave(run, "stop", 1)
    control.leave(run, "stop_now", 1)

    assert orders(ends_step(callback)) == (True, True)
    assert [e.verb for e in attempt.events.records] == ["stop"]


def test_a_request_for_another_attempt_is_answered_and_not_obeyed(callback, attempt, run):
    """A stale stop never touches a resumed run; what is meant for this one is obeyed."""
    control.leave(run, "stop", 7)
    control.leave(run, "checkpoint", 1)

    assert orders(ends_step(callback)) == (False, True)
    assert answers(run) == [
        ("stop", "ignored: meant for another attempt"),
        ("checkpoint", "obeyed"),
    ]
    assert attempt.events.records == []


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ({"log_every": 3}, (3, 5)),
        ({"eval_every": 7}, (1, 7)),
        ({"log_every": 2, "eval_every": 4}, (2, 4)),
    ],
)
def test_intervals_change_at_the_step_that_ends(callback, attempt, run, args, wanted):
    """What is not named stays; it is told, so that later attempts know."""
    control.leave(run, "change", 1, args)
    state = at(4, log_every=1, eval_every=5)

    assert orders(ends_step(callback, state=state)) == (False, False)

    assert (state.logging_steps, state.eval_steps) == wanted
    assert attempt.events.records == [Changed(step=4, **args)]


def test_a_signal_stops_the_run_once_with_a_checkpoint(callback, attempt):
    """It stays on while the checkpoint is written, and is not told again."""
    attempt.stop.asked = True

    first, second = ends_step(callback, 4), ends_step(callback, 5)

    assert (orders(first), orders(second)) == ((True, True), (False, False))
    assert attempt.events.records == [StopAccepted(step=4, verb="stop")]


@pytest.mark.parametrize("others", [1, 2])
def test_a_signal_to_another_rank_stops_this_one(attempt, others):
    """All ranks end with the same step."""
    trainer = Trainer(attempt, OneOfTwo(is_main=True, others=others))

    flow = ends_step(ProtocolCallback(trainer, on_spike="warn"))

    assert orders(flow) == (True, True)
    assert not attempt.stop.asked


def test_other_ranks_read_no_requests_and_do_as_the_first_says(attempt, run):
    """One of them answers a request, or each would find another."""
    control.leave(run, "stop", 1)
    trainer = Trainer(attempt, OneOfTwo(is_main=False, main=[[Asked("checkpoint")]]))

    flow = ends_step(ProtocolCallback(trainer, on_spike="warn"))

    assert orders(flow) == (False, True)
    assert [r.verb for r in control.pending(run)] == ["stop"]


def test_a_full_disk_does_not_keep_requests_from_being_obeyed(callback, run, monkeypatch):
    """Their answers are lost, the wish is not, and it is granted once."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    control.leave(run, "checkpoint", 1)
    monkeypatch.setattr(control.durable, "write_json", full)

    assert orders(ends_step(callback)) == (False, True)
    assert orders(ends_step(callback)) == (False, False)
