"""What the live screen knows of a run, from batches alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from known import RECIPE

from profiles.run_facts import Result, Verdict
from profiles.runs.records.sampler import Usage
from profiles.runs.state import State, Status
from tests.canned_run import GIB, canned_run, gpu, step
from tui import live as module
from tui.feed import Batch, Event
from tui.live import LiveRun
from tui.screens import panes
from tui.terminal import Symbols

NOW = Status(
    state=State.RUNNING,
    attempt=1,
    step=0,
    num_steps=40,
    resumable_from=None,
    reason="",
    exit_code=None,
    since=1000.0,
)


def at(number, **changes):
    """A step, one second after the one before."""
    return replace(step(number, **changes), unix_seconds=1000.0 + number, attempt=1)


def batch(*, status=NOW, phase="training", **changes):
    """What came."""
    return Batch(status=status, phase=phase, **changes)


@pytest.fixture
def live():
    """A run of which nothing was read yet."""
    return LiveRun(canned_run(done=0))


def steps(first, last, **changes):
    """Steps of a batch."""
    return tuple(at(number, **changes) for number in range(first, last + 1))


@pytest.mark.parametrize(
    ("status", "phase", "expected"),
    [
        ({}, "training", "RUNNING  step 3 of 40  8 %  eta 37 s"),
        ({}, "evaluating 3/9", "RUNNING (evaluating 3/9)  step 3 of 40  8 %  eta 37 s"),
        ({}, "answering", "RUNNING (answering)  step 3 of 40  8 %  eta 37 s"),
        ({}, "finishing", "RUNNING (finishing)  step 3 of 40  8 %  eta 37 s"),
        ({"state": State.CHECKPOINTING}, "", "CHECKPOINTING  step 3 of 40  8 %  eta 37 s"),
        ({"state": State.STARTING}, "loading", "STARTING (loading)  step 3 of 40  8 %"),
        ({"state": State.STARTING}, "", "STARTING  step 3 of 40  8 %"),
        ({"state": State.PAUSED}, "paused", "PAUSED  step 3 of 40  8 %"),
        ({"state": State.FINISHED, "step": 40}, "finishing", "FINISHED  step 40 of 40  100 %"),
        ({"num_steps": 0}, "", "RUNNING  step 3"),
        ({"attempt": 2}, "", "RUNNING  step 3 of 40  8 %  eta 37 s  attempt 2"),
    ],
)
def test_the_headline_tells_state_progress_and_attempt(live, status, phase, expected):
    """What a long start or end is busy with is told, what training does is seen below."""
    assert live.headline(60).endswith("  READING")
    live.apply(batch(status=replace(NOW, **status), phase=phase, steps=steps(1, 3)))

    assert live.headline(90).partition("  ")[2] == expected
    assert live.headline(len(expected) + 1) == expected


def test_before_the_first_step_there_is_no_progress_without_a_plan(live):
    """And no time left."""
    live.apply(batch(status=replace(NOW, num_steps=0)))

    assert live.headline(60).partition("  ")[2] == "RUNNING"
    assert (live.seconds_left, live.step_seconds, live.shares()) == (None, None, [])
    assert live.symptoms() == ()


def test_a_run_is_called_by_its_name_and_the_end_of_its_id(live):
    """A run without a name too."""
    run = live.run
    end = run.id.rsplit("_")[-1]
    assert live.name == f"tiny lora {end}"
    for name, expected in ((None, "run"), ("x" * 99, f"{'x' * 31}...")):
        run.manifest.write_text(json.dumps({"name": name}))
        assert LiveRun(run).name == f"{expected} {end}"


def test_the_time_left_is_at_the_pace_of_the_recent_steps(live):
    """From one to the next, so that evaluations count; of a single step its own."""
    live.apply(batch(steps=steps(1, 1)))
    assert live.seconds_left == 39 * 0.5
    live.apply(batch(steps=steps(2, 4)))
    assert live.seconds_left == 36.0
    live.apply(batch(status=replace(NOW, step=38)))
    assert live.seconds_left == 2.0
    live.apply(batch(status=replace(NOW, step=41)))
    assert live.seconds_left == 0


def test_the_first_steps_count_until_there_are_others(live):
    """They allocate and compile: from the sixth on they are no part of the pace; nor is a pause."""
    live.apply(batch(steps=steps(1, 5, seconds=9.0)))
    assert (live.num_recent, live.step_seconds) == (5, 9.0)
    live.apply(batch(steps=steps(6, 8)))
    assert (live.num_recent, live.step_seconds) == (3, 0.5)
    live.apply(batch(steps=steps(9, 12), went_on_at=1010.5))
    assert live.num_recent == 2
    live.apply(batch(steps=steps(13, 13)))
    assert live.num_recent == 3
    again = tuple(replace(one, attempt=2) for one in steps(4, 9, seconds=2.0))
    live.apply(batch(steps=again[:5]))
    assert (live.num_recent, live.step_seconds) == (5, 2.0)
    live.apply(batch(steps=again[5:]))
    assert live.num_recent == 1
    live.apply(batch(steps=tuple(replace(one, attempt=2) for one in steps(10, 300))))
    assert live.num_recent == 200


def test_what_a_batch_lacks_stays_as_it_was(live):
    """A sample, the phase of a step; curves go on."""
    sample = Usage(num_processes=1, rss_bytes=GIB, cpu_seconds=1.0, host_free_bytes=GIB, gpus=())
    live.apply(
        batch(
            steps=(at(1), at(2, seconds=0.0), at(3, tokens=0), at(4)),
            losses=((1, 3.5), (2, math.nan)),
            sample=sample,
            events=tuple(Event(float(n), str(n)) for n in range(60)),
            num_damaged=3,
        )
    )
    live.apply(batch(losses=((3, 3.0),), num_damaged=4))

    assert live.sample is sample
    assert (live.loss.last, live.loss.num_not_finite, live.loss.num_buckets) == (3.0, 1, 3)
    assert (live.rate.last, live.rate.num_buckets) == (800.0, 2)
    assert ([event.text for event in live.events][::49], live.num_damaged) == (["10", "59"], 4)


def test_memory_is_the_samples_once_there_are_some(live):
    """In GiB; peaks that the steps told stand in until then."""
    live.apply(batch(steps=(at(1), at(2, rss_peak_bytes=0))))
    assert (live.memory.last, live.memory.num_buckets) == (1.0, 1)
    live.apply(batch(memory=((1001.0, GIB / 2),), steps=steps(3, 4)))
    live.apply(batch(memory=((1002.0, GIB / 4),)))
    assert (live.memory.last, live.memory.num_buckets) == (0.25, 2)


@pytest.mark.parametrize(
    ("state", "seconds", "num_steps", "expected"),
    [
        (State.RUNNING, 10.0, 1, None),
        (State.RUNNING, 10.5, 1, 10.5),
        (State.STOPPING, 10.5, 1, 10.5),
        (State.STARTING, 10.5, 0, 10.5),
        (State.CHECKPOINTING, 10.5, 1, 10.5),
        (State.PAUSED, 99.0, 1, None),
        (State.FINISHED, 99.0, 1, None),
    ],
)
def test_silence_is_longer_than_ten_seconds_of_a_run_that_works(
    live, state, seconds, num_steps, expected
):
    """And longer than three steps take."""
    assert live.silent_seconds(5000.0) is None
    live.apply(batch(status=replace(NOW, state=state), steps=steps(1, num_steps)))
    assert live.silent_seconds(1000.0 + seconds) == expected
    live.apply(batch(status=replace(NOW, state=state, since=900.0), steps=steps(2, 2, seconds=20)))
    assert live.silent_seconds(1000.0 + 30.0) is None


@pytest.mark.parametrize(
    ("num_steps", "tokens", "is_slow"),
    [(25, 200, True), (24, 200, False), (25, 202, False), (25, 100, True)],
)
def test_a_speed_below_half_of_the_planned_is_told_with_what_else_runs(
    live, monkeypatch, num_steps, tokens, *, is_slow
):
    """Once twenty steady steps are there, and while the run works."""
    monkeypatch.setattr(module.os, "getloadavg", lambda: (7.25, 1.0, 1.0))
    monkeypatch.setattr(module.os, "cpu_count", lambda: 4)
    live.apply(batch(steps=steps(1, num_steps, tokens=tokens)))

    percent = 50 if tokens == 200 else 25
    told = f"{percent} % of the planned speed; the load of this machine is 7.2 on 4 cores, and"
    assert live.slowness() == (
        f"{told} `advisor probe` shows who else uses its GPUs" if is_slow else ""
    )
    live.apply(batch(status=replace(NOW, state=State.FINISHED)))
    assert live.slowness() == ""


def test_captions_say_what_the_curves_are_held_against(live, monkeypatch):
    """The plan, the memory of this host, the evaluations; nothing where nothing is known."""
    monkeypatch.setattr(panes.psutil, "virtual_memory", lambda: SimpleNamespace(total=4 * GIB))

    def captions(of):
        return panes.loss_caption(of), panes.rate_caption(of), panes.memory_caption(of)

    assert captions(live) == ("not evaluated yet", "by step", "")
    result = Result(verdict=Verdict.BETTER, base_loss=3.8312, loss=3.6149)
    live.apply(batch(status=replace(NOW, result=result), steps=steps(1, 6, tokens=300)))
    assert captions(live) == (
        "better 3.83 -> 3.61",
        "75 % of planned 800",
        "of 4.0 GiB RAM, 25 %",
    )
    live.run.recipe.write_text("")
    unplanned = LiveRun(live.run)
    unplanned.apply(batch(steps=steps(1, 6)))
    assert panes.rate_caption(unplanned) == "by step"


def test_where_the_time_goes_is_a_bar_for_each_phase(live):
    """With a blank row above them where there is room."""
    assert panes.time_rows(live, 30, 9, Symbols.ASCII) == ["no step yet"]
    live.apply(batch(steps=steps(1, 3, seconds=0.1234)))
    bars = [
        "data wait #.............  10 %",
        "forward   ####..........  30 %",
        "backward  ######........  40 %",
        "optimizer #.............  10 %",
        "other     #.............  10 %",
    ]

    head = "0.12 s a step, mean of the last 3"
    assert panes.time_rows(live, 30, 7, Symbols.ASCII) == [head[:30], "", *bars]
    assert panes.time_rows(live, 40, 6, Symbols.ASCII)[0] == head
    assert panes.time_rows(live, 30, 6, Symbols.ASCII)[1:] == bars


def test_gpus_are_told_in_two_rows_where_there_is_room(live):
    """A meter, and what it does; what is not known is left out."""
    hot = replace(gpu(1, used_gib=20.0), throttle=("heat", "power"), temperature_celsius=None)
    odd = replace(gpu(2), used_bytes=None, utilization_percent=None, power_watts=None)
    sample = Usage(
        num_processes=1,
        rss_bytes=GIB,
        cpu_seconds=1.0,
        host_free_bytes=GIB,
        gpus=(gpu(0), hot, odd),
    )
    assert panes.gpu_rows(live, 40, 6, Symbols.ASCII) == []
    live.apply(batch(sample=sample))
    meters = [
        "0 60.0/80 GiB ###############.....  75 %",
        "1 20.0/80 GiB #####...............  25 %",
        "2 unknown unknown                       ",
    ]
    below = ["  97 % busy  642 W  71 C", "  97 % busy  642 W  throttled: heat, power", "  71 C"]

    rows = panes.gpu_rows(live, 50, 6, Symbols.ASCII)
    assert rows[1::2] == below
    assert [row[:40] for row in panes.gpu_rows(live, 40, 6, Symbols.ASCII)][::2] == meters
    assert panes.gpu_rows(live, 40, 5, Symbols.ASCII) == meters
    assert panes.gpu_rows(live, 40, 3, Symbols.ASCII) == meters
    assert panes.gpu_rows(live, 40, 2, Symbols.ASCII) == [meters[0], "2 more GPUs"]
    assert panes.gpu_rows(live, 9, 6, Symbols.ASCII)[1] == below[0][:9]


def test_what_the_curves_say_is_of_losses_around_a_step(live):
    """A twentieth of the planned steps to each side; without a recipe there is nothing to say."""
    curve = ((0, 3.8), (4, 3.2), (8, 3.4), (12, 3.6), (16, 4.0))
    ends = {"best_step": 4, "best_loss": 3.2, "last_step": 16, "last_loss": 4.0}
    result = Result(verdict=Verdict.BETTER, base_loss=3.8, step=4, loss=3.2, curve=curve, **ends)
    losses = tuple((number, 4 - number / 10) for number in range(1, 17))
    told = batch(status=replace(NOW, result=result, num_steps=100), losses=losses)
    live.apply(told)
    assert live.symptoms() == ()

    live.run.recipe.write_text(RECIPE)
    again = LiveRun(live.run)
    again.apply(told)

    (found,) = again.symptoms()
    assert found.id == "Q03"
    assert found.sentence.endswith("while the training loss fell from 3.5000 to 2.6500")
