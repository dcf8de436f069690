"""Runs whose truth is known, through every place that tells of it."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

import pytest
from known import RECIPE, model

from advisor import findings, recipe
from advisor.rules import quality
from advisor.rules.quality.training import Training
from profiles.run_facts import NOT_EVALUATED, Curves, Result, Verdict
from profiles.runs import run as runs
from profiles.runs import rundir
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import EarlyStop, Evaluated, Published, Scored
from profiles.runs.records.metrics import Loss
from profiles.runs.records.worker import End, TrainBegun, WorkerStarted
from profiles.runs.result import result_of
from profiles.runs.state import status
from tests.canned_run import canned_run, step
from tui import report as report_page
from tui.main import run as advisor
from tui.pages import result as words
from tui.screens import home as home_screen
from tui.terminal import Symbols

NUM_STEPS = 600


def falling(step):
    """A training loss that falls evenly."""
    return 3.0 - step / 400


def swinging(step):
    """One that swings by a third in periods of 80 steps."""
    return 3.0 + math.sin(step / 80 * 2 * math.pi)


class Case(NamedTuple):
    """A run and what is true of it."""

    evaluations: tuple[Any, ...]
    """(step, loss), or (step, loss, gain), or an Evaluated."""
    verdict: Verdict
    short: str
    told: tuple[str, ...]
    """Parts of the sentence."""
    ids: tuple[str, ...] = ()
    """Of the findings on quality."""
    base: float | None = 3.0
    published: int | None = None
    training: Any = falling
    end: str | None = "finished"
    more: tuple[Any, ...] = ()
    """Further events."""


def on(name, step, loss, gain=None):
    """An evaluation of a set with a name."""
    return Evaluated(step=step, loss=loss, seconds=0.1, data=name, rows=50, gain=gain)


CLEAR, LOST, NONE = (0.4, 0.5, 0.6), (-6.0, -5.0, -4.0), (-0.02, 0.01, 0.04)
CASES = {
    "better": Case(
        ((300, 2.7, CLEAR), (600, 2.5, CLEAR)), Verdict.BETTER, "better 3.00 -> 2.50",
        ("better than the base model: evaluation loss 3.0000 -> 2.5000 at step 600",
         "lower by 0.5000, 95 %: 0.4000 to 0.6000, on 100 rows",
         "published: step 600, the best and the last"),
        ("Q04",), published=600),
    "better and done": Case(
        ((300, 2.505, CLEAR), (600, 2.5, CLEAR)), Verdict.BETTER, "better 3.00 -> 2.50",
        ("at step 600",), published=600),
    "ruined": Case(
        ((300, 8.1, LOST), (600, 8.0, LOST)), Verdict.WORSE, "WORSE 3.00 -> 8.00",
        ("WORSE than the base model", "higher by 5.0000, 95 %: 4.0000 to 6.0000"),
        ("Q01",), published=600),
    "no difference": Case(
        ((300, 2.99, NONE), (600, 2.99, NONE)), Verdict.SAME, "same 3.00 -> 2.99",
        ("no clear difference", "lower by 0.0100, 95 %: -0.0200 to 0.0400"),
        ("Q01",), published=300),
    "equal": Case(
        ((600, 3.0, (0.0, 0.0, 0.0)),), Verdict.SAME, "same 3.00 -> 3.00",
        ("no clear difference",), ("Q01",), published=600),
    "a little worse": Case(
        ((600, 3.01, (-0.02, -0.01, -0.004)),), Verdict.WORSE, "WORSE 3.00 -> 3.01",
        ("higher by 0.0100, 95 %: 0.0040 to 0.0200",), ("Q01",), published=600),
    "over-fitted, the best is kept": Case(
        ((200, 2.4, CLEAR), (400, 2.6, CLEAR), (600, 2.9, CLEAR)), Verdict.BETTER,
        "better 3.00 -> 2.40", ("published: step 200, the best; the last, 600, had 2.9000",),
        ("Q03",), published=200),
    "over-fitted, the last is kept": Case(
        ((200, 2.4, CLEAR), (400, 2.6, CLEAR), (600, 2.9, CLEAR)), Verdict.BETTER,
        "better 3.00 -> 2.90", ("published: step 600, the last; the best, 200, had 2.4000",),
        ("Q03",), published=600),
    "worse in the end, with the training loss": Case(
        ((200, 2.4, CLEAR), (600, 2.9, CLEAR)), Verdict.BETTER, "better 3.00 -> 2.40",
        ("published: step 200",), published=200, training=lambda n: 2.0 + n / 400),
    "a last step that is hardly worse": Case(
        ((200, 2.4, CLEAR), (600, 2.41, CLEAR)), Verdict.BETTER, "better 3.00 -> 2.40",
        ("published: step 200",), published=200),
    "oscillating": Case(
        ((600, 2.5, CLEAR),), Verdict.BETTER, "better 3.00 -> 2.50", (), ("Q05",),
        published=600, training=swinging),
    "noisy batches, which is no oscillation": Case(
        ((600, 2.5, CLEAR),), Verdict.BETTER, "better 3.00 -> 2.50", (),
        published=600, training=lambda n: 3.0 + (n * 7919 % 1000) / 700),
    "never evaluated": Case(
        (), Verdict.NOT_EVALUATED, "not evaluated", ("not evaluated after training",), base=None),
    "the base alone was evaluated": Case(
        (), Verdict.NOT_EVALUATED, "not evaluated", ("not evaluated after training",)),
    "the base was not evaluated": Case(
        ((600, 2.5),), Verdict.NOT_COMPARED, "- 2.50",
        ("not compared with the base model", "2.5000 at step 600"), base=None),
    "of other rows than the base": Case(
        (Evaluated(step=600, loss=2.5, seconds=0.1, rows=90),), Verdict.NOT_COMPARED,
        "- 3.00 -> 2.50", ("not compared with the base model on the same rows",)),
    "one row": Case(
        (Evaluated(step=600, loss=2.5, seconds=0.1, rows=1),), Verdict.NOT_COMPARED,
        "- 3.00 -> 2.50", ("on 1 row",)),
    "not finite": Case(
        ((600, math.nan),), Verdict.NOT_FINITE, "not finite", ("is not finite",)),
    "not finite in the end": Case(
        ((300, 2.5, CLEAR), (600, math.nan)), Verdict.BETTER, "better 3.00 -> 2.50",
        ("the last, 600, was not finite",), published=300),
    "diverged": Case(
        ((300, 2.5, CLEAR),), Verdict.BETTER, "better 3.00 -> 2.50", ("at step 300",),
        end="failed"),
    "stopped": Case(
        ((200, 2.4, CLEAR), (400, 2.5, CLEAR)), Verdict.BETTER, "better 3.00 -> 2.40",
        ("the best so far; step 400: 2.5000",), ("Q03",), end="stopped"),
    "stopped early": Case(
        ((200, 2.4, CLEAR), (300, 2.5, CLEAR), (400, 2.5, CLEAR)), Verdict.BETTER,
        "better 3.00 -> 2.40", ("published: step 200, the best; the last, 400",), ("Q03",),
        published=200, more=(EarlyStop(step=400, best_step=200, evaluations=2),)),
    "going on": Case(
        ((200, 2.4, CLEAR),), Verdict.BETTER, "better 3.00 -> 2.40", ("at step 200",), end=None),
    "going on, no better yet": Case(
        ((200, 2.99, NONE),), Verdict.SAME, "same 3.00 -> 2.99", (), end=None),
    "of before rows were counted": Case(
        (Evaluated(step=600, loss=2.5, seconds=0.1),), Verdict.BETTER, "better 3.00 -> 2.50",
        ("3.0000 -> 2.5000 at step 600",)),
    "worse, of before rows were counted": Case(
        (Evaluated(step=600, loss=3.5, seconds=0.1),), Verdict.WORSE, "WORSE 3.00 -> 3.50",
        ("WORSE",), ("Q01",)),
    "resumed: a step evaluated twice": Case(
        ((300, 9.0, LOST), (300, 2.5, CLEAR), (600, 2.5, CLEAR)), Verdict.BETTER,
        "better 3.00 -> 2.50", ("published: step 300, the best; the last, 600, had 2.5000",),
        published=300),
    "forgetting": Case(
        ((600, 2.5, CLEAR), on("general", 0, 2.0), on("general", 600, 2.9, (-1.0, -0.9, -0.8))),
        Verdict.BETTER, "better 3.00 -> 2.50 forgot",
        ("WORSE on general: 2.0000 -> 2.9000 (higher by 0.9000, 95 %: 0.8000 to 1.0000)",),
        ("Q02",), published=600),
    "nothing forgotten": Case(
        ((600, 2.5, CLEAR), on("general", 0, 2.0), on("general", 600, 2.01, (-0.05, -0.01, 0.03))),
        Verdict.BETTER, "better 3.00 -> 2.50", (), published=600),
}  # fmt: skip


def made(case):
    """The run directory of a case."""
    run = canned_run(done=0, num_steps=NUM_STEPS)
    run.worker_events.unlink()
    events, metrics = Journal(run.worker_events, attempt=1), Journal(run.metrics, attempt=1)
    events.append(WorkerStarted(pid=1))
    if case.base is not None:
        events.append(Evaluated(step=0, loss=case.base, seconds=0.1, rows=100))
    events.append(TrainBegun(step=0, num_steps=NUM_STEPS))
    last = 0
    for one in case.evaluations:
        event = one
        if isinstance(one, tuple):
            number, loss, *gain = one
            rows = {"rows": 100, "gain": gain[0]} if gain else {}
            event = Evaluated(step=number, loss=loss, seconds=0.1, **rows)
        events.append(event)
        last = max(last, event.step)
    for number in range(1, (last or NUM_STEPS) + 1):
        metrics.append(step(number), sync=False)
        metrics.append(Loss(step=number, loss=case.training(number)), sync=False)
    for event in case.more:
        events.append(event)
    if case.published is not None:
        events.append(Published(step=case.published, last_step=last))
    if case.end is not None:
        events.append(End(state=case.end, step=last))
        content = {"attempt": 1, "state": case.end, "code": 0, "last_step": last, "what": "x"}
        run.exit.write_text(json.dumps(content))
    return run


def reported(run):
    """The report of a run on an 8B model."""
    facts, num_damaged = runs.from_run_dir(run)
    assert num_damaged == 0
    return findings.report(facts, recipe.parse(RECIPE, where="r"), model())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_run_is_told_as_it_is(case, capsys):
    """In the list, for scripts, in the report and on the first screen."""
    run = made(case)

    assert advisor(["runs"]) == 0
    assert case.short in capsys.readouterr().out
    assert advisor(["watch", run.id, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["result"]
    assert (told["verdict"], told["published_step"]) == (case.verdict, case.published)
    assert case.short in home_screen.row(run, status(run))
    found = reported(run)
    first = report_page.lines(found, 1000, Symbols.ASCII)[0]
    assert first == f"model: {words.sentence(found.run.result)}"
    assert [part for part in case.told if part not in first] == []
    assert tuple(one.id for one in found.quality) == case.ids


def test_the_table_has_every_verdict_and_every_rule():
    """So that none is untried."""
    assert {case.verdict for case in CASES.values()} == set(Verdict)
    assert {one for case in CASES.values() for one in case.ids} == {
        "Q01",
        "Q02",
        "Q03",
        "Q04",
        "Q05",
    }
    assert len(CASES) >= 25


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("ruined", {"train.learning_rate": (2e-4, 1e-4)}),
        ("over-fitted, the best is kept", {"train.early_stopping": (None, 3)}),
        ("better", {"train.epochs": (1.0, 2.0)}),
        ("oscillating", {"train.learning_rate": (2e-4, 1e-4)}),
    ],
)
def test_a_symptom_comes_with_the_documents_remedy(case, changes):
    """As a change of the recipe, which the recipe takes."""
    found = reported(made(CASES[case]))
    change = found.quality[0].change

    assert change == changes
    recipe.validate(
        findings.patched(recipe.parse(RECIPE, where="r"), [found.quality[0]]), where="r"
    )


@pytest.mark.parametrize("log_every", [1, 10])
def test_oscillation_is_told_in_steps_however_few_of_them_are_logged(log_every):
    """A long run's losses are means of several steps, too."""
    asked = recipe.parse(RECIPE, where="r")
    curve = tuple(
        (n, swinging(n / log_every)) for n in range(log_every, 640 * log_every, log_every)
    )
    (found,) = quality.findings(
        Training(curves=Curves(training=curve), result=NOT_EVALUATED, recipe=asked)
    )

    assert f"from one {36 * log_every} steps to the next" in found.sentence


