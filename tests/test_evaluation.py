"""Evaluations: what is kept of every row, told, judged; in pieces, and left for a stop."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from small_trainer import (  # noqa: E402
    ROWS,
    RowList,
    SmallTrainer,
    new_attempt,
    padded,
    row,
    small_trainer,
)

from runner import checkpoints  # noqa: E402
from runner.training import evaluation, row_losses  # noqa: E402
from runner.training.batches import Counts  # noqa: E402
from runner.training.stopping import StopEarly  # noqa: E402
from runner.training.trainer import RunProtocol  # noqa: E402

SETS = {"domain": RowList(ROWS[:3]), "general": RowList(ROWS[3:])}


class Valley(SmallTrainer):
    """Losses grow with the distance from a step, whatever was learnt."""

    best = 2
    factor = 1.0

    def row_losses(self, model, inputs):
        sums, counts = super().row_losses(model, inputs)
        return sums * (1 + abs(self.state.global_step - self.best)) * self.factor, counts


@pytest.fixture
def trainer():
    """One that evaluates eight rows and has not trained."""
    return small_trainer(evaluated=ROWS, kind=Valley)


def told(trainer, kind="evaluated"):
    return real_runs.events(trainer.attempt.run, kind)


def alone(trainer, rows):
    """The loss of each row by itself, and its number of tokens."""
    found = [SmallTrainer.row_losses(trainer, trainer.model, padded([one])) for one in rows]
    return [float(sums / counts.clamp(min=1)) for sums, counts in found], [
        int(counts) for _, counts in found
    ]


def test_the_loss_of_every_row_is_kept_in_the_order_of_the_set():
    """As if each had been alone; the loss of the set is their mean over the tokens."""
    trainer = small_trainer(evaluated=ROWS)

    found = trainer.evaluate()

    rows = row_losses.read(trainer.attempt.run, 0, "")
    losses, tokens = alone(trainer, ROWS)
    assert (rows.losses, rows.tokens) == (pytest.approx(losses, abs=1e-6), tokens)
    assert found["eval_loss"] == rows.mean
    assert trainer.base_rows[""] == rows


@pytest.mark.parametrize("learnt", [0, 1, 2])
def test_rows_with_hardly_a_token_that_counts_have_their_loss(learnt):
    """One without any has none, and nothing is divided by 0."""
    rows = RowList([row(4, learnt=learnt), row(5, learnt=0)])
    trainer = small_trainer(evaluated=rows)
    batch = padded(rows)

    trainer.evaluate()
    loss, *rest = trainer.prediction_step(trainer.model, batch)

    losses, tokens = alone(trainer, rows)
    assert tokens == [learnt, 0]
    assert float(loss) == pytest.approx(losses[0], abs=1e-6)
    assert rest == [None, None]
    found = row_losses.read(trainer.attempt.run, 0, "")
    assert (found.losses, found.tokens) == (pytest.approx(losses, abs=1e-6), tokens)


def test_the_loss_of_a_batch_is_the_mean_over_its_tokens():
    """Divided or not."""
    trainer = small_trainer(evaluated=ROWS)
    trainer.batch_rows = []
    losses, tokens = alone(trainer, ROWS[:4])

    whole, *_ = trainer.prediction_step(trainer.model, padded(ROWS[:4]))
    trainer.division.pieces["eval"] = 4
    pieces, *_ = trainer.prediction_step(trainer.model, padded(ROWS[:4]))

    wanted = sum(a * b for a, b in zip(losses, tokens, strict=True)) / sum(tokens)
    assert float(whole) == pytest.approx(wanted, abs=1e-6)
    assert float(pieces) == pytest.approx(wanted, abs=1e-6)


def test_a_task_says_what_the_losses_of_its_rows_are():
    """There is no default that could be wrong."""
    with pytest.raises(NotImplementedError):
        RunProtocol.row_losses(SimpleNamespace(), None, None)


class Short(SmallTrainer):
    """Evaluates two rows at a time at most."""

    def row_losses(self, model, inputs):
        if inputs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().row_losses(model, inputs)


def test_an_evaluation_that_does_not_fit_is_made_in_pieces():
    """The same losses; training is not divided."""
    whole, short = (
        small_trainer(evaluated=ROWS, micro_batch=8, kind=kind) for kind in (SmallTrainer, Short)
    )

    assert short.evaluate()["eval_loss"] == pytest.approx(whole.evaluate()["eval_loss"], abs=1e-6)

    assert [(e["during"], e["pieces"]) for e in told(short, "oom")] == [("eval", 2), ("eval", 4)]
    assert short.division.pieces == {"train": 1, "eval": 4}


def test_any_other_error_of_an_evaluation_goes_up(trainer, monkeypatch):
    """It would come again."""
    monkeypatch.setattr(Valley, "row_losses", lambda *_: {}["missing"])

    with pytest.raises(KeyError):
        trainer.evaluate()


def test_an_evaluation_is_told_with_its_rows_and_the_time_it_took(trainer, monkeypatch):
    """Of the base model, so without a gain."""
    clock = iter([100.0, 102.345678])
    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    found = trainer.evaluate()

    (event,) = told(trainer)
    assert (event["step"], event["rows"], event["seconds"]) == (0, 8, 2.3457)
    assert event["loss"] == found["eval_loss"]
    assert not {"data", "gain"} & {key for key, value in event.items() if value is not None}
    assert trainer.selection.losses == {}


def test_the_gain_over_the_base_model_is_told(trainer):
    """With its interval; the loss counts for what is best."""
    trainer.evaluate()
    trainer.state.global_step = 1
    trainer.evaluate()

    base, now = told(trainer)
    low, value, high = now["gain"]
    assert value == pytest.approx(base["loss"] - now["loss"], abs=1e-5)
    assert low < value < high
    assert trainer.selection.losses == {1: now["loss"]}


def test_a_resumed_attempt_compares_with_the_base_model_of_the_first(trainer):
    """Which is not evaluated again."""
    trainer.evaluate()
    again = small_trainer(evaluated=ROWS, kind=Valley, attempt=new_attempt(trainer.attempt.run, 2))
    again.state.global_step = 1

    again.evaluate()

    base, now = told(again)
    assert now["gain"][1] == pytest.approx(base["loss"] - now["loss"], abs=1e-5)


def test_without_an_evaluation_of_the_base_model_there_is_no_gain(trainer):
    """Nothing to compare with."""
    trainer.state.global_step = 1

    trainer.evaluate()

    assert told(trainer)[0].get("gain") is None


def test_named_sets_are_evaluated_in_turn_and_the_first_decides():
    """All their losses come back, by their names."""
    trainer = small_trainer(evaluated=SETS)
    trainer.state.global_step = 3

    found = trainer.evaluate()

    events = told(trainer)
    assert [(e["data"], e["rows"]) for e in events] == [("domain", 3), ("general", 5)]
    assert found["eval_domain_loss"] == events[0]["loss"] != events[1]["loss"]
    assert found["eval_general_loss"] == events[1]["loss"]
    assert trainer.selection.losses == {3: events[0]["loss"]}
    assert row_losses.read(trainer.attempt.run, 3, "general").mean == events[1]["loss"]


def test_progress_is_shown_batch_by_batch(trainer):
    """As evaluating, with how many there are."""
    trainer.evaluate()

    heart = trainer.attempt.progress
    assert heart.told == [("evaluating", "expect", 4), *[("evaluating", "tick", 1)] * 4]
    assert heart.phase == "starting"


def test_the_time_of_an_evaluation_belongs_to_no_step(trainer):
    """Nor does what was collected before it."""
    trainer.recorder.count(Counts(100, 100, 100, 100, 100))

    trainer.evaluate()

    assert trainer.recorder.counts["rows"] == 0


def test_a_stop_before_training_ends_the_evaluation_at_once(trainer):
    """There is nothing to save."""
    trainer.attempt.stop.asked = True

    with pytest.raises(StopEarly):
        trainer.evaluate()

    assert told(trainer) == []


def test_a_stop_during_training_leaves_the_evaluation_out(trainer):
    """The step is not judged, and training ends as it was asked to."""
    trainer.attempt.stop.asked = True
    trainer.attempt.stop.wait_for_steps()
    trainer.control.should_evaluate = True
    trainer.state.global_step = 1

    assert trainer.evaluate() == {}

    assert not trainer.control.should_evaluate
    assert (told(trainer), trainer.selection.losses) == ([], {})


def test_a_stop_that_one_of_several_processes_knows_of_ends_no_evaluation(trainer):
    """The others would wait in a collective."""
    trainer.attempt.stop.asked = True
    trainer.ranks = SimpleNamespace(world_size=2, is_main=True, gathered=lambda rows: [rows])

    trainer.evaluate()

    assert len(told(trainer)) == 1


def test_answers_follow_an_evaluation_between_two_steps_alone():
    """Not that of the base model, nor the last one, nor one after training."""
    trainer = small_trainer(evaluated=ROWS, steps=3, eval_steps=1)
    steps = []
    trainer.before_steps = trainer.evaluate
    trainer.after_evaluation = lambda: steps.append(trainer.state.global_step)

    trainer.train()
    assert steps == [1, 2]
    assert [e["step"] for e in told(trainer)] == [0, 1, 2, 3]

    trainer.state.global_step = 1
    trainer.evaluate()
    assert steps == [1, 2]


@pytest.mark.parametrize(("keep", "saved"), [("best", [4, 2, 1]), ("last", [4])])
def test_the_best_step_so_far_is_saved(keep, saved):
    """Where the recipe publishes the best."""
    section = {"keep": keep, "keep_checkpoints": 9}
    trainer = small_trainer(evaluated=ROWS, eval_steps=1, kind=Valley, section=section)

    trainer.train()

    assert [c.step for c in checkpoints.committed(trainer.attempt.run)] == saved


@pytest.mark.parametrize(("is_main", "best"), [(True, 2), (False, None)])
def test_a_step_that_was_saved_before_its_evaluation_is_marked_by_the_first_rank(
    trainer, is_main, best
):
    """It alone writes."""
    run = trainer.attempt.run
    checkpoints.commit(run, checkpoints.stage(run, 2), 2)
    trainer.ranks.is_main = is_main
    trainer.state.global_step = 2

    trainer.evaluate()

    found = checkpoints.best(run)
    assert (found.step if found else None) == best


def test_training_without_gain_ends_early_and_is_saved():
    """After two evaluations that were no better than the best; told once."""
    section = {"early_stopping": 2}
    trainer = small_trainer(evaluated=ROWS, steps=8, eval_steps=1, kind=Valley, section=section)

    trainer.train()

    assert trainer.state.global_step == 4
    (event,) = told(trainer, "early_stop")
    assert (event["step"], event["best_step"], event["evaluations"]) == (4, 2, 2)
    assert checkpoints.committed(trainer.attempt.run)[0].step == 4


def test_an_early_stop_without_any_finite_loss_names_no_step():
    """The base model is the best that there is."""
    trainer = small_trainer(
        evaluated=ROWS, steps=5, kind=Valley, section={"early_stopping": 1, "keep": "last"}
    )
    trainer.factor, trainer.state.global_step, trainer.state.max_steps = math.nan, 3, 5

    trainer.evaluate()

    (event,) = told(trainer, "early_stop")
    assert (event["step"], event["best_step"], event["evaluations"]) == (3, 0, 1)
    assert trainer.control.should_training_stop
    assert trainer.control.should_save


def test_the_last_step_is_no_early_stop():
    """Training ends there anyway."""
    section = {"early_stopping": 2}
    trainer = small_trainer(evaluated=ROWS, steps=4, eval_steps=1, kind=Valley, section=section)

    trainer.train()

    assert trainer.state.global_step == 4
    assert told(trainer, "early_stop") == []
