"""What a user is told of sound rows that are not worth training on as they are."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
from data_files import write_rows

from profiles.data import dataset
from profiles.errors import ExitCode, UserError
from profiles.models import chat_template


def pair(prompt, completion, **more):
    return {"prompt": prompt, "completion": completion, **more}


def looked(folder, rows, **options):
    return dataset.check(write_rows(folder, rows), **options)


# --- Repeats ---


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
    rows = [{"text": "fine", "label": 0}, {"text": "Fine", "label": 1}]
    assert dataset.inspect(write_rows(tmp_path, rows)).dataset.num_conflicts == 1
    rows = [{"prompt": "q", "chosen": f"yes {n}", "rejected": "no"} for n in range(4)]
    assert dataset.inspect(write_rows(tmp_path, rows)).dataset.num_conflicts == 0


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


# --- Texts ---


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (pair(" ", "a long enough reply"), "1 of 3 rows have a reply but nothing that it replies"),
        (pair("q", "short"), "1 of 3 rows have a reply shorter than 10 characters (first: line 3)"),
        (pair("q", "line<BR>line, <p>"), "1 of 3 rows hold HTML (first: line 3): <br>"),
        (pair("q", "fish &amp; chips"), "1 of 3 rows hold HTML (first: line 3): &amp;"),
        (pair("q", "a bell \a in the text"), "1 of 3 rows hold control characters (first: line 3)"),
        (pair("q", "caf\ufffd au lait"), "1 of 3 rows hold U+FFFD"),
        (pair("q", "I am {{name}}, hello"), "rows hold placeholders that nobody filled in"),
    ],
)
def test_what_is_left_in_texts_is_told_with_its_line(tmp_path, row, sentence):
    """Rows without it are not counted."""
    rows = [pair(f"why {n}?", f"because of number {n}") for n in range(2)]

    found = looked(tmp_path, [*rows, row]).warnings

    assert len(found) == 1
    assert sentence in found[0]


@pytest.mark.parametrize("text", ["if a < b and c > d:", "List<String> x", "<think> so </think>"])
def test_what_only_looks_like_html_is_not_told(tmp_path, text):
    """Comparisons, generic types and the marks of reasoning."""
    assert looked(tmp_path, [pair("q", text)]).num_html == 0


def test_short_replies_are_no_fault_where_they_are_the_task(tmp_path):
    """They are counted all the same."""
    found = looked(tmp_path, [pair(f"is {n} even?", "yes") for n in range(9)])

    assert (found.num_short_replies, found.warnings) == (9, ())


def test_the_scripts_of_the_letters_are_counted(tmp_path):
    """By letters, so that marks and digits do not count."""
    rows = [{"text": "abcd! 123"}, {"text": "при"}, {"text": "中文。"}, {"text": "αé"}]

    shares = dict(looked(tmp_path, rows).scripts)

    expected = {"Latin": 5 / 11, "Cyrillic": 3 / 11, "CJK": 2 / 11, "other": 1 / 11}
    assert shares == pytest.approx(expected)


# --- Keys and types ---


def test_a_key_that_changes_its_type_is_told_with_its_line(tmp_path):
    """In a key that is needed it is a fault, in another one a remark."""
    rows = [pair(f"p {n}", f"completion {n}", id=n) for n in range(9)]
    rows[4]["id"] = ["x"]

    found = looked(tmp_path, rows)

    assert "`id` is a list in 1 of 9 rows (first: line 5), else a number" in found.warnings
    assert found.columns[2].types == (("a number", 8, 1), ("a list", 1, 5))

    rows[6]["completion"] = ["x"]
    with pytest.raises(UserError, match="have a list in `completion`, not a text") as caught:
        looked(tmp_path, rows)
    assert "(first: line 7)" in caught.value.what


def test_missing_keys_are_counted(tmp_path):
    """With the first line, over the whole file."""
    rows = [pair(f"p {n}", "c") for n in range(900)]
    for row in rows[17::20]:
        del row["completion"]

    with pytest.raises(UserError, match="45 of 900 rows lack `completion`") as one:
        looked(tmp_path, rows)

    assert "(first: line 18)" in one.value.what
    assert one.value.code is ExitCode.BAD_DATA


def test_very_many_keys_in_a_row_are_read(tmp_path):
    """Only the first are told apart, and no name is searched among all."""
    row = {f"k{n}": n for n in range(200_000)}
    path = write_rows(tmp_path, [row])

    with pytest.raises(UserError, match="no known data format"):
        dataset.check(path)

    assert len(dataset.check(write_rows(tmp_path, [pair("p", "c") | row])).columns) == 64


# --- Lengths ---


def word_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_length_that_cuts_most_replies_off_refuses_the_file(tmp_path):
    """Measured it refuses, predicted it warns; a look says what is wrong in both cases."""
    rows = [pair("word " * 30, f"reply {n}") for n in range(3)] + [pair("word", "the reply")] * 2
    path, folder = write_rows(tmp_path, rows), word_tokenizer(tmp_path)
    expected = "3 of 5 examples have no trainable token at max_length 20; p95 length 32"

    with pytest.raises(UserError) as caught:
        dataset.check(path, tokenizer_path=folder, max_length=20)

    assert (caught.value.what, caught.value.code) == (expected, ExitCode.BAD_DATA)
    found = dataset.inspect(path, tokenizer_path=folder, max_length=20).dataset
    assert (found.problem, found.num_untrainable) == (expected, 3)
    assert "no trainable token" in dataset.check(path, max_length=20).warnings[0]


def test_a_few_lost_replies_are_counted(tmp_path):
    """They do not refuse the file."""
    rows = [pair("word " * 30, "reply")] + [pair("word", f"the reply {n}") for n in range(9)]

    found = looked(tmp_path, rows, tokenizer_path=word_tokenizer(tmp_path), max_length=20)

    assert "1 of them lose their whole reply, so that nothing is learnt from them" in found.warnings
    assert found.tokens is not None
    assert found.tokens.longest_line == 1


def test_a_huge_line_is_read_in_bounded_memory_and_told(tmp_path):
    """40 MB in one row, with at most 1 GB of address space above what Python takes."""
    path = write_rows(tmp_path, [pair("p", "c"), pair("q", "x y " * 10_000_000)])

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    code = (
        "import sys; from profiles.data import dataset\n"
        "print(dataset.check(sys.argv[1], max_length=4096).warnings[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )

    expected = "line 2: 40 MB, ~10 M tokens, will be truncated to 4096 (99.9 % lost)"
    assert done.stdout.strip() == expected, done.stderr


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


# --- Chat template ---

CHATML = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
BARE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
MARKED = (
    "{%- for m in messages -%}{%- generation -%}{{ m['content'] }}{%- endgeneration -%}"
    "{{ eos_token }}{%- endfor -%}"
)


@pytest.mark.parametrize(
    ("config", "file", "words"),
    [
        ({}, None, ["no chat template"]),
        ({"chat_template": CHATML}, None, []),
        ({}, CHATML, []),
        ({"chat_template": [{"name": "default", "template": CHATML}]}, None, []),
        ({"chat_template": BARE}, None, ["no end mark after a reply", "not learn to stop"]),
        ({"chat_template": BARE + "[END]", "eos_token": "[END]"}, None, []),
        ({"chat_template": BARE + "[END]", "eos_token": {"content": "[END]"}}, None, []),
        ({"chat_template": MARKED}, None, ["no end mark in the part of a reply that is learnt"]),
        ({"chat_template": CHATML}, BARE, ["no end mark"]),
    ],
)
def test_what_a_chat_template_lacks_is_told(tmp_path, config, file, words):
    """No template, or one by whose replies a model does not learn where to stop."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if file is not None:
        (tmp_path / "chat_template.jinja").write_text(file)

    found = chat_template.warnings(tmp_path)

    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)
