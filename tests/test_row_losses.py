"""The losses of the rows: their mean, their order over ranks, kept and read back, compared."""

from __future__ import annotations

import math
import os

import pytest

from advisor.registry.task_spec import Score
from profiles.runs import durable, rundir
from profiles.runs.journal import Journal, read_all
from profiles.runs.records.evaluation import RowLosses
from runner.training import row_losses
from runner.training.row_losses import Rows


@pytest.fixture
def run():
    """An empty run directory."""
    return rundir.create("rows")


@pytest.fixture
def journal(run):
    """Where its evaluations are kept."""
    return Journal(run.evaluations, attempt=1)


def test_the_mean_is_that_over_all_tokens():
    """A long row counts more; one without a token that counts does not, whatever its loss."""
    assert Rows([1.0, 4.0], [3, 1]).mean == 1.75
    assert Rows([1.0, math.nan, 4.0], [3, 0, 1]).mean == 1.75
    assert math.isnan(Rows([1.0, math.nan], [3, 1]).mean)
    assert math.isnan(Rows([0.5], [0]).mean)


def test_batches_of_the_ranks_are_put_in_the_order_of_the_set():
    """In turns; what the last one was filled up with is left out."""
    first = [Rows([0.0, 1.0], [10, 11]), Rows([4.0, 5.0], [14, 15])]
    second = [Rows([2.0, 3.0], [12, 13])]

    found = row_losses.in_order([first, second], 5)

    assert found == Rows([0.0, 1.0, 2.0, 3.0, 4.0], [10, 11, 12, 13, 14])


def test_what_is_compared_now_is_what_would_be_read_later(run, journal):
    """A millionth of a nat is kept."""
    rows = row_losses.in_order([[Rows([1 / 3, 2 / 3], [1, 2])]], 2)

    row_losses.write(journal, 2, "", rows)

    assert rows == Rows([0.333333, 0.666667], [1, 2])
    assert row_losses.read(run, 2, "") == rows


def test_a_large_set_is_read_back_whole(run, journal):
    """However long its numbers are: no record is cut."""
    losses = [round(10000 + index / 997, 6) for index in range(1001)]
    rows = Rows(losses, [10**7 + index for index in range(1001)])

    row_losses.write(journal, 4, "domain", rows)

    assert row_losses.read(run, 4, "domain") == rows


def test_a_loss_that_is_not_finite_is_read_back_as_none(run, journal):
    """The row keeps its place."""
    row_losses.write(journal, 4, "", Rows([1.0, math.inf, 3.0], [1, 2, 3]))

    (record,) = read_all(run.evaluations)
    assert (record.losses, record.data) == ((1.0, None, 3.0), None)
    found = row_losses.read(run, 4, "")
    assert (found.losses[0], found.losses[2], found.tokens) == (1.0, 3.0, [1, 2, 3])
    assert math.isnan(found.losses[1])


def test_an_evaluation_is_found_by_its_step_and_its_set(run, journal):
    """Of one that was made again the newer counts; None where there is none."""
    row_losses.write(journal, 2, "a", Rows([1.0, 1.5], [1, 1]))
    row_losses.write(journal, 2, "b", Rows([2.0], [1]))
    row_losses.write(journal, 4, "a", Rows([3.0], [1]))
    row_losses.write(journal, 2, "a", Rows([4.0, 4.5], [1, 1]))

    assert row_losses.read(run, 2, "a").losses == [4.0, 4.5]
    assert row_losses.read(run, 2, "b").losses == [2.0]
    assert row_losses.read(run, 4, "a").losses == [3.0]
    assert row_losses.read(run, 4, "b") is None
    assert row_losses.read(run, 2, "") is None


def test_rows_after_one_that_is_lost_are_left_out(run, journal):
    """Their place in the set is known, what stood before them is not."""
    part = {"step": 2, "data": None}
    journal.append(RowLosses(first=0, losses=(1.0, 2.0), tokens=(1, 1), **part))
    journal.append(RowLosses(first=3, losses=(4.0,), tokens=(1,), **part))

    assert row_losses.read(run, 2, "") == Rows([1.0, 2.0], [1, 1])


def test_a_record_without_rows_is_no_evaluation(run, journal):
    """Whoever wrote it."""
    journal.append(RowLosses(step=2, data=None, first=0, losses=(), tokens=()))

    assert row_losses.read(run, 2, "") is None


class CountingDisk(durable.Disk):
    """Counts how often the device is asked to confirm."""

    num_syncs = 0

    def fsync(self, fd):
        self.num_syncs += 1
        os.fsync(fd)


def test_an_evaluation_is_on_the_disk_when_it_is_written_for_one_sync(journal, monkeypatch):
    """However many records it has."""
    disk = CountingDisk()
    monkeypatch.setattr(durable, "disk", disk)

    row_losses.write(journal, 2, "", Rows([1.0] * 900, [1] * 900))

    assert disk.num_syncs == 1


def test_the_gain_is_how_much_lower_the_loss_is():
    """Row by row, with an interval around it."""
    base = Rows([2.0, 3.0, 4.0, 5.0], [10, 10, 10, 20])

    found = row_losses.gain(base, Rows([1.0, 2.5, 3.5, 4.0], [10, 10, 10, 20]))

    assert found.value == pytest.approx(0.8)
    assert found.low < 0.8 < found.high


def test_other_rows_are_not_compared():
    """The data was changed, or the base model was not evaluated."""
    rows = Rows([1.0, 2.0], [1, 2])

    assert row_losses.gain(None, rows) is None
    assert row_losses.gain(Rows([1.0, 2.0], [1, 3]), rows) is None


MARGIN, RIGHT = Score("margin", "how far ahead"), Score("right", "share", chance=0.5)


def test_scores_are_kept_and_read_back_with_their_rows(run, journal):
    """Of large sets too; what is not finite keeps its place."""
    values = [round(index / 7, 6) for index in range(900)]
    rows = Rows([1.0] * 900, [1] * 900, {"margin": values, "right": [0.0, 1.0] * 450})

    row_losses.write(journal, 2, "", rows)
    row_losses.write(journal, 3, "", Rows([1.0, 2.0], [1, 1], {"margin": [math.inf, 2.0]}))

    assert row_losses.read(run, 2, "") == rows
    found = row_losses.read(run, 3, "").scores["margin"]
    assert (math.isnan(found[0]), found[1]) == (True, 2.0)


def test_scores_are_compared_with_the_base_model_row_by_row_or_with_chance():
    """How much higher they are, with an interval; those of the base model with nothing."""
    base = Rows([1.0] * 4, [1] * 4, {"margin": [0.0, 1.0, 2.0, 3.0], "right": [0.0] * 4})
    now = Rows([1.0] * 4, [1] * 4, {"margin": [1.0, 2.5, 2.5, 4.0], "right": [1.0] * 4})

    margin, right = row_losses.scored(base, now, [MARGIN, RIGHT])
    alone = row_losses.scored(None, now, [MARGIN])[0]

    assert (margin.before, margin.value, margin.against) == (1.5, 2.5, "the base model")
    assert margin.gain[1] == pytest.approx(1.0)
    assert margin.gain[0] < 1.0 < margin.gain[2]
    assert (right.before, right.value, right.against) == (0.5, 1.0, "chance")
    assert right.gain == pytest.approx((0.5, 0.5, 0.5))
    assert (alone.value, alone.before, alone.gain) == (2.5, None, None)
    margin, right = row_losses.scored(base, now, [MARGIN, RIGHT], "the result of run x")
    assert (margin.against, right.against) == ("the result of run x", "chance")
