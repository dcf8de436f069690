"""The heartbeat: that the process lives, where it is, that it stalls, that it is asked to stop."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

pytest.importorskip("torch")

import real_runs
from stand_ins import Clock, Notes

from profiles.errors import ExitCode
from profiles.runs import durable
from profiles.runs.records.worker import Progressing, Stalled
from profiles.runs.rundir import read_json
from runner.supervision import control
from runner.training.heartbeat import Heartbeat
from runner.training.stopping import StopEarly, StopFlag


class EndedError(Exception):
    """The test has seen enough beats."""


class Flag(StopFlag):
    """Counts instead of interrupting."""

    times = 0

    def raise_from_thread(self):
        self.times += 1
        self.asked = True


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


@pytest.fixture
def clock(monkeypatch):
    """The heartbeat's time."""
    clock = Clock()
    monkeypatch.setattr("runner.training.heartbeat.time", clock)
    return clock


@pytest.fixture
def heart(run, clock):
    """A heartbeat that no thread runs."""
    return Heartbeat(run, Notes(), Flag())


@pytest.fixture
def beats(heart, clock, run):
    """Beat so many times; what the file says after each."""

    def beat(number, between=lambda: None):
        seen = []

        def after(_now):
            seen.append(run.worker_heartbeat.read_text())
            between()
            if len(seen) == number:
                raise EndedError

        clock.on_sleep = after
        with pytest.raises(EndedError):
            heart.run()
        return seen

    return beat


def events(heart):
    """What was written down."""
    return heart._events.records


def test_every_beat_counts_and_says_where_training_is(heart, beats):
    """Step, phase, and how far it has come in it."""
    assert beats(3) == ["1 0 starting 0 0\n", "2 0 starting 0 0\n", "3 0 starting 0 0\n"]

    heart.end_step(7, 1.0)
    with heart.during("evaluating", 12):
        heart.tick()
        heart.tick(4)
        assert beats(1) == ["4 7 evaluating 5 12\n"]


def test_a_phase_is_told_as_it_begins_and_not_by_a_heart_that_does_not_beat(heart, beats, run):
    """An import may keep the beats back for seconds; other ranks beat not at all."""
    with heart.during("reading"):
        assert not run.worker_heartbeat.exists()
    beats(1)
    with heart.during("importing", 3):
        assert run.worker_heartbeat.read_text() == "1 0 importing 0 3\n"


def test_it_beats_every_two_seconds(beats, clock):
    """As the protocol says: readers take a process for dead that is silent for longer."""
    beats(5)

    assert clock.now == 1010.0


def test_a_full_disk_does_not_end_it(heart, clock, monkeypatch):
    """It goes on trying."""
    tried = []

    def full(*_):
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    def after(_now):
        if len(tried) == 3:
            raise EndedError

    monkeypatch.setattr(durable, "overwrite", full)
    clock.on_sleep = after

    with pytest.raises(EndedError):
        heart.run()


def test_it_dies_with_the_process_and_has_a_name_in_the_stacks(heart):
    """A thread that waits for no one."""
    assert (heart.daemon, heart.name) == (True, "heartbeat")


def test_a_phase_inside_another_gives_it_back(heart):
    """With what was counted of it, also when it fails."""

    def fail():
        assert (heart.phase, heart.done, heart.total) == ("checkpoint", 0, 2)
        raise EndedError

    with heart.during("training"):
        assert (heart.done, heart.total) == (0, 0)
        heart.tick(3)
        with pytest.raises(EndedError), heart.during("checkpoint", 2):
            fail()
        assert (heart.phase, heart.done, heart.total) == ("training", 3, 0)
    assert (heart.phase, heart.done, heart.total) == ("starting", 0, 0)


def test_a_new_loop_is_counted_from_nothing(heart):
    """In the same phase."""
    with heart.during("tokenising", 10):
        heart.tick(6)
        heart.expect(4)
        assert (heart.phase, heart.done, heart.total) == ("tokenising", 0, 4)
        heart.tick()
        assert heart.done == 1


def look_after(heart, clock, beats, seconds):
    """Let so many seconds go by without progress, and beat."""
    clock.now += seconds
    beats(1)


def test_no_step_for_long_is_told_once_with_the_step_and_its_phase(heart, clock, beats, run):
    """How long there was none, and how long one takes."""
    heart.phase = "training"
    for _ in range(3):
        heart.end_step(3, 2.5)
    beats(1)

    look_after(heart, clock, beats, 396.26)
    look_after(heart, clock, beats, 900)

    (stalled,) = events(heart)
    assert stalled == Stalled(
        step=3,
        phase="training",
        seconds=398.3,
        what="alive but no step for 7 min (median 2.5 s); stacks are in stacks.log",
    )
    assert run.stacks.name == "stacks.log"


def test_before_the_first_step_no_usual_time_is_told(heart, clock, beats):
    """There is none."""
    heart.phase = "training"
    beats(1)

    look_after(heart, clock, beats, 298)

    (stalled,) = events(heart)
    assert stalled.what == "alive but no step for 5 min; stacks are in stacks.log"