def test_a_run_that_has_just_begun_is_not_evaluated():
    """It says nothing yet."""
    run = rundir.create("fresh")

    assert status(run).result.verdict is Verdict.NOT_EVALUATED


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({"best_step": 4, "last_step": 4}, ""),
        ({"last_step": 9}, ""),
        ({"best_step": 4, "last_step": 9}, "the best so far; step 9: 3.0000"),
        ({"best_step": 4, "last_step": 9, "published_step": 4}, "step 4, the best; the last, 9,"),
        ({"best_step": 4, "last_step": 9, "published_step": 9}, "step 9, the last; the best, 4,"),
        ({"best_step": 9, "last_step": 9, "published_step": 9}, "step 9, the best and the last"),
        ({"best_step": 4, "last_step": 9, "published_step": 6}, "published: step 6"),
        ({"best_step": 4, "last_step": 4, "published_step": 6}, "published: step 6"),
        ({"best_step": 4, "last_step": 9, "last_loss": None}, "best so far; step 9: not finite"),
        (
            {"best_step": 4, "last_step": 9, "published_step": 4, "last_loss": None},
            "the best; the last, 9, was not finite",
        ),
    ],
)
def test_whose_weights_a_result_is_about(steps, expected):
    """Those that were published, and what the others had."""
    losses = {"best_loss": 2.0, "last_loss": 3.0}
    found = Result(verdict=Verdict.BETTER, step=4, loss=2.0, **(losses | steps))

    rest = words.sentence(found).partition("at step 4")[2]

    assert (rest == "") == (expected == "")
    assert rest.endswith(expected) or expected in rest
    assert rest == "" or rest.startswith("; ")


