"""An attempt after another: where it begins, what it remembers, what it does again."""

from __future__ import annotations

import os
from functools import partial

import pytest

pytest.importorskip("torch")

import real_runs
from played_session import OneRank, PlayedTrainer, attempt, commit, events, splits

from profiles.errors import UserError
from profiles.runs import durable
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.worker import Changed, OutOfMemory, Resumed
from runner import checkpoints
from runner.resume import Start


@pytest.fixture
def run():
    """A run in its second attempt."""
    run = real_runs.new_run("model", "data", more="samples = 1\n")
    durable.write_atomic(run.attempt_file, b"2\n")
    return run


@pytest.fixture
def trainer(run):
    """A trainer that makes ten steps of ten."""
    return PlayedTrainer(real_runs.quiet(run))


@pytest.fixture
def go(run, trainer):
    """Run the attempt to its end; the exit code."""
    return partial(attempt, run, trainer)


@pytest.fixture
def earlier(run):
    """Write what the first attempt told."""

    def write(*records):
        journal = Journal(run.worker_events, attempt=1)
        for record in records:
            journal.append(record)
        journal.close()

    return write


def evaluated(step, loss, data="first"):
    """An evaluation."""
    return Evaluated(step=step, loss=loss, seconds=1.0, data=data)


def test_the_first_attempt_looks_for_no_checkpoint(go, run, trainer):
    """It begins with the base model."""
    durable.write_atomic(run.attempt_file, b"1\n")
    commit(run, 4)

    go()

    assert trainer.done[0] == "train from None"
    assert events(run, Resumed) == []


def test_a_later_attempt_goes_on_from_the_newest_checkpoint(go, run, trainer):
    """It tells so; the base model was evaluated before, and not answered again."""
    commit(run, 3)
    commit(run, 5)

    go()

    assert trainer.done[0] == "train from step-00000005"
    assert not [text for text in trainer.done if text.endswith(("at 0", "before"))]
    (resumed,) = events(run, Resumed)
    assert (resumed.from_step, resumed.passed_over) == (5, ())
    assert "going on from step 5" in resumed.what


def test_a_checkpoint_that_is_damaged_is_set_aside_and_told(go, run, trainer):
    """Training will reach its step again."""
    commit(run, 3)
    (commit(run, 5) / "weights").unlink()

    go()

    assert trainer.done[0] == "train from step-00000003"
    assert [c.step for c in checkpoints.committed(run)] == [3]
    assert len(list(run.checkpoints.glob("bad-*"))) == 1
    (resumed,) = events(run, Resumed)
    assert resumed.passed_over == ("step 5: weights is missing",)


def test_without_a_checkpoint_it_begins_anew_and_says_so(go, run, trainer):
    """With the base model's evaluation and answers."""
    go()

    assert trainer.done[:3] == [
        "train from None",
        "evaluate at 0",
        "answer 1 of 96 tokens before",
    ]
    (resumed,) = events(run, Resumed)
    assert (resumed.from_step, "from the base model" in resumed.what) == (0, True)


@pytest.mark.parametrize(("processes", "fits"), [(None, True), ("1", True), ("2", False)])
def test_a_checkpoint_of_other_processes_is_refused(go, run, monkeypatch, processes, fits):
    """The position in the data would be another."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("WORLD_SIZE", processes)
    commit(run, 5, world_size=1)

    if fits:
        assert go() == 0
    else:
        with pytest.raises(UserError, match="other settings"):
            go()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
def test_of_a_strangers_checkpoint_only_the_weights_are_taken(go, run, trainer):
    """Steps begin at 1 again; theirs is no longer one of this run."""
    os.chown(commit(run, 5) / "weights", 12345, -1)

    go()

    assert trainer.done[0] == "train from None"
    assert trainer.done[1].startswith("load bad-step-00000005")
    assert checkpoints.committed(run) == []
    (resumed,) = events(run, Resumed)
    assert resumed.from_step == 0
    assert "another user wrote" in resumed.what


@pytest.mark.parametrize(
    ("step", "known", "again"),
    [(4, (2,), True), (4, (2, 4), False), (5, (2, 4), False), (5, (), False)],
    ids=["left out", "there", "none was due", "none was due, none before"],
)
def test_an_evaluation_that_a_stop_left_out_is_made_up_for(
    go, run, trainer, earlier, step, known, again
):
    """Every second step is evaluated; the checkpoint of a stop may come before the evaluation."""
    commit(run, step)
    earlier(*(evaluated(at, 2.0) for at in known))

    go()

    assert (f"evaluate at {step}" in trainer.done) is again


def test_without_held_out_rows_none_is_made_up_for(go, run, trainer):
    """There is nothing to evaluate."""
    commit(run, 4)

    go(splits(held_out=0))

    assert trainer.done == ["train from step-00000004", "flush", "save"]


def test_no_evaluation_of_the_base_model_is_made_up_for(go, run, trainer, monkeypatch):
    """At step 0 none is due: an attempt that goes on has no base model any more."""
    commit(run, 0)

    go()

    assert "evaluate at 0" not in trainer.done


def test_evaluations_up_to_the_checkpoint_are_remembered(go, run, trainer, earlier):
    """Of the set that decides; later ones will come again."""
    commit(run, 4)
    earlier(evaluated(2, 2.0), evaluated(2, 9.0, "second"), evaluated(4, 1.5), evaluated(6, 1.0))

    go()

    assert trainer.selection.losses == {2: 2.0, 4: 1.5}


def test_changes_up_to_the_checkpoint_still_hold(go, run, trainer, earlier):
    """Later ones were asked for at steps that are made again, so they are not known yet."""
    commit(run, 4)
    earlier(
        Changed(step=2, log_every=3),
        evaluated(2, 2.0),
        Changed(step=4, eval_every=7),
        Changed(step=5, log_every=9),
    )

    go()

    found = [(c.step, c.log_every, c.eval_every) for c in trainer.changes]
    assert found == [(2, 3, None), (4, None, 7)]


def divided(during, pieces):
    """A shortage of memory, answered."""
    return OutOfMemory(
        step=2, during=during, pieces=pieces, micro_batch=1, accumulation=2, error="x", what="y"
    )


@pytest.mark.parametrize(("during", "pieces"), [("train", 2), ("eval", 4)])
def test_what_was_too_much_for_the_memory_is_not_tried_again(
    go, run, trainer, earlier, during, pieces
):
    """Divided as before from the start, training and evaluation each on its own."""
    commit(run, 4)
    earlier(divided(during, pieces))

    go()

    reason = "an earlier attempt ran out of memory"
    assert trainer.done[0] == f"{during} in {pieces} pieces from step 4: {reason}"
    assert trainer.done[1] == "train from step-00000004"


def test_other_ranks_begin_where_the_first_says(go, run, trainer, monkeypatch):
    """They look for no checkpoint themselves: another might be found."""
    path = commit(run, 4)
    commit(run, 5)
    monkeypatch.setenv("RANK", "1")
    trainer.ranks = OneRank(Start(path=path, step=4))

    go(is_main=False)

    assert trainer.done[0] == "train from step-00000004"
    assert events(run, Resumed) == []
