"""Which step's weights are published: the best, the last, after a stop, a kill, an early stop."""

from __future__ import annotations

import json
import math

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from profiles.errors import ExitCode  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.records.metrics import Loss  # noqa: E402
from profiles.runs.result import result_of  # noqa: E402
from profiles.runs.state import State  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training import row_losses  # noqa: E402

SETTINGS = {"steps": 10, "save_every": 4, "eval_every": 2, "split": "8:2:0"}
BEST = 4


class KilledError(BaseException):
    """As abrupt as a signal: no handler of the run sees it."""


@pytest.fixture
def valley(monkeypatch):
    """Evaluations get worse with the distance from step 4, whatever was learnt."""
    losses = RunSft.row_losses

    def shifted(trainer, model, inputs):
        sums, counts, *_ = losses(trainer, model, inputs)
        return sums * (2 + abs(trainer.state.global_step - BEST)), counts

    monkeypatch.setattr(RunSft, "row_losses", shifted)


@pytest.fixture(scope="module")
def known():
    """Runs that nobody disturbed, by what their recipes say."""
    return {}


@pytest.fixture
def undisturbed(known, valley, tiny_model, orders):
    """More of a recipe -> a run with it, made by the first test that asks."""

    def of(more):
        if more not in known:
            known[more] = real_runs.new_run(tiny_model, orders, more=more, **SETTINGS)
            real_runs.attempt(known[more])
        return known[more]

    return of


@pytest.fixture
def at_step(monkeypatch):
    """Call something before the training of a step's first micro-batch."""
    step = RunSft.training_step

    def arrange(number, act):
        def until(trainer, *args, **kw):
            if trainer.state.global_step == number:
                act(trainer)
            return step(trainer, *args, **kw)

        monkeypatch.setattr(RunSft, "training_step", until)

    return arrange


def kill(_trainer):
    raise KilledError


def stop(trainer):
    trainer.attempt.stop.asked = True


def result(run):
    """What the run's events amount to."""
    return result_of(read_all(run.worker_events))


def published(run):
    """The step that is named, of the artefact and of the event."""
    (event,) = real_runs.events(run, "published")[-1:]
    manifest = json.loads((run.model / checkpoints.MANIFEST).read_text())
    assert manifest["step"] == event["step"] == result(run).published_step
    return event["step"]


def same(one, other):
    """Two artefacts have the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def of_checkpoint(run, step):
    """The weights of a checkpoint by the artefact's names."""
    (path,) = checkpoints.of_step(run, step).path.glob("adapter_model.safetensors")
    return load_file(path)


@pytest.mark.parametrize(("keep", "step"), [("best", BEST), ("last", 10)])
@pytest.mark.usefixtures("valley")
def test_the_weights_of_the_named_step_are_published(tiny_model, orders, keep, step):
    """To the last bit those of that step's checkpoint; the event says so, and the result."""
    run = real_runs.new_run(tiny_model, orders, more=f'keep = "{keep}"\n', **SETTINGS)

    assert real_runs.attempt(run) == ExitCode.FINISHED

    found = result(run)
    assert (published(run), found.best_step, found.last_step) == (step, BEST, 10)
    assert same(real_runs.weights(run), of_checkpoint(run, step))
    other = BEST if step != BEST else 10
    assert not same(real_runs.weights(run), of_checkpoint(run, other))


@pytest.mark.usefixtures("valley")
def test_full_weights_of_the_best_step_are_published(tiny_model, orders):
    """The model that is loaded back is the whole model."""
    flat = 'scheduler = "constant"\nwarmup = 0.0\n'  # so that a shorter run is the same run
    longer, shorter = (
        real_runs.new_run(
            tiny_model, orders, method="full", more=flat, **{**SETTINGS, "steps": steps}
        )
        for steps in (10, BEST)
    )
    for run in (longer, shorter):
        assert real_runs.attempt(run) == ExitCode.FINISHED

    assert published(longer) == BEST
    assert same(real_runs.weights(longer), real_runs.weights(shorter))


@pytest.mark.usefixtures("valley")
def test_a_run_without_gain_stops_early(tiny_model, orders):
    """After the recipe's number of evaluations, and publishes the best."""
    run = real_runs.new_run(tiny_model, orders, more="early_stopping = 2\n", **SETTINGS)

    assert real_runs.attempt(run) == ExitCode.FINISHED

    (event,) = real_runs.events(run, "early_stop")
    assert (event["step"], event["best_step"], event["evaluations"]) == (8, BEST, 2)
    assert real_runs.events(run, "end")[0]["state"] == State.FINISHED
    assert max(r["step"] for r in real_runs.steps(run)) == 8
    assert published(run) == BEST
    assert same(real_runs.weights(run), of_checkpoint(run, BEST))


@pytest.mark.usefixtures("valley")
def test_a_run_that_gets_better_is_not_stopped_early(tiny_model, orders):
    """Its best step is the fourth, and the rest is too short to wait."""
    run = real_runs.new_run(tiny_model, orders, more="early_stopping = 4\n", **SETTINGS)

    real_runs.attempt(run)

    assert real_runs.events(run, "early_stop") == []
    assert max(r["step"] for r in real_runs.steps(run)) == 10


EARLY = "early_stopping = 2\n"
QUICK = [(3, ""), (7, ""), (7, EARLY)]
KILLS = [
    pytest.param(number, more, marks=[pytest.mark.long] * ((number, more) not in QUICK))
    for number in (1, 3, 5, 7)
    for more in ("", EARLY)
]


