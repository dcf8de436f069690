"""Tokenised rows on the disk: what is written is read again, batch by batch."""

from __future__ import annotations

import pytest

pytest.importorskip("datasets")

import pyarrow as pa

from runner.training import arrow_rows
from runner.training.arrow_rows import RowWriter, read


def rows_of(*lengths):
    return [{"input_ids": list(range(n)), "labels": [-100] * n, "margin": 0.5} for n in lengths]


def written(path, rows):
    with RowWriter(path) as writer:
        for row in rows:
            writer.add(row)
    return path


def test_rows_come_back_in_their_order(tmp_path):
    """Tokens take 32 bits, and other values stay as they are."""
    rows = rows_of(3, 1, 0, 2)

    found = read(written(tmp_path / "rows", rows))

    assert list(found) == rows
    kinds = {field.name: str(field.type) for field in found.data.schema}
    assert kinds == {
        "input_ids": "list<item: int32>",
        "labels": "list<item: int32>",
        "margin": "double",
    }


def test_a_batch_is_written_as_soon_as_it_is_full(tmp_path, monkeypatch):
    """So that memory holds no more; a row counts for one besides its tokens."""
    monkeypatch.setattr(arrow_rows, "_TOKENS_IN_A_BATCH", 20)
    rows = rows_of(4, 4, 0, 1, 9, 10, 30, 2)  # 9, 18, 19, 22 | 19, 40 | 61 | 5

    path = written(tmp_path / "rows", rows)

    with pa.OSFile(str(path)) as file:
        assert [batch.num_rows for batch in pa.ipc.open_stream(file)] == [4, 2, 1, 1]
    assert list(read(path)) == rows


def test_without_rows_the_file_is_empty(tmp_path):
    """There is no schema to write."""
    assert written(tmp_path / "rows", []).stat().st_size == 0


def test_what_fails_is_not_finished(tmp_path):
    """What waits is not written as if it had been all."""
    path = tmp_path / "rows"

    def fail():
        with RowWriter(path) as writer:
            writer.add(rows_of(3)[0])
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail()
    assert path.stat().st_size == 0
