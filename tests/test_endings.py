"""Why a run ends for what its numbers say, and what else an attempt is told by."""

from __future__ import annotations

import math
import time

import pytest

pytest.importorskip("torch")

import real_runs
from played_session import commit
from transformers import TrainerState

from profiles.errors import ExitCode
from runner.training import endings
from runner.training.attempt import Attempt


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


def state(*losses):
    """A Trainer at step 6 that has logged these."""
    history = [{"loss": loss} for loss in losses]
    return TrainerState(global_step=6, log_history=[*history, {"eval_loss": 9.0}])


def test_a_run_that_diverged_tells_its_last_finite_loss(run):
    """Evaluations and what is no number are passed over."""
    error = endings.diverged("the loss became nan", state(3.0, 2.5, math.inf, math.nan), run)

    assert error.what == "training diverged at step 6: the loss became nan"
    assert error.why == "the last finite loss was 2.500"
    assert (error.code, error.where) == (ExitCode.DIVERGED, str(run.metrics))


def test_a_run_that_diverged_at_once_has_no_loss_to_tell(run):
    """Nor a checkpoint."""
    assert endings.diverged("x", state(math.nan), run).why == "no step had a finite loss"
    assert endings.diverged("x", state(), run).why == "no step had a finite loss"


def test_what_was_saved_of_a_run_that_diverged_is_named(run):
    """The newest."""
    for step in (2, 4):
        commit(run, step)

    why = endings.diverged("x", state(2.0), run).why

    assert why == "the last finite loss was 2.000; the weights of step 4 are finite and kept"


def test_other_endings_name_the_step_and_their_code(run):
    """With where to look."""
    nothing = endings.nothing_learnt("the loss is 0", state(), run)
    spiked = endings.spiked("3 times", state(), run)

    assert nothing.what == "stopped at step 6: the loss is 0"
    assert spiked.what == "stopped on a loss spike at step 6: 3 times"
    assert (nothing.code, spiked.code) == (ExitCode.DIVERGED, ExitCode.LOSS_SPIKE)
    assert nothing.where == spiked.where == str(run.metrics)


def test_a_part_of_an_attempt_is_told_and_shown_while_it_goes_on(run):
    """With how much there is to do, where that is known."""
    attempt = real_runs.quiet(run)

    with attempt.during("loading"):
        assert attempt.progress.phase == "loading"
    with attempt.during("tokenising", 12):
        assert attempt.progress.phase == "tokenising"

    assert attempt.progress.phase == "starting"
    told = [(e["phase"], e["total"]) for e in real_runs.events(run, "phase")]
    assert told == [("loading", 0), ("tokenising", 12)]


def test_an_attempt_of_which_nobody_told_the_beginning_begins_now(run):
    """By the clock that nobody sets."""
    before = time.monotonic()

    quiet = real_runs.quiet(run)

    assert isinstance(quiet, Attempt)
    assert before <= quiet.began <= time.monotonic()
