"""Dividing micro-batches after a shortage of memory: how far, when not, and what is told."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import rundir  # noqa: E402
from runner.training import oom  # noqa: E402
from runner.training.division import DURING, Division  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GPU_ERROR = torch.OutOfMemoryError("CUDA out of memory.\nTried to\nallocate")
HOST_ERROR = RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.fixture
def division():
    """Of micro-batches of five rows, three of them a step."""

    def make(device=CPU, rows=5):
        return Division(
            attempt=real_runs.quiet(rundir.create("division")),
            device=device,
            rows=rows,
            accumulation=3,
            lighter=["train.checkpointing = true", "method.rank = 4"],
        )

    return make


def told(division):
    """The changes that it has told, newest last."""
    return real_runs.events(division.attempt.run, "oom")


def divide(division, during="train", *, rows=5, is_alone=True):
    division.divide(during, "too much", rows=rows, step=7, is_alone=is_alone)


def test_a_shortage_is_answered_where_fewer_rows_would_have_prevented_it(division):
    """Of the device that trains; its first line is the reason."""
    assert division(CPU).reason_of(HOST_ERROR) == str(HOST_ERROR)
    assert division(CPU).reason_of(GPU_ERROR) == "CUDA out of memory."
    assert division(CUDA).reason_of(GPU_ERROR) == "CUDA out of memory."
    assert division(CUDA).reason_of(HOST_ERROR) == ""
    assert division(CPU).reason_of(ValueError("shapes")) == ""
    assert division(CUDA).reason_of(ValueError("shapes")) == ""


def test_a_shortage_without_words_is_called_by_its_name(division):
    """Python's own error has none."""
    assert division().reason_of(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(("rows", "most"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_a_batch_is_divided_until_every_row_is_alone(division, rows, most):
    """Twice as many pieces each time; then it is the end, and a clean process would not help."""
    made = division(rows=rows)
    while made.pieces["train"] < most:
        divide(made, rows=rows)

    with pytest.raises(UserError) as caught:
        divide(made, rows=rows)

    assert made.pieces == {"train": most, "eval": 1}
    assert caught.value.code is ExitCode.HOST_OOM
    assert caught.value.as_dict()["clean_restart"] is False
    assert "one row at a time is too much" in caught.value.do
    assert "train.checkpointing = true; method.rank = 4" in caught.value.do


def test_a_training_division_is_told_with_what_becomes_of_the_batch(division):
    """Pieces of three and two rows; the effective batch stays."""
    made = division()

    divide(made)

    (event,) = told(made)
    assert (event["step"], event["during"], event["pieces"]) == (7, "train", 2)
    assert (event["micro_batch"], event["accumulation"]) == (3, 6)
    assert event["error"] == "too much"
    assert event["what"] == (
        "out of memory: micro-batch 3 (was 5), accumulation 6; effective batch unchanged"
    )


def test_a_division_of_evaluation_is_its_own(division):
    """Training goes on as it did."""
    made = division()

    divide(made, "eval")

    (event,) = told(made)
    assert made.pieces == {"train": 1, "eval": 2}
    assert (event["during"], event["micro_batch"], event["accumulation"]) == ("eval", 3, 3)
    assert event["what"].endswith("accumulation 3; evaluation only")


def test_what_can_be_divided_is_all_that_later_attempts_look_for(division):
    """Each begins whole."""
    assert division().pieces == dict.fromkeys(DURING, 1)


def test_a_long_reason_is_cut(division):
    """To what fits into a record beside others."""
    made = division()

    made.set("train", 4, "x" * 600, step=0)

    assert told(made)[0]["error"] == "x" * 500


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_clean_process_goes_on_where_this_one_cannot(division, monkeypatch, is_alone):
    """Another rank waits, or the device no longer works: the next begins with more pieces."""
    monkeypatch.setattr(oom, "is_sane", lambda _: not is_alone)
    made = division()

    with pytest.raises(UserError) as caught:
        divide(made, is_alone=is_alone)

    error = caught.value
    assert (error.as_dict()["clean_restart"], error.as_dict()["pieces"]) == (True, 2)
    assert "a clean process goes on" in error.do
    assert error.why == "too much"
    assert error.where == str(made.attempt.run.console)
    assert told(made) == []
    assert made.pieces["train"] == 1


def test_on_a_gpu_the_peak_is_told(division, monkeypatch):
    """It says by how much the recipe is too large."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 << 30)

    with pytest.raises(UserError) as caught:
        divide(division(CUDA), is_alone=False)

    assert caught.value.why == "too much; the peak was 3.0 GiB"
