"""Schedules: the rate of each step, the warm-up, and a run that goes on where it stopped."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
import real_runs  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.registry.lookup import SCHEDULES  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from runner.training.plateau import share_of  # noqa: E402
from runner.training.protocol import ProtocolCallback  # noqa: E402
from runner.training.selection import Selection  # noqa: E402

STEPS, WARM = 14, 2
AFTER = STEPS - WARM


def restarting(n):
    """Three half cosines."""
    done = n / AFTER
    return (1 + math.cos(math.pi * ((3 * done) % 1))) / 2


SHARES = {
    "cosine": lambda n: (1 + math.cos(math.pi * n / AFTER)) / 2,
    "linear": lambda n: 1 - n / AFTER,
    "constant": lambda _: 1.0,
    "cosine_restarts": restarting,
    "polynomial": lambda n: (1 - n / AFTER) ** 2,
    "inverse_sqrt": lambda n: 1 / math.sqrt((n + WARM) / WARM),
}
"""Steps after the warm-up -> share of the rate; the plateau depends on the evaluations."""


def new_run(model, data, scheduler, warmup=WARM, **settings):
    """A quick run of a low-rank adapter with this schedule."""
    given = {"steps": STEPS, "accumulation": 1, "save_every": 100, "adapter": "rank = 4"}
    return real_runs.new_run(
        model,
        data,
        more=f'scheduler = "{scheduler}"\nwarmup = {warmup}\nsamples = 0\n',
        **(given | settings),
    )


def rates(run):
    """The learning rate of each step, in shares of the recipe's."""
    logged = [r for r in real_runs.read_all(run.metrics) if r["kind"] == "loss"]
    return [r["learning_rate"] / 5e-3 for r in logged]


def stop_at(monkeypatch, step):
    """A stop is asked for after this step, once."""
    end = ProtocolCallback.on_step_end

    def ending(callback, args, state, flow, **more):
        end(callback, args, state, flow, **more)
        if state.global_step == step:
            monkeypatch.setattr(ProtocolCallback, "on_step_end", end)
            flow.should_training_stop = flow.should_save = True

    monkeypatch.setattr(ProtocolCallback, "on_step_end", ending)


def test_every_schedule_is_in_the_table():
    """Or follows the evaluations."""
    assert set(SHARES) == {one.name for one in SCHEDULES if not one.needs_evaluation}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_a_schedule_gives_each_step_its_rate_through_a_stop(
    name, tiny_model, orders, tmp_path, monkeypatch
):
    """Up in a line for two steps, then as its formula says, in a run that stopped after five."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    run = new_run(tiny_model, orders, name)
    stop_at(monkeypatch, 5)

    assert real_runs.attempt(run) == ExitCode.STOPPED
    assert real_runs.next_attempt(run) == ExitCode.FINISHED

    expected = [0.0, 0.5] + [SHARES[name](n) for n in range(AFTER)]
    assert rates(run) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("losses", "halved_at"),
    [
        ([5, 4, 3, 2, 1], []),
        ([5, 5, 5, 5, 5], [7, 11]),
        ([5, 6, 4, 4.5, 4.1], [11]),
        ([float("inf"), 5, 6, 7, 4], [9]),
    ],
)
def test_the_rate_is_halved_after_two_evaluations_without_a_lower_loss(losses, halved_at):
    """From the step on that comes after the second, whether evaluations come later or not."""
    selection = Selection()
    share = share_of(selection, rising=2)
    as_it_went = []
    for step in range(13):
        as_it_went.append(share(step))  # set before this step is evaluated
        if step and step % 2 == 0 and step // 2 <= len(losses):
            selection.add(step, losses[step // 2 - 1])

    expected = [min(1, n / 2) * 0.5 ** sum(n >= at for at in halved_at) for n in range(13)]
    assert as_it_went == expected
    assert [share(step) for step in range(13)] == expected  # as a resumed run asks


@pytest.mark.slow
def test_a_plateau_of_a_run_outlives_a_stop(tiny_model, orders, tmp_path, monkeypatch):
    """Rates and weights are those of a run that nobody disturbed."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    settings = {"split": "3:1:0", "eval_every": 1, "save_every": 100}
    whole, stopped = (
        new_run(tiny_model, orders, "plateau", warmup=0, **settings) for _ in range(2)
    )
    for run in (whole, stopped):  # at such a rate the loss soon rises
        run.recipe.write_text(run.recipe.read_text().replace("= 5e-3", "= 0.2"))
    assert real_runs.attempt(whole) == ExitCode.FINISHED
    halved = [late < early for early, late in pairwise(rates(whole))]
    stop_at(monkeypatch, halved.index(True) + 1)

    assert real_runs.attempt(stopped) == ExitCode.STOPPED
    assert real_runs.next_attempt(stopped) == ExitCode.FINISHED

    assert rates(stopped) == rates(whole)
    ours, theirs = real_runs.weights(stopped), real_runs.weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


RECIPE = """schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
split = "9:0:1"
[method]
name = "full"
[train]
max_steps = 50
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('scheduler = "plateau"', "plateau follows the evaluations, and there are none"),
        ('optimizer = "schedule_free"', 'write train.scheduler = "constant"'),
        ("warmup = 50", "the run ends after 50 steps, before the warm-up does"),
        ("warmup = 1.5", "a share below 1 or a whole number of steps"),
        ('scheduler = "cosin"', "did you mean `cosine`?"),
    ],
)
def test_a_schedule_that_cannot_be_kept_is_refused_before_the_start(lines, words):
    """With what to write instead."""
    with pytest.raises(UserError) as caught:
        recipes.parse(RECIPE + lines, where="r")

    assert words in caught.value.why


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("", 'optimizer = "schedule_free"\nscheduler = "constant"'),
        ("", "warmup = 49"),
        ("", "warmup = 1"),
        ('eval = "e.jsonl"', 'scheduler = "plateau"'),
    ],
)
def test_what_can_be_kept_is_taken(data, lines):
    """The refusals refuse no more than they say."""
    assert recipes.parse(RECIPE.replace("[method]", f"{data}\n[method]") + lines, where="r")


@pytest.mark.slow
def test_a_share_and_a_number_of_steps_are_told_apart(tiny_model, orders, tmp_path, monkeypatch):
    """A warm-up of 1 is one step, of 0.5 half of them."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    found = {}
    for warmup in (1, 0.5):
        run = new_run(tiny_model, orders, "constant", warmup=warmup, steps=4)
        real_runs.attempt(run)
        found[warmup] = rates(run)

    assert found == {1: [0, 1, 1, 1], 0.5: [0, 0.5, 1, 1]}
