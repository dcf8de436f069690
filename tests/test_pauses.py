"""Pauses of a run: until somebody ends them, or until the disk has room again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("torch")

import real_runs
from stand_ins import Clock, Notes, Trainer, answers, at, ends_step, orders
from transformers import TrainerControl

from profiles.runs.records.worker import (
    Guard,
    Paused,
    StopAccepted,
    Unpaused,
)
from runner import checkpoints
from runner.engines.ranks import Ranks
from runner.supervision import control
from runner.training.protocol import ProtocolCallback
from runner.training.room import Shortfall


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


@pytest.fixture
def attempt(run):
    """Its attempt, with journals in memory."""
    return dataclasses.replace(real_runs.quiet(run), events=Notes(), metrics=Notes())


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The protocol's time, which gives up after some hours of waiting."""
    clock = Clock(0.0)
    monkeypatch.setattr("runner.training.protocol.time", clock)
    clock.on_sleep = lambda now: pytest.fail("nobody ended the pause") if now > 9999 else None
    return clock


@pytest.fixture
def trainer(attempt):
    """A trainer of one process."""
    return Trainer(attempt, Ranks(1, is_main=True))


@pytest.fixture
def callback(trainer):
    """Its callback; a spike pauses."""
    return ProtocolCallback(trainer, on_spike="pause")


@pytest.fixture
def asks(run, clock):
    """Leave requests at these seconds of a pause: (seconds, verb) or (seconds, verb, args)."""

    def arrange(*requests):
        left = sorted(requests, key=lambda one: one[0])

        def until(now):
            assert left or now < 9999, "nobody ended the pause"
            while left and now >= left[0][0]:
                _, verb, *args = left.pop(0)
                control.leave(run, verb, run.attempt(), *args)

        clock.on_sleep = until

    return arrange


def told(attempt, *kinds):
    """The events of these kinds."""
    return [e for e in attempt.events.records if isinstance(e, kinds)]


def test_a_pause_lasts_until_somebody_ends_it(callback, trainer, attempt, run, asks, clock):
    """Told with its reason and its end; the step after it does not take as long as the pause."""
    asks((60, "unpause"))
    control.leave(run, "pause", 1)
    phases = []
    during = attempt.progress.during
    attempt.progress.during = lambda phase: (phases.append(phase), during(phase))[1]

    flow = ends_step(callback, 4)

    assert orders(flow) == (False, False)
    assert attempt.events.records == [
        Paused(step=4, reason="asked", what="asked to pause"),
        Unpaused(step=4),
    ]
    assert phases == ["paused"]
    assert 60 <= clock.now <= 61
    assert trainer.recorder.times_begun == 1


def test_what_is_asked_in_a_pause_is_done_when_it_ends(callback, attempt, run, asks):
    """A second pause in it is none."""
    asks((1, "checkpoint"), (2, "change", {"log_every": 9}), (3, "pause"), (4, "unpause"))
    control.leave(run, "pause", 1)
    state = at(4)

    flow = ends_step(callback, state=state)

    assert orders(flow) == (False, True)
    assert state.logging_steps == 9
    assert len(told(attempt, Paused)) == 1
    assert {verb for verb, _ in answers(run)} == {"pause", "checkpoint", "change", "unpause"}


@pytest.mark.parametrize(("verb", "saves"), [("stop", True), ("stop_now", False)])
def test_a_stop_ends_a_pause(callback, attempt, run, asks, verb, saves):
    """Nobody has to end the pause first."""
    asks((5, verb))
    control.leave(run, "pause", 1)

    assert orders(ends_step(callback)) == (True, saves)
    assert [type(e) for e in attempt.events.records] == [Paused, Unpaused, StopAccepted]


def test_a_signal_ends_a_pause(callback, attempt, run, clock):
    """As a stop does."""
    control.leave(run, "pause", 1)
    clock.on_sleep = lambda now: setattr(attempt.stop, "asked", now > 3) if now < 99 else 1 / 0

    assert orders(ends_step(callback)) == (True, True)


def test_a_spike_pauses_where_the_recipe_says_so(callback, attempt, asks):
    """A person looks, and lets it go on or stops it."""
    asks((5, "stop"))
    flow = TrainerControl()

    for loss in [2.0] * 60 + [8.0] * 4:
        callback.on_log(None, at(64), flow, {"loss": loss})

    (guard,), (paused,) = told(attempt, Guard), told(attempt, Paused)
    assert (paused.step, paused.reason, paused.what) == (64, "asked", guard.what)
    assert orders(flow) == (True, True)


def lacking(cause=""):
    """A disk that is full, or cannot say how full it is."""
    return Shortfall(Path("/disk"), 5, 1, cause=cause)


