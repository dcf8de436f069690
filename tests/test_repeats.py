"""Which rows a user is told to repeat or contradict others, and what finding them takes."""

from __future__ import annotations

import subprocess
import sys

from data_files import write_rows

from profiles.data import dataset


def pair(prompt, completion):
    return {"prompt": prompt, "completion": completion}


def looked(folder, rows, **options):
    return dataset.check(write_rows(folder, rows), **options)


def test_repeats_are_told_apart(tmp_path):
    """Exact ones, ones but for white space and case, and other replies to the same prompt."""
    rows = [
        pair("What is it?", "It is a question."),
        pair("Who are you?", "I am a program."),
        pair("What is it?", "It is a question."),
        pair("what  is it?\n", "IT is a question."),
        pair("Who are you?", "I am a person, honestly."),
    ]

    found = looked(tmp_path, rows)

    assert (found.num_duplicates, found.num_near_duplicates, found.num_conflicts) == (1, 1, 1)
    assert found.warnings == (
        "1 of 5 rows ask what an earlier row asks, and answer otherwise (first: line 5, as line 2)",
        "1 of 5 rows repeat an earlier row exactly (first: line 3, as line 1)",
        "1 of 5 rows repeat an earlier row but for white space and case (first: line 4, as line 1)",
    )


def test_texts_without_a_prompt_do_not_contradict_each_other(tmp_path):
    """Nothing is asked in them."""
    assert looked(tmp_path, [{"text": f"text {n}"} for n in range(9)]).num_conflicts == 0
    assert looked(tmp_path, [pair("", f"reply {n}") for n in range(9)]).num_conflicts == 0


def test_a_label_that_changes_is_a_contradiction(tmp_path):
    """One text in two classes; many pairs to one prompt are no fault."""

    def counts(rows):
        found = dataset.inspect(write_rows(tmp_path, rows)).dataset
        return found.num_duplicates, found.num_near_duplicates, found.num_conflicts

    assert counts([{"text": "fine", "label": 0}, {"text": "Fine", "label": 1}]) == (0, 0, 1)
    assert counts([{"text": "fine", "label": 0}, {"text": "fine", "label": 1}]) == (0, 0, 1)
    pairs = [{"prompt": "q", "chosen": f"yes {n}", "rejected": "no"} for n in range(4)]
    assert counts([*pairs, pairs[0] | {"rejected": "never"}]) == (0, 0, 0)


def test_a_pair_that_chooses_what_it_rejects_is_told(tmp_path):
    """Nothing can be preferred."""
    rows = [{"prompt": "q", "chosen": "the same", "rejected": "the same"}]

    found = dataset.inspect(write_rows(tmp_path, rows)).dataset

    assert "1 of 1 pairs choose and reject the same text (first: line 1)" in found.warnings


def test_rows_of_the_evaluation_that_are_trained_on_are_counted(tmp_path):
    """Exactly, but for white space, or by their prompt alone."""
    train = write_rows(tmp_path, [pair(f"question {n}", f"answer {n}") for n in range(50)])
    held_out = write_rows(
        tmp_path,
        [
            pair("question 7", "answer 7"),
            pair("Question  8", "answer 8"),
            pair("question 9", "another"),
            pair("question 99", "answer 99"),
        ],
        "eval.jsonl",
    )

    leak = dataset.inspect(held_out).leaks_from(dataset.inspect(train))

    assert (leak.exact.count, leak.near.count, leak.prompt.count) == (1, 1, 1)
    assert (leak.exact.line, leak.exact.other_line) == (1, 8)
    checked = dataset.check_to_train(held_out).compared_with(dataset.check_to_train(train))
    assert "2 rows of the evaluation are also trained on" in checked.dataset.warnings


def test_who_says_a_text_is_part_of_it(tmp_path):
    """A system turn is no question."""
    reply = {"role": "assistant", "content": "a good answer"}
    rows = [
        {"messages": [{"role": role, "content": "be brief"}, reply]} for role in ("system", "user")
    ]

    found = looked(tmp_path, rows)

    assert found.num_duplicates == 0


def test_case_is_no_difference_in_any_script(tmp_path):
    """Beyond ASCII too, and white space is none."""
    rows = [pair("ÜBER КОГО?", "eine gute Frage"), pair("über кого?", "Eine  gute Frage")]

    assert looked(tmp_path, rows).num_near_duplicates == 1


def test_the_first_row_is_told_that_repeats_one_and_the_first_that_it_repeats(tmp_path):
    """Whatever the order in which they are found."""
    rows = [pair(f"question {n}", f"the answer is {n}") for n in range(100)]

    found = looked(tmp_path, rows + rows[::-1] + rows)

    told = "200 of 300 rows repeat an earlier row exactly (first: line 101, as line 100)"
    assert told in found.warnings
    train = dataset.inspect(write_rows(tmp_path, rows + rows[::-1]))
    held_out = dataset.inspect(write_rows(tmp_path, rows[7:8], "eval.jsonl"))
    assert held_out.leaks_from(train).exact.other_line == 8


PEAK = """
import json, re, sys
from pathlib import Path
from profiles.data import dataset
from profiles.data.repeats import RowHashes, RowIndex
def peak_bytes():  # not getrusage: that begins with the peak of the process that forked
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def in_a_process_of_its_own(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PEAK + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return list(map(int, done.stdout.split()))


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A file of ten times the rows takes 28 bytes a row more, and what an array keeps to spare."""
    code = """
def check(num_rows):
    with open(sys.argv[1], "w") as file:
        for n in range(num_rows):
            row = {"prompt": f"question {n}", "completion": f"the answer is {n}"}
            file.write(json.dumps(row) + "\\n")
    dataset.check(sys.argv[1])
check(4_000)
before = peak_bytes()
check(40_000)
print(peak_bytes() - before)
"""
    (num_bytes,) = in_a_process_of_its_own(code, tmp_path / "rows.jsonl")

    assert num_bytes < 36_000 * 60


def test_finding_repeats_takes_little_memory_besides():
    """300,000 rows, every third of them a repeat."""
    code = """
before = peak_bytes()
index = RowIndex()
for number in range(300_000):
    prompt = hash(f"row {number - number % 3 // 2}")
    index.add(RowHashes(exact=prompt, prompt=prompt, reply=7), number)
print(index.repeats().exact.count, peak_bytes() - before)
"""
    num_repeats, num_bytes = in_a_process_of_its_own(code)

    assert num_repeats == 100_000
    assert num_bytes < 300_000 * 60
