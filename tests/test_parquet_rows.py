"""What a user sees of Parquet files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
from data_files import GOOD, examples, quick, refused, write
from hypothesis import given
from hypothesis import strategies as st

from profiles.data import dataset, parquet_rows
from profiles.errors import ExitCode, UserError


def parquet(folder, rows, **options):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "a.parquet", **options)
    return folder / "a.parquet"


def test_parquet_and_json_lines_give_the_same_examples(tmp_path):
    """Texts and lists of turns alike, over several row groups."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "é中"}]
    rows = [{"messages": turns, "n": number} for number in range(30)]
    lines = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")

    found = parquet(tmp_path, rows, row_group_size=7)

    assert examples(found) == examples(lines)
    assert [line for line, _, _ in dataset.read_rows(found)] == list(range(1, 31))
    assert dataset.check(found).num_bytes == found.stat().st_size


def test_parquet_is_known_by_its_first_bytes(tmp_path):
    """Whatever the name of the file."""
    path = parquet(tmp_path, [GOOD]).rename(tmp_path / "rows.data")

    assert dataset.check(path).container == "Parquet, a row counts as a line"


def test_odd_parquet_types_are_told_as_faults_of_rows(tmp_path):
    """Bytes, dates and missing values are no texts."""
    import datetime as dt

    rows = [GOOD, {**GOOD, "completion": None}]
    assert "1 of 2 rows lack `completion` (first: line 2)" in refused(parquet(tmp_path, rows)).what
    rows = [{"text": b"raw"}]
    assert "have a bytes in `text`, not a text" in refused(parquet(tmp_path, rows)).what
    rows = [{"text": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}]
    assert "have a datetime in `text`" in refused(parquet(tmp_path, rows)).what


def test_an_extension_type_is_read_as_what_it_stores(tmp_path):
    """No code of the file is needed, and none is run."""
    pa = pytest.importorskip("pyarrow")
    stored = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["one", "two"]))

    found = dataset.check(parquet(tmp_path, pa.table({"text": stored})))

    assert found.num_rows == 2


def test_an_empty_parquet_file_has_nothing_to_learn_from(tmp_path):
    """Columns without rows."""
    pa = pytest.importorskip("pyarrow")

    assert refused(parquet(tmp_path, pa.table({"text": pa.array([], pa.string())}))).what == (
        "0 usable examples"
    )


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    """The index stands at the end, so no part is taken for the whole."""
    path = parquet(tmp_path, [GOOD] * 5)
    whole = path.read_bytes()
    for size in (1, 4, 8, len(whole) // 2, len(whole) - 5, len(whole) - 1):
        path.write_bytes(whole[:size])
        error = refused(path)
        assert error.code is ExitCode.BAD_DATA
        assert "Parquet file" in error.what


def test_a_parquet_file_with_changed_bytes_never_ends_in_a_traceback(tmp_path):
    """It reads or is refused, wherever the damage is."""
    path = parquet(tmp_path, [{**GOOD, "n": number} for number in range(50)])
    whole = path.read_bytes()
    chance = random.Random(7)  # noqa: S311  # damage that is the same in every run
    for _ in range(150):
        data = bytearray(whole)
        data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            dataset.check(path, on_bad="skip")
        except UserError as error:
            assert error.code is ExitCode.BAD_DATA  # noqa: PT017  # either outcome is right


@given(data=st.binary(max_size=200))
@quick
def test_any_bytes_as_parquet(tmp_path, data):
    """Whatever stands between the magic letters, it is refused as damage."""
    pytest.importorskip("pyarrow")
    for content in (b"PAR1" + data, b"PAR1" + data + b"PAR1"):
        assert refused(write(tmp_path, content, "a.parquet")).code is ExitCode.BAD_DATA


def test_a_giant_row_in_parquet_is_refused(tmp_path, monkeypatch):
    """Texts that compress to nothing are measured as they are read."""
    monkeypatch.setattr(parquet_rows, "MAX_RECORD_BYTES", 100_000)
    rows = [{"text": "a"}, {"text": "b" * 200_000}]

    error = refused(parquet(tmp_path, rows))

    assert "larger than" in error.what
    assert error.where.endswith("a.parquet:2")


def test_places_and_shares_go_on_from_batch_to_batch(tmp_path, monkeypatch):
    """A row is found by its number in the file."""
    path = parquet(tmp_path, [{"text": f"{number:04}"} for number in range(2500)])
    told = []
    dataset.inspect(path, progress=lambda *one: told.append(one))
    assert told == [(1000, 1024 / 2500), (2000, 2048 / 2500)]

    monkeypatch.setattr(parquet_rows, "MAX_RECORD_BYTES", 100_000)
    monkeypatch.setattr(parquet_rows, "MAX_BATCH_ROWS", 1)
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c" * 200_000}]
    assert refused(parquet(tmp_path, rows)).where.endswith("a.parquet:3")


@pytest.mark.parametrize(
    ("num_rows", "sizes", "expected"),
    [
        (0, [], 1024),
        (100_000, [100_000], 1024),
        (10, [1], 1024),
        (80, [40 << 20, 40 << 20], 8),
        (2, [100 << 20], 1),
        (10, [-5, 80 << 20], 1),
    ],
)
def test_batches_take_a_few_megabytes(num_rows, sizes, expected):
    """Rows a batch, by the sizes that the file states of its parts."""
    metadata = SimpleNamespace(
        num_rows=num_rows,
        num_row_groups=len(sizes),
        row_group=lambda index: SimpleNamespace(total_byte_size=sizes[index]),
    )

    assert parquet_rows._batch_rows(metadata) == expected


def test_columns_of_one_name_are_refused(tmp_path):
    """One of them would be lost."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])

    assert refused(parquet(tmp_path, table)).what == "two columns are named `text`"


def test_a_deep_schema_is_refused(tmp_path):
    """Objects in objects, as deep as no data format is."""
    pa = pytest.importorskip("pyarrow")
    deep = pa.array([1], pa.int8())
    for _ in range(70):
        deep = pa.StructArray.from_arrays([deep], ["a"])

    assert "deeper than 64" in refused(parquet(tmp_path, pa.table({"text": deep}))).what


def test_without_the_library_the_package_is_named(tmp_path, monkeypatch):
    """Parquet comes with the packages for training."""
    path = parquet(tmp_path, [GOOD])
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    error = refused(path)

    assert (error.code, error.do) == (ExitCode.DRIVER, "pip install 'tunedeck[train]'")


def test_parquet_is_read_without_pandas_and_json_without_the_library(tmp_path):
    """A library that nobody asked for is not loaded."""
    parquet(tmp_path, [GOOD])
    write(tmp_path, json.dumps(GOOD) + "\n", "a.jsonl")
    code = (
        "import sys; from profiles.data import dataset; dataset.check(sys.argv[1])\n"
        "print('pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    loaded = [
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for name in ("a.jsonl", "a.parquet")
    ]

    assert loaded == [["False", "False"], ["True", "False"]]


def test_a_tool_has_its_own_arguments_alone(tmp_path):
    """In a column every object has the keys of all others, as null; rows say nothing of them."""
    rows = []
    for name in ("f", "g"):
        arguments = {"type": "object", "properties": {name: {"type": "string"}}}
        calls = [{"type": "function", "function": {"name": name, "arguments": {name: "x"}}}]
        turns = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": calls},
        ]
        rows.append({"messages": turns, "tools": [{"name": name, "parameters": arguments}]})
    lines = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl")

    assert examples(parquet(tmp_path, rows)) == examples(lines)