@pytest.mark.parametrize("sign", ["step", "tick", "phase"])
def test_every_sign_of_progress_ends_a_stall(heart, clock, beats, sign):
    """A step, a row, another phase; it is told with the step."""
    heart.phase = "training"
    heart.end_step(5, 1.0)
    beats(1)
    look_after(heart, clock, beats, 400)

    if sign == "step":
        heart.end_step(6, 1.0)
    elif sign == "tick":
        heart.tick()
    else:
        heart.phase = "checkpoint"
    look_after(heart, clock, beats, 1)

    assert events(heart)[1:] == [Progressing(step=heart.step)]


def test_what_comes_on_slowly_is_no_stall(heart, clock, beats):
    """One row every four minutes."""
    heart.phase = "training"
    for _ in range(5):
        look_after(heart, clock, beats, 240)
        heart.tick()

    assert events(heart) == []


def test_steps_that_take_long_may_take_long_again(heart, clock, beats):
    """Ten times the usual time of the last hundred steps."""
    heart.phase = "training"
    for seconds in [1000.0] * 100 + [40.0] * 60:
        heart.end_step(160, seconds)
    beats(1)

    look_after(heart, clock, beats, 390)
    assert events(heart) == []
    look_after(heart, clock, beats, 10)

    assert "(median 40.0 s)" in events(heart)[0].what


def somewhere_else(began, over):
    """What another thread does meanwhile."""
    began.set()
    over.wait(60)


def test_a_stall_leaves_the_stacks_of_all_threads_after_those_of_before(heart, clock, beats, run):
    """To be read by people."""
    run.stacks.write_text("those of before\n")
    began, over = threading.Event(), threading.Event()
    other = threading.Thread(target=somewhere_else, args=(began, over))
    other.start()
    began.wait(60)
    heart.phase = "training"
    beats(1)

    look_after(heart, clock, beats, 400)
    over.set()
    other.join()

    text = run.stacks.read_text()
    assert text.startswith("those of before\n")
    assert "somewhere_else" in text
    assert "look_after" in text


@pytest.mark.parametrize("verb", ["stop", "stop_now"])
def test_a_stop_before_training_begins_interrupts_once_and_is_answered(heart, beats, run, verb):
    """Nothing is there to save."""
    control.leave(run, verb, 1)

    beats(3)

    assert heart._stop_flag.times == 1
    (answer,) = map(read_json, run.answers.iterdir())
    assert (answer["verb"], answer["result"]) == (verb, "obeyed")


@pytest.mark.parametrize(("verb", "attempt"), [("pause", 1), ("checkpoint", 1), ("stop", 2)])
def test_what_else_is_asked_waits_for_training(heart, beats, run, verb, attempt):
    """And what is meant for another attempt for that."""
    control.leave(run, verb, attempt)

    beats(2)

    assert heart._stop_flag.times == 0
    assert len(control.waiting(run)) == 1


@pytest.mark.parametrize("verb", ["stop", "pause", "checkpoint", "unpause", "change"])
def test_what_is_asked_after_the_last_step_comes_too_late_and_is_told_so(heart, beats, run, verb):
    """Nobody else looks at requests then."""
    heart._stop_flag.is_late = True
    control.leave(run, verb, 1)
    beats(1)

    (answer,) = run.answers.iterdir()
    assert read_json(answer)["result"] == control.TOO_LATE
    assert heart._stop_flag.times == 0


def test_a_stop_without_saving_after_the_last_step_is_left_to_be_forced(heart, beats, run):
    """The supervisor ends what does not answer."""
    heart._stop_flag.is_late = True
    control.leave(run, "stop_now", 1)
    beats(1)

    assert [request.verb for request in control.waiting(run)] == ["stop_now"]


def test_once_training_has_begun_a_stop_is_left_to_the_steps(heart, beats, run):
    """The training thread answers it at the end of one."""
    heart._stop_flag.wait_for_steps()
    control.leave(run, "stop", 1)

    beats(2)

    assert heart._stop_flag.times == 0
    assert len(control.waiting(run)) == 1


@pytest.fixture
def flag():
    """A flag that answers SIGTERM until the test is over."""
    before, flag = signal.getsignal(signal.SIGTERM), StopFlag()
    flag.install()
    assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_DFL)
    yield flag
    signal.signal(signal.SIGTERM, before)


def test_before_training_the_first_signal_interrupts_and_no_other(flag):
    """The second one would interrupt the clearing up."""
    assert not flag.asked

    with pytest.raises(StopEarly):
        flag.raise_from_thread()
    flag.raise_from_thread()

    assert flag.asked


def test_during_training_the_first_signal_waits_and_the_second_leaves(flag):
    """With the code of a stop."""
    flag.wait_for_steps()

    flag.raise_from_thread()
    assert flag.asked
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)

    assert caught.value.code == ExitCode.STOPPED
