"""An optimizer step in pieces: the same step, on the same rows, whatever memory there is."""

from __future__ import annotations

import contextlib

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from small_trainer import ROWS, Pairs, RowList, SmallTrainer, row, small_trainer  # noqa: E402

from profiles.errors import UserError  # noqa: E402
from runner.engines.engine import Engine  # noqa: E402
from runner.training.batches import Counts  # noqa: E402


class Short(SmallTrainer):
    """Runs out of memory where a test says so; keeps what each piece was."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.lacks = lambda _batch: False
        self.pieces = []

    def compute_loss(self, model, inputs, *args, **kw):
        if self.lacks(inputs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        self.pieces.append((inputs["input_ids"].shape[0], self.share))
        return super().compute_loss(model, inputs, *args, **kw)


def trained(lacks=None, *, counts=True, monkeypatch=None, **settings):
    """A trainer that has trained; `counts`: the Trainer counts the step's labels."""
    if not counts:
        monkeypatch.setattr(Pairs, "accepts_loss_kwargs", False)
    trainer = small_trainer(kind=Short, **settings)
    if lacks:
        trainer.lacks = lambda inputs: lacks(trainer, inputs)
    trainer.train()
    trainer.recorder.flush()
    return trainer


def more_than(rows, from_step=0):
    """Only so many rows fit, from a step on."""
    return lambda trainer, inputs: (
        trainer.state.global_step >= from_step and inputs["input_ids"].shape[0] > rows
    )


def in_call(*numbers):
    """The n-th passes through the model fail, the longest batch's being the first."""
    calls = []

    def lacks(_trainer, _inputs):
        calls.append(1)
        return len(calls) in numbers

    return lacks


def assert_same(one, other):
    """The same weights and the same losses."""
    torch.testing.assert_close(one.model.state_dict(), other.model.state_dict())
    first, second = (real_runs.losses(trainer.attempt.run) for trainer in (one, other))
    assert first == pytest.approx(second, abs=1e-6)
    assert list(first) == [1, 2, 3, 4]


@pytest.mark.parametrize("counts", [True, False], ids=["counted", "means"])
@pytest.mark.parametrize(
    ("shortage", "where"),
    [(more_than, (1,)), (more_than, (1, 2)), (in_call, (3,)), (in_call, (6, 9))],
    ids=["from the first step", "from step 3", "second micro-batch", "twice"],
)
def test_a_step_in_pieces_is_the_step_as_planned(monkeypatch, shortage, where, counts):
    """The gradients so far are thrown away with those that failed, and made again."""
    settings = {"counts": counts, "monkeypatch": monkeypatch, "micro_batch": 4}

    undisturbed, short = trained(**settings), trained(shortage(*where), **settings)

    assert_same(short, undisturbed)
    assert real_runs.events(short.attempt.run, "oom")


@pytest.mark.parametrize("rows", [4, 1])
def test_the_loss_of_a_step_is_the_mean_over_all_of_its_labels(rows):
    """Here of all rows there are, so what an evaluation of them finds."""
    # the Trainer counts a first label that is there, though nothing predicts it
    every = RowList(row(length, learnt=length - 1) for length in (3, 6, 4, 5, 8, 2, 4, 7))
    base = small_trainer(evaluated=every).evaluate()["eval_loss"]

    found = trained(more_than(rows), train=every, micro_batch=4, steps=1)

    assert real_runs.losses(found.attempt.run)[1] == pytest.approx(base, abs=1e-4)


def test_a_piece_is_weighted_by_what_it_learns_of_its_micro_batch(monkeypatch):
    """Of 6 labels 2 and 4; a micro-batch that is whole weighs 1."""
    rows = RowList([row(3), row(5)])
    settings = {"train": rows, "steps": 1, "accumulation": 1}

    whole = trained(counts=False, monkeypatch=monkeypatch, **settings)
    short = trained(more_than(1), counts=False, monkeypatch=monkeypatch, **settings)

    assert whole.pieces[-1] == (2, 1.0)
    assert sorted(short.pieces[-2:]) == [(1, pytest.approx(1 / 3)), (1, pytest.approx(2 / 3))]


@pytest.mark.parametrize(("learnt", "shares"), [(0, [0.0, 0.0]), (1, [0.0, 1.0])])
def test_a_micro_batch_that_learns_next_to_nothing_is_divided_too(learnt, shares):
    """A piece without a label has no share; nobody divides by 0."""
    rows = RowList([row(3, learnt=0), row(5, learnt=learnt)])

    short = trained(more_than(1), train=rows, steps=1, accumulation=1)

    assert sorted(share for _, share in short.pieces[-2:]) == shares


def test_a_short_last_micro_batch_divides_the_longer_ones_before_it():
    """Three rows of two micro-batches: the single row that failed was not too many."""
    settings = {"train": RowList(ROWS[:3]), "steps": 4}

    undisturbed, short = trained(**settings), trained(in_call(3), **settings)

    assert_same(short, undisturbed)
    assert short.division.pieces["train"] == 2


def test_rows_that_are_alone_and_still_too_many_end_the_run():
    """After every division that was possible."""
    with pytest.raises(UserError, match="ran out of memory"):
        trained(more_than(0), steps=1)


def test_any_other_error_goes_up():
    """It would come again."""

    def broken(_trainer, _inputs):
        raise ValueError("shapes")

    with pytest.raises(ValueError, match="shapes"):
        trained(broken, steps=1)


def test_a_steps_record_has_its_rows_and_tokens_and_the_wait_for_them():
    """Each batch counted once, divided or not."""
    for lacks in (None, more_than(1, from_step=1)):
        found = real_runs.steps(trained(lacks, steps=2).attempt.run)

        assert [(step["step"], step["rows"]) for step in found] == [(1, 4), (2, 4)]
        assert sum(step["tokens"] for step in found) == sum(len(r["input_ids"]) for r in ROWS)
        assert max(step["longest"] for step in found) == 8
        assert all({"data", "backward"} <= step["phases"].keys() for step in found)


def test_what_was_counted_between_two_steps_belongs_to_neither():
    """A step begins with the wait for its batches."""
    trainer = small_trainer()
    trainer.recorder.count(Counts(100, 100, 100, 100, 100))
    loader = trainer.get_train_dataloader()

    batches, _ = trainer.get_batch_samples(iter(loader), 2, trainer.args.device)

    assert [set(batch) for batch in batches] == [{"input_ids", "labels", "attention_mask"}] * 2
    assert trainer.recorder.counts["rows"] == 4


def test_every_piece_is_a_sign_of_progress():
    """A step of many pieces is no stall."""
    trainer = trained(more_than(1), steps=1)

    ticks = [one for one in trainer.attempt.progress.told if one[1] == "tick"]
    assert len(ticks) == 1 + len(trainer.pieces)


class Syncing(Engine):
    """Knows whether gradients are exchanged."""

    syncs = True

    @contextlib.contextmanager
    def unsynced(self, *_):
        self.syncs = False
        yield
        self.syncs = True


def test_gradients_are_exchanged_once_a_micro_batch(monkeypatch):
    """With its last piece."""
    seen = []
    trainer = small_trainer(kind=Short, micro_batch=4, accumulation=1, steps=1)
    trainer.engine = Syncing()
    trainer.division.pieces["train"] = 4
    compute = Short.compute_loss

    def watched(self, *args, **kw):
        seen.append(self.engine.syncs)
        return compute(self, *args, **kw)

    monkeypatch.setattr(Short, "compute_loss", watched)
    trainer.train()

    assert seen == [False, False, False, True] * 2  # the longest batch, and the step
