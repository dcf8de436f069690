"""Data sets that are folders: what `datasets` saves, and shards of Parquet."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from data_files import refused

pyarrow = pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")

from pyarrow import parquet  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from profiles import paths  # noqa: E402
from profiles.data import dataset  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from runner.checks import replay  # noqa: E402
from tui.main import run  # noqa: E402

ROWS = [{"prompt": f"why {number}?", "completion": f"because {number}"} for number in range(2500)]


def saved(folder: Path, *, num_shards: int = 3, rows: list = ROWS) -> Path:
    """As the library saves it."""
    datasets.Dataset.from_list(rows).save_to_disk(folder, num_shards=num_shards)
    return folder


def sharded(folder: Path, *, num_shards: int = 3) -> Path:
    """Parquet files with a third of the rows each."""
    folder.mkdir()
    size = -(-len(ROWS) // num_shards)
    for number in range(num_shards):
        part = ROWS[number * size : (number + 1) * size]
        table = pyarrow.Table.from_pylist(part)
        parquet.write_table(table, folder / f"train-{number:05}-of-{num_shards:05}.parquet")
    return folder


def recipe_of(folder: Path) -> recipes.Recipe:
    """Trains on a folder."""
    return recipes.parse(
        f'schema = 1\nname = "x"\n[model]\nid = "model"\n[data]\ntrain = "{folder.name}"\n'
        '[method]\nname = "lora"\n',
        where="r",
    )


@pytest.mark.parametrize(("make", "kind"), [(saved, "Arrow"), (sharded, "Parquet")])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_rows_come_in_order_from_all_files(tmp_path, make, kind, num_shards):
    """And the hash is of all their bytes."""
    folder = make(tmp_path / "rows", num_shards=num_shards)

    found = dataset.check(folder)

    assert [row for _, _, row in dataset.read_rows(folder)] == ROWS
    assert [line for line, _, _ in dataset.read_rows(folder)] == list(range(1, 2501))
    assert found.num_rows == 2500
    several = "3 files, " if num_shards == 3 else ""
    assert found.container == f"{kind}, {several}a row counts as a line"
    files = sorted(folder.glob(f"*.{kind.lower()}"))
    assert found.sha256 == hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
    assert found.num_bytes == sum(file.stat().st_size for file in files)


def test_rows_that_were_shuffled_come_shuffled(tmp_path):
    """The library writes them so."""
    shuffled = datasets.Dataset.from_list(ROWS).shuffle(seed=3)
    shuffled.save_to_disk(tmp_path / "rows")

    assert [row for _, _, row in dataset.read_rows(tmp_path / "rows")] == list(shuffled)


def test_several_splits_are_answered_with_their_folders(tmp_path, capsys):
    """Each is a data set; the advice works."""
    one = datasets.Dataset.from_list(ROWS[:9])
    datasets.DatasetDict({"train": one, "held": one}).save_to_disk(tmp_path / "rows")

    error = refused(tmp_path / "rows")

    assert error.do == f"give one of them: {tmp_path / 'rows/held'} or {tmp_path / 'rows/train'}"
    assert run(["data", "check", error.do.split(" or ")[-1]]) == 0
    assert "9 usable" in capsys.readouterr().out


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"[]",
        b"{",
        b'{"_data_files": []}',
        b'{"_data_files": [{"filename": "../rows.arrow"}]}',
        b'{"_data_files": [{"filename": 5}]}',
        b'{"_data_files": [{}]}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_a_list_of_files_that_is_none_is_told(tmp_path, state):
    """No file outside the folder is read."""
    folder = saved(tmp_path / "rows", rows=ROWS[:9])
    (folder / "state.json").write_bytes(state)

    error = refused(folder)

    assert (error.code, error.where) == (ExitCode.BAD_DATA, str(folder / "state.json"))


def test_a_shard_that_is_gone_cut_or_no_file_is_told(tmp_path):
    """By its name."""
    folder = saved(tmp_path / "rows")
    second = folder / "data-00001-of-00003.arrow"
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    error = refused(folder)
    assert (error.what, error.where) == (
        "the Arrow file is damaged or not complete",
        str(second),
    )

    second.write_bytes(b"\xff" * 100)
    assert "damaged" in refused(folder).what
    second.unlink()
    assert refused(folder).what == f"the data set lacks {second.name}"
    os.mkfifo(second)
    assert refused(folder).why == "it is not a regular file"


def test_offsets_that_lie_are_refused(tmp_path):
    """A file may say that a text begins anywhere."""
    text = pyarrow.array(["abc", "defg"])
    lying = pyarrow.Array.from_buffers(
        pyarrow.string(),
        2,
        [None, pyarrow.array([0, 1_000_000, 7], pyarrow.int32()).buffers()[1], text.buffers()[2]],
    )
    folder = saved(tmp_path / "rows", num_shards=1, rows=[{"text": "a"}])
    batch = pyarrow.record_batch([lying], ["text"])
    with (
        pyarrow.OSFile(str(next(folder.glob("*.arrow"))), "wb") as file,
        pyarrow.ipc.new_stream(file, batch.schema) as stream,
    ):
        stream.write_batch(batch)

    assert "damaged" in refused(folder).what


def test_every_file_of_a_folder_is_in_the_lock(tmp_path):
    """A change of one is a change of the data."""
    folder = saved(tmp_path / "rows")
    recipe = recipe_of(folder)
    lock = replay.found(recipe, tmp_path, {}, {})
    assert [name for name in lock["sha256"] if name.startswith("data.train/data-")] == [
        f"data.train/data-0000{number}-of-00003.arrow" for number in range(3)
    ]
    assert all(lock["sha256"].values())

    with (folder / "data-00002-of-00003.arrow").open("ab") as file:
        file.write(b"\0")
    (change,) = replay.changes(lock, replay.found(recipe, tmp_path, lock, {}))

    assert change.name == "data.train/data-00002-of-00003.arrow"
    assert change.input_key == "data.train"


def test_a_folder_elsewhere_is_asked_about_as_a_file_is(tmp_path, monkeypatch):
    """A folder without rows there is no data by its name."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    folder = saved(there / "rows", rows=ROWS[:9])
    (there / "private").mkdir()

    paths.refuse_closed([folder], here, here)
    assert paths.unanswered([folder], here) == [folder]
    for name in ("private", "home.tar.gz"):
        with pytest.raises(UserError) as caught:
            paths.refuse_closed([there / name], here, here)
        assert "no data file by its name" in caught.value.why
    packed = there / "rows.jsonl.gz"
    paths.refuse_closed([packed], here, here)