def test_a_save_waits_until_there_is_room(callback, trainer, attempt):
    """And looks for it again and again."""
    trainer.lacking = [lacking(), lacking()]

    assert callback.wait_for_room(at(6), lacking(), 500) is True

    assert trainer.done == ["looked for 500 bytes"] * 3
    (paused, unpaused) = attempt.events.records
    assert (paused.step, paused.reason) == (6, "disk_full")
    assert paused.what.startswith("/disk has ")
    assert "make room, or stop: without room by then all that was learnt is lost" in paused.what
    assert unpaused == Unpaused(step=6)
    assert not trainer.control.should_training_stop


def test_room_that_only_a_write_can_find_is_tried_less_often(callback, clock):
    """A quota is tried by writing; plain room is looked up."""
    waited = []
    for cause in ("", "your quota is used up"):
        before = clock.now
        assert callback.wait_for_room(at(6), lacking(cause), 500)
        waited.append(clock.now - before)

    assert waited == [5.0, 30.0]


@pytest.mark.parametrize("verb", ["stop", "stop_now"])
def test_a_stop_gives_up_the_save_that_has_no_room(callback, trainer, attempt, asks, verb):
    """Told as what it is, a stop without a checkpoint."""
    trainer.lacking = [lacking()] * 99
    asks((12, verb))

    assert callback.wait_for_room(at(6), lacking(), 500) is False

    assert trainer.control.should_training_stop
    assert told(attempt, StopAccepted) == [StopAccepted(step=6, verb="stop_now")]


def test_a_stop_saves_where_there_is_room_by_then(callback, trainer, attempt, asks):
    """Made a moment ago, since the last look."""
    asks((1, "stop"))

    assert callback.wait_for_room(at(6), lacking(), 500) is True

    assert trainer.done == ["looked for 500 bytes"]
    assert trainer.control.should_training_stop
    assert told(attempt, StopAccepted) == [StopAccepted(step=6, verb="stop")]


def test_a_stop_without_saving_does_not_save_though_there_is_room(callback, attempt, asks):
    """A person said so."""
    asks((1, "stop_now"))

    assert callback.wait_for_room(at(6), lacking(), 500) is False

    assert told(attempt, StopAccepted) == [StopAccepted(step=6, verb="stop_now")]


def test_a_stop_tries_once_where_room_cannot_be_seen(callback, attempt, asks):
    """A quota is found by writing; the save that fails again is given up."""
    asks((1, "stop"))

    assert callback.wait_for_room(at(6), lacking("your quota is used up"), 500) is True
    assert callback.wait_for_room(at(6), lacking("your quota is used up"), 500) is False

    assert len(told(attempt, Paused)) == len(told(attempt, StopAccepted)) == 1


@pytest.mark.parametrize(
    ("saved", "lost"),
    [
        ((), "all that was learnt is lost"),
        ((2, 4), "all that was learnt after step 4 is lost"),
        ((4, 6), "nothing that was learnt is lost"),
    ],
)
def test_what_a_stop_without_room_loses_is_said_before_it(
    callback, trainer, attempt, run, saved, lost
):
    """While it is waited."""
    for step in saved:
        checkpoints.commit(run, checkpoints.stage(run, step), step)
    trainer.lacking = [lacking()]

    callback.wait_for_room(at(6), lacking(), 500)

    assert told(attempt, Paused)[0].what.endswith(f"or stop: without room by then {lost}")


def test_a_run_that_stops_already_is_not_told_to_twice(callback, trainer, attempt, run, asks):
    """Its save had no room: a second stop gives the save up."""
    control.leave(run, "stop", 1)
    ends_step(callback, 6)
    trainer.lacking = [lacking()] * 99
    asks((12, "stop_now"))

    assert callback.wait_for_room(at(6), lacking(), 500) is False

    assert len(told(attempt, StopAccepted)) == 1


def test_a_signal_that_was_answered_does_not_give_up_the_save(callback, trainer, attempt):
    """It asked for a checkpoint: the save waits for room, once it is there it goes on."""
    attempt.stop.asked = True
    ends_step(callback, 6)
    trainer.lacking = [lacking()] * 3

    assert callback.wait_for_room(at(6), lacking(), 500) is True

    assert len(trainer.done) == 4
    assert len(told(attempt, StopAccepted)) == 1


def test_unpause_tries_to_save_again_at_once(callback, trainer, asks):
    """A person has made room."""
    trainer.lacking = [lacking()] * 99
    asks((1, "unpause"))

    assert callback.wait_for_room(at(6), lacking(), 500) is True
    assert trainer.done == []


def test_requests_are_looked_for_twice_a_second_in_a_pause(callback, run, asks, clock):
    """A person waits for what they asked."""
    asks((10.2, "unpause"))
    control.leave(run, "pause", 1)

    ends_step(callback)

    assert clock.now == 10.5
