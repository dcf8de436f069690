"""Tokenised rows on disk: written row by row, and mapped into memory by every process.

So memory does not grow with the data. Files are Arrow streams, as `datasets` maps them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from datasets import Dataset

from runner.training.batches import IGNORED_LABEL

_TOKENS_IN_A_BATCH = 1 << 18


class RowWriter:
    """Writes one file; all rows have the keys and types of the first ones."""

    def __init__(self, path: Path) -> None:
        self._path, self._batch, self._num_waiting = path, list[dict[str, Any]](), 0
        self._schema: pa.Schema | None = None

    def __enter__(self) -> Self:
        self._file = pa.OSFile(str(self._path), "wb")
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; it is written with its batch."""
        self._batch.append(row)
        self._num_waiting += sum([len(v) for v in row.values() if isinstance(v, list)]) + 1
        if self._num_waiting >= _TOKENS_IN_A_BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._batch and self._schema is None:
            self._schema = _narrow(pa.RecordBatch.from_pylist(self._batch).schema)
            self._stream = pa.ipc.new_stream(self._file, self._schema)
        if self._batch:
            batch = pa.RecordBatch.from_pylist(self._batch, schema=self._schema)
            self._stream.write_batch(batch)
        self._batch, self._num_waiting = [], 0

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._schema is not None:
            self._stream.close()
        self._file.close()


class Joined(RowWriter):
    """Writes texts as rows of one length, joined in order; what is left at the end is shorter.

    Every token but the first is learnt once: a row begins with the last token of the row before
    it, which is only read.
    """

    def __init__(self, path: Path, length: int) -> None:
        super().__init__(path)
        self._length = length
        self._waiting: dict[int, list[int]] = {}

    def add_texts(self, ids: list[int], times: int) -> None:
        """Take a text so many times, apart from each other: they lie in as many streams."""
        for copy in range(times):
            waiting = self._waiting.setdefault(copy, [])
            waiting += ids
            first, step = 0, self._length - 1
            while len(waiting) - first >= self._length:
                self._put(waiting[first : first + self._length])
                first += step
            del waiting[:first]

    def _put(self, ids: list[int]) -> None:
        self.add({"input_ids": ids, "labels": [IGNORED_LABEL, *ids[1:]]})

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for waiting in self._waiting.values():
            if len(waiting) > 1:  # else it is the one that was learnt already
                self._put(waiting)
        super().__exit__(kind, *rest)


def read(path: Path) -> Dataset:
    """The rows of a file that has any, from the disk."""
    return Dataset.from_file(str(path))


def _narrow(schema: pa.Schema) -> pa.Schema:
    """Token ids and labels fit into 32 bits: half the room on the disk."""
    ids = pa.list_(pa.int64())
    return pa.schema([f.with_type(pa.list_(pa.int32())) if f.type == ids else f for f in schema])
