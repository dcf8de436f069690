"""What a user is told of a whole data file: its faulty rows and its counts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from data_files import GOOD, refused, write, write_rows

from profiles.data.dataset import check, read_examples
from profiles.errors import UserError


def test_faults_are_counted_per_kind(tmp_path: Path) -> None:
    """The whole file is read, then every kind of fault is told once, with its first place."""
    rows = [GOOD] * 3 + [{"prompt": "p"}] * 2 + [{"prompt": "p", "completion": ["c"]}]
    error = refused(write_rows(tmp_path, rows))
    expected = (
        "2 of 6 rows lack `completion` (first: line 4); "
        "1 of 6 rows have a list in `completion`, not a text (first: line 6)"
    )
    assert expected == error.what
    assert error.where.endswith("train.jsonl:4")


def test_skip_leaves_out_a_few(tmp_path: Path) -> None:
    """Up to a tenth of faulty rows or lines can be left out, and that is told."""
    lines = [json.dumps({**GOOD, "prompt": str(number)}) for number in range(18)]
    path = write(tmp_path, "\n".join([*lines, '{"prompt": "p"}', "{bad}"]) + "\n")
    found = check(path, on_bad="skip")
    assert found.num_rows == 18
    assert "left out: 1 of 20 rows lack `completion` (first: line 19)" in found.warnings[0]
    assert "1 of 20 rows are not JSON (first: line 20)" in found.warnings[0]


def test_skip_refuses_many(tmp_path: Path) -> None:
    """More than a tenth of faulty rows is an error even when rows may be left out."""
    error = refused(write_rows(tmp_path, [GOOD] * 17 + [{"prompt": "p"}] * 2), on_bad="skip")
    assert "2 of 19 rows lack `completion`" in error.what


def test_read_examples_tells_faults_at_the_end(tmp_path: Path) -> None:
    """Iterating gives the good rows with their places first and raises after the last."""
    path = write(tmp_path, json.dumps([GOOD, {"prompt": "p"}, GOOD], indent=1), "a.json")
    places = []
    with pytest.raises(UserError) as caught:
        places.extend(place for place, _ in read_examples(path))
    assert [f"{path}:2 (row 1)", f"{path}:9 (row 3)"] == places
    assert "1 of 3 rows lack" in caught.value.what


def test_many_kinds_are_summed_up(tmp_path: Path) -> None:
    """Faults that differ in every row do not fill the memory or the screen."""
    rows = [{"messages": [{"role": f"r{number}", "content": ""}]} for number in range(100)]
    assert "80 of 100 rows have other faults" in refused(write_rows(tmp_path, rows)).what


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Text of the file that is shown cannot move the cursor."""
    row = {"messages": [{"role": "\x1b[2J", "content": ""}]}
    assert "`\\x1b[2J`" in refused(write_rows(tmp_path, [row])).what


def test_counts(tmp_path: Path) -> None:
    """Rows, empties, repeats, tasks, bytes and the hash are those of the file."""
    rows = [
        {**GOOD, "task": "a"},
        {**GOOD, "task": "b"},
        {"prompt": "p", "completion": " \n"},
        {"prompt": "pc", "completion": ""},
        {"prompt": "", "completion": "pc", "task": "a"},
    ]
    path = write_rows(tmp_path, rows)
    found = check(path)
    assert (
        found.format,
        found.num_rows,
        found.num_empty,
        found.num_duplicates,
        found.num_tasks,
    ) == ("prompt_completion", 3, 2, 1, 2)
    data = path.read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (found.num_bytes, found.sha256)
    assert str(path) == found.path
    assert any("2 of 5 rows have an empty reply" in warning for warning in found.warnings)
    assert any("1 of 3 rows repeat" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_hash_covers_the_whole_file(tmp_path: Path, name: str) -> None:
    """White space after the last row is part of the hash."""
    text = json.dumps([GOOD]) if name == "a.json" else json.dumps(GOOD)
    path = write(tmp_path, text + "\n \n" * 9, name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == check(path).sha256


def test_repeats_are_not_confused(tmp_path: Path) -> None:
    """The same letters cut differently between prompt and completion are not a repeat."""
    rows = [{"prompt": "a", "completion": "bc"}, {"prompt": "ab", "completion": "c"}]
    assert check(write_rows(tmp_path, rows)).num_duplicates == 0


def test_all_empty(tmp_path: Path) -> None:
    """A file in which every reply is empty has nothing to train on."""
    error = refused(write_rows(tmp_path, [{"text": " "}]))
    assert (error.what, error.why) == ("0 usable examples", "all 1 rows have an empty reply")


def test_warnings(tmp_path: Path) -> None:
    """Tools, unused columns and unfilled placeholders are told."""
    turns = [{"role": "assistant", "content": "I am {{name}} by {{ author }}"}]
    found = check(write_rows(tmp_path, [{"messages": turns, "tools": "[]", "id": 7}]))
    unfilled = "1 of 1 rows hold placeholders that nobody filled in (first: line 1)"
    expected = (
        "1 of 1 rows have a reply but nothing that it replies to (first: line 1)",
        f"{unfilled}: {{{{name}}}}, {{{{ author }}}}",
        "1 rows have `tools`, which are not used",
        "columns that are not used: `id`",
    )
    assert expected == found.warnings
