"""What a user is told of sound rows that are not worth training on as they are."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
from data_files import word_tokenizer, write_rows

from profiles.data import dataset, leftovers
from profiles.data.encoding import of_folder
from profiles.errors import ExitCode, UserError


def pair(prompt, completion, **more):
    return {"prompt": prompt, "completion": completion, **more}


def looked(folder, rows, **options):
    return dataset.check(write_rows(folder, rows), **options)


# --- Texts ---


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (pair(" ", "a long enough reply"), "1 of 3 rows have a reply but nothing that it replies"),
        (pair("q", "short"), "1 of 3 rows have a reply shorter than 10 characters (first: line 3)"),
        (pair("q", "line<BR>line, <p>"), "1 of 3 rows hold HTML (first: line 3): <br>, <p>"),
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


@pytest.mark.parametrize("prompt", ["caf\ufffd", "a bell \a", "{{name}}", "<b>"])
def test_the_prompt_is_looked_at_too(tmp_path, prompt):
    """A sound reply behind it does not hide what is in it."""
    assert len(looked(tmp_path, [pair(prompt, "a sound reply, é")]).warnings) == 1


@pytest.mark.parametrize("text", ["one\r\ntwo\tthree", "an é and a 中", "a reply with a tilde ~"])
def test_what_texts_may_hold_is_not_told(tmp_path, text):
    """Line ends of any system, tabs, and letters of any script."""
    assert looked(tmp_path, [pair("q", text)]).warnings == ()


def test_delete_is_a_control_character(tmp_path):
    """The last of ASCII."""
    assert "control" in looked(tmp_path, [pair("q", "deleted \x7f here")]).warnings[0]


@pytest.mark.parametrize(
    ("reply", "is_short"), [("ten chars!", False), ("nine char", True), ("  nine char\n\n", True)]
)
def test_a_short_reply_is_one_below_ten_characters(tmp_path, reply, is_short):
    """White space around it does not count."""
    assert looked(tmp_path, [pair("q", reply)]).num_short_replies == is_short


@pytest.mark.parametrize(("num_short", "is_told"), [(2, True), (3, False)])
def test_short_replies_are_told_up_to_half_of_the_rows(tmp_path, num_short, is_told):
    """Where most are short, that is the task."""
    rows = [pair(f"q {n}", f"no {n}" if n < num_short else f"a longer reply {n}") for n in range(4)]

    assert bool(looked(tmp_path, rows).warnings) == is_told


def test_plain_texts_and_whole_dialogues_ask_nothing(tmp_path):
    """Neither is a reply without a prompt, and a text is no short reply."""
    found = looked(tmp_path, [{"text": "short"}])
    assert (found.num_one_sided, found.num_short_replies) == (0, 0)
    rows = [{"chosen": "q: why? a: because", "rejected": "q: why? a: no idea"}]
    assert dataset.inspect(write_rows(tmp_path, rows)).dataset.num_one_sided == 0


@pytest.mark.parametrize("column", [{}, {"tools": [{"name": "f"}]}])
def test_a_reply_to_nothing_is_told_whatever_is_read_before_it(tmp_path, column):
    """Tools ask nothing, nor does an earlier reply that is only read."""
    turns = [{"role": "assistant", "content": "A reply of some length.", "weight": 0}]
    turns.append({"role": "assistant", "content": "Another one of such length."})

    found = looked(tmp_path, [{"messages": turns} | column])

    assert found.num_one_sided == 1


@pytest.mark.parametrize(("question", "is_told"), [("", True), (" \n", True), ("q", False)])
def test_a_blank_turn_asks_nothing(tmp_path, question, is_told):
    """Whoever it is of."""
    for role in ("system", "user"):
        turns = [{"role": role, "content": question}]
        turns.append({"role": "assistant", "content": "A reply of some length."})
        assert looked(tmp_path, [{"messages": turns}]).num_one_sided == is_told


@pytest.mark.parametrize(("text", "is_told"), [(" ", True), ("", True), ("yes", False)])
def test_an_empty_reply_before_the_last_is_told(tmp_path, text, is_told):
    """A model learns from it to say nothing; one that calls a tool is not empty."""
    asks = {"role": "user", "content": "q"}
    call = {"tool_calls": [{"function": {"name": "f"}}]}
    last = {"role": "assistant", "content": "A reply of some length."}
    turns = [asks, last | call | {"content": None}, asks, last | {"content": text}, asks, last]

    found = looked(tmp_path, [{"messages": turns}])

    told = "1 of 1 rows have an empty reply before their last (first: line 1)"
    assert (told in found.warnings) == is_told
    found = looked(tmp_path, [{"messages": turns[3:]}])
    assert (told in found.warnings, found.num_one_sided) == (is_told, 0)


def test_five_things_are_named(tmp_path):
    """In order of appearance; of what else there is the number is told, and few take memory."""
    found = looked(tmp_path, [pair("q", " ".join(f"{{{{name{n}}}}}" for n in range(8)))])
    named = ", ".join(f"{{{{name{n}}}}}" for n in range(5))
    assert found.warnings == (
        f"1 of 1 rows hold placeholders that nobody filled in (first: line 1): {named} and 3 more",
    )
    count = leftovers.Count()
    for number in range(2000):
        count.add(number, [f"name {number}"])
    assert (count.num_rows, list(count.names)) == (2000, [f"name {n}" for n in range(1000)])


def test_a_thousand_labels_are_told_apart(tmp_path):
    """The commonest first."""
    rows = [{"text": f"text {n}", "label": n % 1500} for n in range(2000)]
    labels = dataset.inspect(write_rows(tmp_path, rows)).dataset.labels
    assert len(labels) == 1000
    assert labels[0] == ("0", 2)


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("한국어", {"CJK": 1}),
        ("ひらがな カタカナ", {"CJK": 1}),
        ("naïve", {"Latin": 1}),
        ("aжжж", {"Cyrillic": 3 / 4, "Latin": 1 / 4}),
        ("العربية", {"Arabic": 1}),
        ("123 — €", {}),
    ],
)
def test_only_scripts_that_are_there_have_a_share(tmp_path, text, expected):
    """The largest first; letters of both kinds of bytes count once."""
    scripts = looked(tmp_path, [{"text": text}]).scripts

    assert dict(scripts) == expected
    assert [name for name, _ in scripts] == list(expected)


# --- Keys and types ---


@pytest.mark.parametrize("between", ["\n", ""], ids=["one row", "two rows"])
def test_of_ascii_only_letters_are_counted(tmp_path, between):
    """No digits, white space of any kind, control characters or punctuation."""
    latin, cyrillic = "Two WORDS,\t12\r\n\v\f\x00\x7f <B>", "\u0442\u0435\u0441\u0442"
    texts = [latin + between + cyrillic] if between else [latin, cyrillic]

    scripts = dict(looked(tmp_path, [{"text": text} for text in texts]).scripts)

    assert scripts["Latin"] == len("TwoWORDSB") / len("TwoWORDSB" + cyrillic)


def test_a_key_that_changes_its_type_is_told_with_its_line(tmp_path):
    """In a key that is needed it is a fault, in another one a remark."""
    rows = [pair(f"p {n}", f"completion {n}", id=n) for n in range(9)]
    rows[4]["id"] = ["x"]

    found = looked(tmp_path, rows)

    assert "`id` is a list in 1 of 9 rows (first: line 5), else a number" in found.warnings
    assert found.columns[2].types == (("a number", 8, 1), ("a list", 1, 5))

    rows[6]["completion"] = 7
    with pytest.raises(UserError, match="have a number in `completion`, not a text") as caught:
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


def test_a_length_that_cuts_most_replies_off_refuses_the_file(tmp_path):
    """Measured it refuses, predicted it warns; a look says what is wrong in both cases."""
    rows = [pair("word " * 30, f"reply {n}") for n in range(3)] + [pair("word", "the reply")] * 2
    path, folder = write_rows(tmp_path, rows), word_tokenizer(tmp_path)
    expected = "3 of 5 examples have no trainable token at max_length 20; p95 length 32"

    with pytest.raises(UserError) as caught:
        dataset.check(path, encoder=of_folder(folder), max_length=20)

    assert (caught.value.what, caught.value.code) == (expected, ExitCode.BAD_DATA)
    found = dataset.inspect(path, encoder=of_folder(folder), max_length=20).dataset
    assert (found.problem, found.num_untrainable) == (expected, 3)
    assert "no trainable token" in dataset.check(path, max_length=20).warnings[0]


def test_a_few_lost_replies_are_counted(tmp_path):
    """They do not refuse the file."""
    rows = [pair("word " * 30, "reply")] + [pair("word", f"the reply {n}") for n in range(9)]

    found = looked(tmp_path, rows, encoder=of_folder(word_tokenizer(tmp_path)), max_length=20)

    told = "1 of 10 rows are left out, for nothing is learnt within max_length 20 (p95 31, "
    assert found.warnings[0].startswith(told)
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


# --- Chat template ---


def turn(role, content):
    return {"role": role, "content": content}


CHATML = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>\n{% endfor %}"
BARE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
MARKED = (
    "{%- for m in messages -%}{%- generation -%}{{ m['content'] }}{%- endgeneration -%}"
    "{{ eos_token }}{%- endfor -%}"
)


@pytest.mark.parametrize(
    ("template", "eos", "is_told"),
    [
        (CHATML, "", False),
        (BARE, "", True),
        (BARE + "[END]", "[END]", False),
        (MARKED, "", True),
        (MARKED, "[END]", False),
    ],
)
def test_replies_that_end_with_no_mark_are_told(tmp_path, template, eos, is_told):
    """A model does not learn from them where to stop."""
    word_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    (tmp_path / "chat_template.jinja").write_text(template)
    rows = [{"messages": [turn("user", f"q {n}"), turn("assistant", "a")]} for n in range(3)]

    found = looked(tmp_path, rows, encoder=of_folder(tmp_path))

    told = [one for one in found.warnings if "will not learn to stop" in one]
    assert [one.startswith("3 of 3 rows end with no mark") for one in told] == [True] * is_told


def test_of_three_types_in_one_key_the_rarest_is_told(tmp_path):
    """Against the commonest."""
    values = ["a"] * 5 + [1] * 3 + [[1]]
    rows = [pair(f"q {n}", f"a {n}") | {"id": value} for n, value in enumerate(values)]

    (told,) = [w for w in looked(tmp_path, rows).warnings if w.startswith("`id`")]

    assert told == "`id` is a list in 1 of 9 rows (first: line 9), else a text"
