"""Batches and their pieces: rows, tokens that count, packed examples."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from runner.training import pieces  # noqa: E402
from runner.training.batches import Batches  # noqa: E402

IGNORED = -100
"""By torch's cross-entropy."""

ROWS = [{"input_ids": [1, 2, 3], "labels": [IGNORED, 2, 3]}, {"input_ids": [4, 5]}]
BATCH = {
    "input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]),
    "labels": torch.tensor([[IGNORED, 2, 3], [4, 5, IGNORED]]),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
}


class Pairs(Batches):
    """Two sequences a row."""

    blocks = 2
    columns = ("chosen", "rejected")


def test_what_a_batch_holds_is_counted():
    """Rows, padded and real tokens, labels, the longest row."""
    assert Batches().counts(ROWS, BATCH) == (2, 6, 5, 4, 3)


def test_the_first_label_of_a_row_is_never_learnt():
    """Nothing stands before it to predict it from."""
    assert Batches().num_learnt(BATCH) == 3


def test_the_longest_rows_come_first():
    """By all the tokens of a row, and no more rows than asked for."""
    rows = {"input_ids": [[1], [1, 2, 3], [1, 2], [1, 2, 3, 4]]}
    assert Batches().lengths(rows) == [1, 3, 2, 4]
    assert Batches().longest(rows, 2) == [3, 1]

    pairs = {"chosen": [[1], [1, 2, 3]], "rejected": [[1, 2, 3, 4], [1]]}
    assert Pairs().lengths(pairs) == [5, 4]


def test_a_batch_is_divided_after_its_rows():
    """Of one sequence each, or of two for a task of pairs."""
    four = {"input_ids": torch.arange(8).view(4, 2)}

    assert (Batches().num_rows(four), Pairs().num_rows(four)) == (4, 2)
    assert [p["input_ids"].tolist() for p in Batches().divided(four, 2)] == [
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
    ]
    assert [p["input_ids"].tolist() for p in Pairs().divided(four, 2)] == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
    ]


def test_one_row_that_is_not_packed_stays_whole():
    """A row is the least there is."""
    batch = {"input_ids": torch.arange(3)[None]}

    assert pieces.num_rows(batch) == 1
    assert pieces.pieces_of(batch, 4) == [batch]


@pytest.mark.parametrize("positions", [None, torch.tensor([0, 1, 0]), [[0, 1, 0]]])
def test_positions_that_say_nothing_of_examples_cut_no_row(positions):
    """Others have none, or give them in another shape."""
    batch = {"input_ids": torch.arange(3)[None], "position_ids": positions}

    assert pieces.num_rows(batch) == 1
    assert pieces.pieces_of(batch, 2) == [batch]


def test_rows_are_rows_whatever_their_positions_say():
    """Only a single row may be a packed one."""
    batch = {"input_ids": torch.arange(4).view(2, 2), "position_ids": torch.zeros(2, 2)}

    assert pieces.num_rows(batch) == 2


def test_what_belongs_to_no_row_goes_with_every_piece():
    """Numbers, scalars and tensors of another length."""
    rows = torch.arange(4).view(2, 2)
    other = {"scale": torch.tensor(0.5), "weights": torch.arange(5), "name": "x"}

    for index, piece in enumerate(pieces.pieces_of({"input_ids": rows, **other}, 2)):
        assert piece["input_ids"].tolist() == rows[index : index + 1].tolist()
        assert {k: piece[k] for k in other} == other


def test_only_what_pads_a_piece_is_cut_away():
    """On the right, from every tensor that is as wide; a piece of padding alone stays as it is."""
    batch = {
        "input_ids": torch.arange(8).view(2, 4),
        "attention_mask": torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0]]),
        "labels": torch.arange(8).view(2, 4),
        "features": torch.arange(6).view(2, 3),
        "pixels": torch.arange(32).view(2, 4, 4),
    }

    first, second = pieces.pieces_of(batch, 2)

    shapes = {key: tuple(value.shape) for key, value in first.items()}
    assert shapes == {
        **dict.fromkeys(("input_ids", "attention_mask", "labels"), (1, 3)),
        "features": (1, 3),
        "pixels": (1, 4, 4),
    }
    assert second["input_ids"].shape == (1, 4)


def test_a_batch_that_is_not_divided_keeps_its_padding():
    """It is as it was, shapes too."""
    batch = {"input_ids": torch.arange(8).view(2, 4), "attention_mask": torch.eye(2, 4).int()}

    (only,) = pieces.pieces_of(batch, 1)

    assert only["input_ids"].shape == (2, 4)


def test_without_a_mask_of_rows_nothing_is_cut_away():
    """Nobody knows what pads."""
    rows = torch.arange(4).view(2, 2)
    for mask in (None, torch.ones(2, 1, 2, 2)):
        first, _ = pieces.pieces_of({"input_ids": rows, "attention_mask": mask}, 2)
        assert first["input_ids"].tolist() == [[0, 1]]


def packed(**more):
    """Examples of 2, 3, 1 and 2 tokens in one row."""
    return {
        "input_ids": torch.arange(8)[None],
        "position_ids": torch.tensor([[0, 1, 0, 1, 2, 0, 0, 1]]),
        **more,
    }


def test_a_packed_row_is_cut_with_all_that_is_as_wide():
    """In order, each token once."""
    batch = packed(labels=torch.arange(8)[None] + 10, scale=torch.ones(1, 3), pad=0)

    first, second = pieces.pieces_of(batch, 2)

    assert [p["input_ids"].tolist() for p in (first, second)] == [[[0, 1, 2, 3, 4]], [[5, 6, 7]]]
    assert second["labels"].tolist() == [[15, 16, 17]]
    assert second["position_ids"].tolist() == [[0, 0, 1]]
    assert (second["scale"].shape, second["pad"]) == ((1, 3), 0)
    assert not {"cu_seq_lens_q", "max_length_k", "seq_idx"} & second.keys()


def test_a_packed_row_has_as_many_pieces_as_examples_at_most():
    """Each then is alone."""
    assert [p["input_ids"].tolist() for p in pieces.pieces_of(packed(), 9)] == [
        *([[0, 1]], [[2, 3, 4]], [[5]], [[6, 7]]),
    ]


def test_attention_is_told_the_lengths_of_a_pieces_examples_in_the_batchs_own_terms():
    """Queries and keys, numbers or tensors, in their types."""
    ends = torch.tensor([0, 2, 5, 6, 8], dtype=torch.int32)
    batch = packed(
        cu_seq_lens_q=ends,
        cu_seq_lens_k=ends.long(),
        max_length_q=3,
        max_length_k=torch.tensor(3, dtype=torch.int32),
        seq_idx=torch.tensor([[0, 0, 1, 1, 1, 2, 3, 3]], dtype=torch.int32),
    )

    first, second = pieces.pieces_of(batch, 2)

    assert (second["cu_seq_lens_q"].tolist(), second["cu_seq_lens_k"].tolist()) == ([0, 1, 3],) * 2
    assert second["cu_seq_lens_q"].dtype == torch.int32
    assert second["cu_seq_lens_k"].dtype == torch.int64
    assert (first["max_length_q"], second["max_length_q"]) == (3, 2)
    assert type(second["max_length_q"]) is int
    assert torch.equal(second["max_length_k"], torch.tensor(2, dtype=torch.int32))
    assert second["seq_idx"].tolist() == [[0, 1, 1]]
    assert second["seq_idx"].dtype == torch.int32
