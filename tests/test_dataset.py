"""What a user is told of a whole data file: its faulty rows and its counts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from data_files import GOOD, refused, word_tokenizer, write, write_rows

from profiles.data import dataset
from profiles.data.dataset import check, read_examples
from profiles.data.encoding import of_folder
from profiles.errors import UserError
from profiles.facts import Origin


def test_faults_are_counted_per_kind(tmp_path: Path) -> None:
    """The whole file is read, then every kind of fault is told once, with its first place."""
    rows = [GOOD] * 3 + [{"prompt": "p"}] * 2 + [{"prompt": "p", "completion": 7}]
    error = refused(write_rows(tmp_path, rows))
    expected = (
        "2 of 6 rows lack `completion` (first: line 4); "
        "1 of 6 rows have a number in `completion`, not a text (first: line 6)"
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


def test_faults_that_are_as_frequent_are_told_in_the_order_of_the_file(tmp_path):
    """The place is that of the first row of all."""
    rows = [GOOD, {"prompt": "p"}, {"prompt": 1, "completion": "c"}, GOOD]
    error = refused(write_rows(tmp_path, rows))
    assert error.what == (
        "1 of 4 rows lack `completion` (first: line 2); "
        "1 of 4 rows have a number in `prompt`, not a text (first: line 3)"
    )
    assert error.where.endswith(":2")
    more = [GOOD, {"prompt": "p"}, *[{"prompt": 1.5}] * 2]
    error = refused(write_rows(tmp_path, more))
    assert error.where.endswith(":2")
    assert error.what.startswith("2 of 4 rows have a number in `prompt`")


def test_read_examples_tells_faults_at_the_end(tmp_path: Path) -> None:
    """Iterating gives the good rows with their places first and raises after the last."""
    path = write(tmp_path, json.dumps([GOOD, {"prompt": "p"}, GOOD], indent=1), "a.json")
    places = []
    with pytest.raises(UserError) as caught:
        places.extend((row.line, row.number) for row in read_examples(path))
    assert places == [(2, 1), (9, 3)]
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


def test_each_count_is_its_own(tmp_path):
    """Of repeats, near repeats, other replies, rows without a prompt, short replies and HTML."""

    def pair(prompt, completion):
        return {"prompt": prompt, "completion": completion}

    sound = [pair(f"what is {number}?", f"it is the number {number}") for number in range(9)]
    rows = [
        *sound,
        sound[0],
        *[pair("WHAT is 1?", "it is  the number 1"), pair("what is 2? ", "it is the number 2")],
        *[pair(f"what is {number}?", "it is a number, too") for number in (3, 4, 5)],
        *[pair("", f"only a long reply {number}") for number in range(4)],
        *[pair(f"how is {number}?", "fine") for number in range(5)],
        *[pair(f"where is {number}?", "<p>here it is</p>") for number in range(6)],
    ]

    found = check(write_rows(tmp_path, rows))

    repeats = (found.num_duplicates, found.num_near_duplicates, found.num_conflicts)
    assert repeats == (1, 2, 3)
    assert (found.num_one_sided, found.num_short_replies, found.num_html) == (4, 5, 6)
    assert found.num_tasks == 1


def test_a_large_file_is_counted_without_the_tokenizer(tmp_path):
    """It would take minutes; that is told where there is one."""
    path, folder = write_rows(tmp_path, [GOOD]), word_tokenizer(tmp_path)
    told = "a large file: token counts are predicted, `advisor data check` measures"

    def counted(limit, tokenizer=folder):
        encoder = tokenizer and of_folder(tokenizer)
        found = check(path, encoder=encoder, count_up_to_bytes=limit)
        assert found.tokens is not None
        return found.tokens.origin, told in found.warnings

    size = path.stat().st_size
    assert counted(size - 1) == (Origin.PREDICTED, True)
    assert counted(size) == (Origin.MEASURED, False)
    assert counted(None) == (Origin.MEASURED, False)
    assert counted(size - 1, None) == (Origin.PREDICTED, False)


def test_what_keeps_a_file_from_training_is_told_first(tmp_path):
    """Before what may be looked at later."""
    rows = [{"prompt": "a" * 400, "completion": "short"}] * 2
    first, *others = check(write_rows(tmp_path, rows), max_length=50).warnings
    assert first.startswith("2 of 2 examples have no trainable token")
    assert any("repeat an earlier row" in one for one in others)


def test_the_format_is_that_of_most_of_the_first_rows(tmp_path, monkeypatch):
    """Of fewer rows where they are giants, for they are held in memory."""
    rows = [{"text": "t" * 50}] * 2 + [GOOD] * 9
    assert "2 of 11 rows look like text, not prompt_completion" in (
        refused(write_rows(tmp_path, rows)).what
    )
    assert "not text" not in refused(write_rows(tmp_path, [rows[0], *[GOOD] * 19, rows[0]])).what
    monkeypatch.setattr(dataset, "FIRST_BYTES", 100)
    assert "9 of 11 rows look like prompt_completion, not text" in (
        refused(write_rows(tmp_path, rows)).what
    )


def test_lines_that_are_not_json_stop_at_the_first_unless_they_may_be_left_out(tmp_path):
    """Its place is told with its column."""
    path = write(tmp_path, '{"text": "a"}\n{bad}\n{worse}\n')
    assert refused(path).where.endswith(":2:2")
    assert "2 of 3 rows are not JSON" in refused(path, on_bad="skip").what
    path = write(tmp_path, "{bad}\n" + '{"text": "a"}\n' * 20)
    found = check(path, on_bad="skip")
    assert (found.num_rows, found.num_bad) == (20, 1)


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
    assert refused(write(tmp_path, "")).why == "the file is empty"
    assert refused(write(tmp_path, "[]")).why == "there is no row in the file"


def test_warnings(tmp_path: Path) -> None:
    """Unused columns and unfilled placeholders are told."""
    turns = [{"role": "assistant", "content": "I am {{name}} by {{ author }}"}]
    found = check(write_rows(tmp_path, [{"messages": turns, "tools": "[]", "id": 7}]))
    unfilled = "1 of 1 rows hold placeholders that nobody filled in (first: line 1)"
    expected = (
        "1 of 1 rows have a reply but nothing that it replies to (first: line 1)",
        f"{unfilled}: {{{{name}}}}, {{{{ author }}}}",
        "columns that are not used: `id`",
    )
    assert expected == found.warnings


def test_only_what_is_in_the_rows_is_told_as_unused(tmp_path):
    """No empty tools, no key with a meaning of its own, and of nine names eight."""
    found = check(write_rows(tmp_path, [GOOD | {"tools": [], "task": ["not a name"]}]))
    assert found.num_tasks == 1
    assert not any("not used" in one for one in found.warnings)
    found = check(write_rows(tmp_path, [GOOD | {f"key {number}": 1 for number in range(9)}]))
    names = ", ".join(f"`key {number}`" for number in range(8))
    assert f"columns that are not used: {names} and 1 more" in found.warnings


def test_null_is_no_other_type(tmp_path):
    """It stands for a key that is not there; where rows are left out, types are no news."""
    rows = [GOOD | {"prompt": f"{n}", "id": n if n % 2 else None} for n in range(20)]
    assert not any("`id` is" in one for one in check(write_rows(tmp_path, rows)).warnings)
    rows[0] |= {"id": "a text"}
    assert any("`id` is" in one for one in check(write_rows(tmp_path, rows)).warnings)
    rows[1] |= {"completion": 7}
    found = check(write_rows(tmp_path, rows), on_bad="skip")
    assert found.num_bad == 1
    assert not any("` is " in one for one in found.warnings)
