"""Numbers that a run must not go on with, and steps that do not come."""

from __future__ import annotations

import math

import pytest

from runner.training.guard import NUM_ZEROS, LossGuard, SpikeWatch, StallWatch, stall_limit


def first_fault(losses, gradients=None, *, has_scaler=False):
    """(index, fault) of the first log with a fault, or None."""
    guard = LossGuard(has_scaler=has_scaler)
    for index, loss in enumerate(losses):
        fault = guard.look(loss, gradients[index] if gradients else 1.0)
        if fault is not None:
            return index, fault
    return None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_at_once(loss):
    """Not shown as 0.0, which looks like perfect convergence."""
    index, fault = first_fault([2.0, loss])

    assert (index, fault.kind, fault.ends_run) == (1, "nonfinite_loss", True)


def test_a_loss_of_exactly_zero_is_a_fault_when_it_stays():
    """All labels masked: loss 0.0, and nothing is learnt."""
    index, fault = first_fault([2.0, 0.0, 0.0, 0.0])

    assert (index, fault.kind, fault.ends_run) == (3, "zero_loss", True)
    assert first_fault([0.0, 0.0, 1.0, 0.0, 0.0]) is None


def test_a_gradient_of_zero_is_a_fault_when_it_stays():
    """A loss, but no weight takes part in it."""
    index, fault = first_fault([2.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0])

    assert (index, fault.kind, fault.ends_run) == (3, "zero_gradient", True)


@pytest.mark.parametrize(
    ("losses", "gradients", "kind"),
    [([0.0] * 4, [1.0] * 4, "zero_loss"), ([2.0] * 4, [0.0] * 4, "zero_gradient")],
)
def test_nothing_is_learnt_from_the_first_log_on(losses, gradients, kind):
    """Three logs tell, neither two nor four."""
    index, fault = first_fault(losses, gradients)

    assert (index, fault.kind) == (2, kind)


def test_zeros_with_a_break_between_them_are_no_fault():
    """A batch without a label may come by chance."""
    assert first_fault([2.0] * 6, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]) is None
    assert first_fault([0.0, 0.0, 0.5, 0.0, 0.0, 0.5]) is None


def test_a_log_without_a_gradient_is_no_fault():
    """Some optimizers tell none."""
    guard = LossGuard(has_scaler=False)

    assert [guard.look(2.0, None) for _ in range(5)] == [None] * 5


def test_a_wild_gradient_ends_the_run_unless_a_scaler_skips_the_step():
    """With fp16 the first steps overflow on purpose; for ever is too long."""
    wild = [math.inf] * 30

    assert first_fault([2.0] * 30, wild)[1].ends_run
    index, fault = first_fault([2.0] * 30, wild, has_scaler=True)
    assert (index, fault.ends_run) == (0, False)
    guard = LossGuard(has_scaler=True)
    faults = [guard.look(2.0, math.inf) for _ in range(20)]
    assert faults[-1].ends_run
    assert faults[-1].kind == "nonfinite_gradient"
    assert faults[1:-1] == [None] * 18


@pytest.mark.parametrize("good", [1.0, None])
def test_each_row_of_skipped_steps_is_told_and_counted_from_its_first(good):
    """A step that was made in between ends the row."""
    guard = LossGuard(has_scaler=True)
    wild = [math.inf] * 15

    faults = [guard.look(2.0, gradient) for gradient in [*wild, good, *wild]]

    told = [(index, fault.ends_run) for index, fault in enumerate(faults) if fault is not None]
    assert told == [(0, False), (16, False)]


def curve(*parts):
    """Losses: (value, how many) ..."""
    return [value for value, count in parts for _ in range(count)]


def test_a_spike_is_seen_after_the_patience_of_four():
    """Twice the average and more, four times in a row."""
    index, fault = first_fault(curve((2.0, 60), (6.2, 10)))

    assert (index, fault.kind, fault.ends_run) == (63, "loss_spike", False)
    assert "3.1 times its average" in fault.what