def scored(step, *scores, loss=1.0):
    """An evaluation with scores: (name, value, before, ends of the gain)."""
    told = tuple(
        Scored(name=name, value=value, before=before, gain=gain, against=against)
        for name, value, before, gain, against in scores
    )
    return Evaluated(step=step, loss=loss, seconds=1.0, rows=30, gain=(-1, -1, -1), scores=told)


BASE = ("margin", -0.5, None, None, "the base model")


@pytest.mark.parametrize(
    ("gain", "verdict", "told"),
    [
        ((0.1, 0.2, 0.3), Verdict.BETTER, "better than the base model: margin -0.5000 -> -0.3000"),
        ((-0.3, -0.2, -0.1), Verdict.WORSE, "WORSE than the base model: margin"),
        ((-0.1, 0.2, 0.5), Verdict.SAME, "no clear difference to the base model: margin"),
        (None, Verdict.NOT_COMPARED, "not compared with the base model on the same rows: margin"),
    ],
)
def test_the_first_score_of_a_task_decides(gain, verdict, told):
    """Whatever the loss says; the others are told beside it."""
    now = ("margin", -0.3, -0.5, gain, "the base model")
    more = ("accuracy", 0.7, 0.4, (-0.5, 0.3, 0.5), "the base model")

    found = result_of([scored(0, BASE), scored(9, now, more)])

    assert found.verdict is verdict
    assert told in words.sentence(found)
    assert "accuracy 0.4000 -> 0.7000 (higher by 0.3000, 95 %: -0.5000 to 0.5000)" in (
        words.sentence(found)
    )
    if gain:
        assert "margin -0.50 -> -0.30" in words.short(found)


def test_a_score_that_no_model_has_before_is_compared_with_chance():
    """And said to be."""
    now = ("accuracy", 0.8, 0.5, (0.1, 0.3, 0.5), "chance")

    found = result_of([scored(0, ("accuracy", 0.4, None, None, "chance")), scored(9, now)])

    assert words.sentence(found).startswith("better than chance: accuracy 0.5000 -> 0.8000")