@pytest.mark.parametrize(("number", "more"), KILLS)
def test_a_killed_run_names_and_publishes_the_same_step(
    tiny_model, orders, undisturbed, at_step, number, more
):
    """Wherever it was killed, before and after the best step."""
    whole = undisturbed(more)
    disturbed = real_runs.new_run(tiny_model, orders, more=more, **SETTINGS)

    at_step(number, kill)
    with pytest.raises(KilledError):
        real_runs.attempt(disturbed)
    at_step(-1, kill)
    assert real_runs.next_attempt(disturbed) == ExitCode.FINISHED

    assert published(disturbed) == published(whole) == BEST
    assert result(disturbed) == result(whole)
    assert same(real_runs.weights(disturbed), real_runs.weights(whole))


@pytest.mark.parametrize(("number", "more"), QUICK)
def test_a_stopped_run_names_the_same_step_when_it_is_over(
    tiny_model, orders, undisturbed, at_step, number, more
):
    """Asked in the step before an evaluation, which is left out then and made up for."""
    whole = undisturbed(more)
    disturbed = real_runs.new_run(tiny_model, orders, more=more, **SETTINGS)

    at_step(number, stop)
    assert real_runs.attempt(disturbed) == ExitCode.STOPPED
    assert real_runs.events(disturbed, "published") == []
    at_step(-1, stop)
    assert real_runs.next_attempt(disturbed) == ExitCode.FINISHED

    assert result(disturbed) == result(whole)
    assert same(real_runs.weights(disturbed), real_runs.weights(whole))
    ends = [real_runs.events(run, "published")[0]["last_step"] for run in (disturbed, whole)]
    assert ends[0] == ends[1], "an evaluation that is made up for ends it where the other ended"


@pytest.mark.usefixtures("valley")
def test_a_best_checkpoint_that_is_damaged_is_told_and_the_last_published(
    tiny_model, orders, at_step
):
    """Never weights that are not what was saved."""
    run = real_runs.new_run(tiny_model, orders, **SETTINGS)

    def damage(_trainer):
        (path,) = checkpoints.of_step(run, BEST).path.glob("adapter_model.safetensors")
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    at_step(9, damage)
    assert real_runs.attempt(run) == ExitCode.FINISHED

    (event,) = real_runs.events(run, "published")
    assert (event["step"], published(run)) == (10, 10)
    assert "step 4 was the best, but its checkpoint cannot be used" in event["what"]
    assert same(real_runs.weights(run), of_checkpoint(run, 10))


def test_an_evaluation_keeps_the_loss_of_every_row(tiny_model, orders):
    """Of the base model and of each step; the loss of the set is their mean over the tokens."""
    run = real_runs.new_run(tiny_model, orders, **SETTINGS)

    real_runs.attempt(run)

    told = real_runs.events(run, "evaluated")
    assert [e["step"] for e in told] == [0, 2, 4, 6, 8, 10]
    base = row_losses.read(run, 0, "")
    for event in told:
        rows = row_losses.read(run, event["step"], "")
        assert len(rows.losses) == event["rows"] > 5
        assert event["loss"] == pytest.approx(rows.mean, abs=1e-9)
        if event["step"]:
            found = row_losses.gain(base, rows)
            assert event["gain"] == [found.low, found.value, found.high]
            assert found.value == pytest.approx(base.mean - rows.mean, abs=1e-6)


@pytest.mark.parametrize("loss", ["chunked", "full"])
def test_the_loss_of_a_row_is_that_of_the_model_alone(tiny_model, orders, loss, monkeypatch):
    """Each row by itself, without padding, by the model's own cross-entropy."""
    run = real_runs.new_run(tiny_model, orders, more=f'loss = "{loss}"\n', **SETTINGS)
    trainers = []
    evaluate = RunSft.evaluate

    def seen(trainer, *args, **kw):
        if not trainers:
            trainers.append(alone(trainer))
        return evaluate(trainer, *args, **kw)

    def alone(trainer):
        model = trainer.model.eval()
        found = []
        for row in trainer.eval_dataset:
            ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
            with torch.no_grad():
                found.append(model(input_ids=ids, labels=labels).loss.item())
        return found

    monkeypatch.setattr(RunSft, "evaluate", seen)
    real_runs.attempt(run)

    assert row_losses.read(run, 0, "").losses == pytest.approx(trainers[0], abs=1e-4)


def test_named_sets_are_evaluated_apart_and_the_first_decides(tiny_model, orders, tmp_path):
    """Each with its rows and its own comparison."""
    lines = orders.read_text().splitlines() if orders.suffix == ".jsonl" else None
    rows = json.loads(orders.read_text()) if lines is None else [json.loads(one) for one in lines]
    files = {}
    for name, part in (("domain", rows[:6]), ("general", rows[6:15])):
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(part))
    named = "".join(f'{name} = "{path}"\n' for name, path in files.items())
    run = real_runs.new_run(tiny_model, orders, **{**SETTINGS, "split": "1:0:0"})
    text = run.recipe.read_text().replace("[method]", f"[data.eval]\n{named}[method]")
    run.recipe.write_text(text)

    real_runs.attempt(run)

    told = real_runs.events(run, "evaluated")
    assert [(e["step"], e["data"], e["rows"]) for e in told[:4]] == [
        *((0, "domain", 6), (0, "general", 9), (2, "domain", 6), (2, "general", 9)),
    ]
    found = result(run)
    assert (found.data, found.rows, found.last_step) == ("domain", 6, 10)
    assert min((e["loss"], e["step"]) for e in told if e["data"] == "domain" and e["step"])[1] == (
        found.best_step
    )
    assert not any(isinstance(r, Loss) and math.isnan(r.loss or 0) for r in read_all(run.metrics))