@pytest.mark.parametrize(
    "losses",
    [
        curve((8.0, 5), (4.0, 20), (2.0, 100)),
        curve((2.0, 60), (5.0, 3), (2.0, 60)),
        curve((2.0, 60), (3.9, 60)),
        [2.0 + 0.9 * (-1) ** i for i in range(200)],
        curve((6.0, 10), (20.0, 9)),
    ],
    ids=["falling", "short outburst", "less than double", "noisy", "too early to tell"],
)
def test_ordinary_curves_are_no_spikes(losses):
    """False alarms would be switched off."""
    assert first_fault(losses) is None


def test_a_spike_is_told_from_the_twentieth_loss_on_whatever_the_level():
    """An average of half a nat is one too."""
    index, fault = first_fault(curve((0.5, 20), (1.6, 4)))

    assert (index, fault.kind) == (23, "loss_spike")
    assert first_fault(curve((0.5, 20), (1.0, 40))) is None  # twice the average exactly


def test_the_average_is_that_of_the_last_hundred_losses():
    """The high losses of the beginning do not hide a spike for ever."""
    index, _ = first_fault(curve((8.0, 100), (2.0, 100), (6.0, 10)))

    assert index == 203


def test_a_short_outburst_belongs_to_the_average_and_is_forgotten():
    """What was high then is not so far above what came since, and outbursts do not add up."""
    assert first_fault(curve((2.0, 20), (6.0, 3), (2.0, 1), (4.8, 8))) is None
    assert first_fault(curve((2.0, 60), (5.0, 3), (2.0, 1), (5.0, 3), (2.0, 9))) is None


def test_losses_of_nothing_have_no_spikes():
    """No number is a multiple of 0."""
    watch = SpikeWatch()

    assert [watch.add(loss) for loss in curve((0.0, 20), (1.0, 3))] == [None] * 23


def test_a_spike_that_lasts_is_told_again_after_as_many_logs():
    """Not at every log."""
    watch = SpikeWatch()

    alarms = [watch.add(loss) for loss in curve((2.0, 100), (6.0, 9))]

    assert [index for index, alarm in enumerate(alarms) if alarm is not None] == [103, 107]


def test_after_a_spike_the_new_level_becomes_the_average():
    """One alarm a spike, not one a step."""
    watch = SpikeWatch()

    alarms = [watch.add(loss) for loss in curve((2.0, 100), (6.0, 200))]

    assert 1 <= sum(alarm is not None for alarm in alarms) <= 10
    assert alarms[-50:] == [None] * 50


def test_a_stall_is_ten_medians_and_at_least_five_minutes():
    """Phases that take long have limits of their own, a pause none."""
    assert stall_limit("training", 2.0) == 300
    assert stall_limit("training", 60.0) == 600
    assert stall_limit("paused", 2.0) == math.inf
    half_an_hour = ("importing", "reading", "loading", "checking", "answering", "longest")
    for phase in (*half_an_hour, "hashing", "preparing", "evaluating", "checkpoint"):
        assert stall_limit(phase, 2.0) == 1800
    for phase in ("tokenising", "finishing"):
        assert stall_limit(phase, 2.0) == 3600
    assert stall_limit("evaluating", 600.0) == 6000


def test_a_stall_is_told_once_and_its_end_too():
    """Alive without a step, then a step."""
    now = 0.0
    watch = StallWatch(lambda: now)
    told = []
    for second, step in [(0, 1), (200, 1), (300, 1), (400, 1), (500, 2), (799, 2), (801, 2)]:
        now = float(second)
        told.append(watch.look(step, "training", 1.0))

    assert told == [None, None, 300.0, None, 0.0, None, 301.0]


def test_rows_that_are_told_apart_have_no_loss_and_that_is_no_fault():
    """Where a task can be solved; a gradient of 0 with a loss is one all the same."""
    solved = LossGuard(has_scaler=False, can_be_solved=True)

    assert [solved.look(0.0, 0.0) for _ in range(9)] == [None] * 9
    faults = [solved.look(0.5, 0.0) for _ in range(NUM_ZEROS)]
    assert [fault and fault.kind for fault in faults] == [None] * (NUM_ZEROS - 1) + [
        "zero_gradient"
    ]
