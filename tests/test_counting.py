"""A library's loops over rows, as the heartbeat sees them."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("torch")

from datasets import arrow_dataset

from runner.training.counting import counted


class Progress:
    """What the heartbeat is told."""

    def __init__(self):
        self.told = []

    def expect(self, total):
        self.told.append(f"of {total}")

    def tick(self, number=1):
        self.told.append(number)


@pytest.fixture
def progress():
    """Nothing told yet."""
    return Progress()


def test_a_loop_tells_its_length_and_every_advance(progress):
    """In rows; the library's own bar goes on as before."""
    shown = io.StringIO()
    with counted(progress), arrow_dataset.hf_tqdm(total=10, disable=False, file=shown) as bar:
        bar.update(4)
        bar.update()
        bar.update(2.0)

    assert progress.told == ["of 10", 4, 1, 2]
    assert (bar.n, bar.total) == (7, 10)
    assert "/10" in shown.getvalue()


def test_a_loop_of_unknown_length_is_counted_all_the_same(progress):
    """Of 0, which means that nobody knows."""
    with counted(progress):
        bar = arrow_dataset.hf_tqdm(disable=True)
        bar.update(None)
        bar.update(3)

    assert progress.told == ["of 0", 0, 3]


def test_what_the_library_returns_of_an_advance_is_returned(progress):
    """Whether it was shown."""
    with counted(progress):
        bar = arrow_dataset.hf_tqdm(
            total=10, disable=False, file=io.StringIO(), mininterval=0, miniters=1
        )

        assert bar.update(5) is True


def test_loops_outside_are_not_counted(progress):
    """The library is left as it was."""
    before = arrow_dataset.hf_tqdm

    with counted(progress):
        assert arrow_dataset.hf_tqdm is not before

    assert arrow_dataset.hf_tqdm is before
