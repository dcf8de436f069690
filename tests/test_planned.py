"""What was predicted of a run: kept at its start, and read by those who watch."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from advisor import recipe as recipes
from profiles.runs.journal import Journal
from profiles.runs.planned import NOTHING_PLANNED, Planned, planned
from profiles.runs.records.supervisor import SupervisorStarted
from profiles.runs.records.worker import TrainBegun
from profiles.runs.state import State
from runner.checks import preflight
from runner.supervision import launch
from tests.canned_run import canned_run
from tui.feed import Reader
from tui.live import LiveRun

WHOLE = Planned(tokens_per_second=700.0, until_first_step=60.0, seconds=3600.0)
KEPT = {"planned": asdict(WHOLE)}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keep the runs of each test to itself."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path))
    return tmp_path


def started(monkeypatch, **options):
    """A run whose supervisor has only just shown itself."""

    def begin(run, attempt):
        Journal(run.supervisor_events, attempt=attempt).append(SupervisorStarted(pid=1))

    monkeypatch.setattr(launch, "_start_supervisor", begin)
    return launch.start(b"", name="a run", base_dir=launch.Path("/"), devices=(), **options)


def test_the_prediction_is_kept_with_the_run(monkeypatch):
    """And nothing where nobody knew anything."""
    assert planned(started(monkeypatch, kept=KEPT)) == WHOLE
    assert planned(started(monkeypatch)) == NOTHING_PLANNED


def test_a_run_of_an_older_version_has_its_recipe_s():
    """Its speed alone."""
    run = canned_run()
    run.recipe.write_text("[plan]\ntokens_per_second = 12.5\nhours = 3\n")

    assert planned(run) == Planned(tokens_per_second=12.5)


@pytest.mark.parametrize("text", ["plan = 3", "[plan]\n", "[plan", '[plan]\ntokens_per_second="x"'])
def test_a_recipe_without_a_sound_prediction_has_none(text):
    """Readers trust nothing that they read."""
    run = canned_run()
    run.recipe.write_text(text)

    assert planned(run) == NOTHING_PLANNED


@pytest.mark.parametrize("bad", ["60", True, 0, -5, None, float("inf"), [60.0]])
def test_values_that_are_no_amount_are_left_out(bad):
    """The others count."""
    run = canned_run()
    known = {"planned": {"tokens_per_second": 700, "until_first_step": bad}}
    run.manifest.write_text(json.dumps(json.loads(run.manifest.read_text()) | known))

    assert planned(run) == Planned(tokens_per_second=700.0)


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        (20.0, "STARTING  first step in about 40 s"),
        (90.0, "STARTING  first step expected 30 s ago"),
    ],
)
def test_a_start_says_when_its_first_step_was_predicted(monkeypatch, ago, expected):
    """Or how long that is past."""
    run = started(monkeypatch, kept=KEPT)
    live = watched(run, monkeypatch, ago)
    assert live.headline(80).endswith(expected)


@pytest.fixture
def checked(tiny_model, orders):
    """What a recipe's check before the start predicts, and which rows it is told to use."""
    pytest.importorskip("torch")
    text = (
        f'schema = 1\nname = "tiny"\n[model]\nid = "{tiny_model}"\n[method]\nname = "lora"\n'
        f'[data]\ntrain = "{orders.name}"\n'
    )

    def check(more):
        recipe = recipes.parse(text + more, where="r")
        return preflight.check(recipe, orders.parent, share=True)

    return check


def test_the_check_before_a_run_predicts_what_its_recipe_asks_for(checked, orders):
    """Its own rows, steps, intervals and samples."""
    usual = checked("[train]\nprecision = 'fp32'\nmax_steps = 10\n")
    twice = checked(
        "[train]\nprecision = 'fp32'\nmax_steps = 20\neval_every = 1\nsave_every = 1\nsamples = 1\n"
    )
    apart = checked(f"eval = '{orders.name}'\n[train]\nprecision = 'fp32'\nmax_steps = 10\n")
    start, other = dict(usual.duration.start), dict(apart.duration.start)

    assert twice.duration.training == pytest.approx(2 * usual.duration.training)
    assert twice.duration.evaluating == pytest.approx(4 * usual.duration.evaluating)
    assert twice.duration.saving > 2 * usual.duration.saving
    assert dict(twice.duration.start)["answering"] == pytest.approx(start["answering"] / 3)
    assert other["evaluating"] == pytest.approx(10 * start["evaluating"], rel=0.05)
    assert Planned(**usual.for_launch["kept"]["planned"]) == Planned(
        tokens_per_second=usual.fit.rates[1],
        until_first_step=usual.duration.until_first_step,
        seconds=usual.duration.seconds,
    )


def watched(run, monkeypatch, ago):
    """The live screen so many seconds after the start."""
    created = json.loads(run.manifest.read_text())["created"]
    monkeypatch.setattr("tui.live.time.time", lambda: created + ago)
    monkeypatch.setattr("profiles.runs.processes.supervisor_is_alive", lambda _run: True)
    live = LiveRun(run)
    batch = Reader(run).poll()
    now = replace(batch.status, state=State.STARTING)
    live.apply(replace(batch, status=now))
    return live


def test_only_a_first_start_is_predicted(monkeypatch):
    """The next one need not evaluate the base model."""
    run = started(monkeypatch, kept=KEPT)
    assert run.claim(2)
    Journal(run.supervisor_events, attempt=2).append(SupervisorStarted(pid=1))

    assert "first step" not in watched(run, monkeypatch, 20.0).headline(80)


def test_the_planned_speed_is_the_one_at_the_start(monkeypatch):
    """Not that of a recipe made for another machine."""
    run = started(monkeypatch, kept=KEPT)
    run.recipe.write_text("[plan]\ntokens_per_second = 12.5\n")
    Journal(run.worker_events, attempt=1).append(TrainBegun(step=0, num_steps=10, seconds=1.0))

    assert LiveRun(run).planned_tokens_per_second == 700.0