def test_a_folder_without_rows_names_its_files(tmp_path):
    """As it always did."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]))

    assert refused(tmp_path).do == "give one of its files: rows.jsonl"


def test_files_beside_parquet_are_not_left_out_in_silence(tmp_path):
    """The advice works; what describes the rows is none of them."""
    folder = sharded(tmp_path / "rows")
    for name in ("README.md", "dataset_infos.json", "LICENSE.txt"):
        (folder / name).write_text("{}")
    assert dataset.check(folder).num_rows == 2500

    (folder / "more.jsonl").write_text(json.dumps(ROWS[0]))
    error = refused(folder)

    assert error.code == ExitCode.NO_INPUT
    assert "not more.jsonl" in error.why
    assert str(folder / "more.jsonl") in error.do
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in folder.glob("*.parquet"):
        file.rename(alone / file.name)
    assert dataset.check(alone).num_rows == 2500


@pytest.mark.parametrize(
    "held_out", ["test-00000-of-00001.parquet", "validation.parquet", "rows_eval.parquet"]
)
def test_parquet_files_of_several_splits_are_not_one_data_set(tmp_path, held_out):
    """Held-out rows would be trained on; shards of one split are one set."""
    folder = sharded(tmp_path / "rows", num_shards=2)
    assert dataset.check(folder).num_rows == 2500

    (folder / "train-00001-of-00002.parquet").rename(folder / held_out)
    error = refused(folder)

    assert error.what == f"{folder} holds several data sets"
    assert held_out in error.why


@pytest.mark.parametrize("names", [("0000", "0001"), ("a", "b"), ("train_1", "training_2")])
def test_other_names_of_parquet_files_are_parts_of_one_set(tmp_path, names):
    """Only words of their own say that a file is a split."""
    folder = sharded(tmp_path / "rows", num_shards=2)
    for file, name in zip(sorted(folder.iterdir()), names, strict=True):
        file.rename(folder / f"{name}.parquet")

    assert dataset.check(folder).num_rows == 2500


def test_a_shard_that_was_not_downloaded_is_told(tmp_path):
    """By the number that the names of the others give."""
    folder = sharded(tmp_path / "rows")
    (folder / "train-00001-of-00003.parquet").unlink()

    assert refused(folder).what == "the data set has 2 of the 3 files of train"


def test_of_many_data_sets_in_a_folder_the_number_is_told(tmp_path):
    """Five are named."""
    (tmp_path / "dataset_dict.json").write_text("{}")
    for n in range(7):
        (tmp_path / f"part{n}").mkdir()
        (tmp_path / f"part{n}" / "state.json").write_text("{}")

    assert refused(tmp_path).do.endswith(f"{tmp_path / 'part4'} or one of 2 more")
