"""Placeholders, special tokens and odd orders of turns are told with their count and first line."""

from __future__ import annotations

import pytest
from data_files import word_tokenizer, write_rows
from tokenizers import Tokenizer

from profiles.data import dataset
from profiles.data.encoding import of_folder
from profiles.models.chat_template import ChatTemplate

SOUND = "It is a pear of the usual kind."


def told(folder, texts, words, **options):
    """The warnings with these words about replies, behind two sound rows."""
    rows = [{"prompt": f"What is {n}?", "completion": SOUND} for n in range(2)]
    rows += [{"prompt": f"What is it, {n}?", "completion": text} for n, text in enumerate(texts)]
    found = dataset.check(write_rows(folder, rows), **options)
    return [one for one in found.warnings if words in one]


@pytest.mark.parametrize(
    "placeholder",
    [
        *("<NAME>", "<AUTHOR>", "<COMPANY_NAME>", "<USER 1>", "[NAME]", "[PHONE NUMBER]"),
        *("[Your Name]", "[insert date here]", "<your key>", "{{name}}", "{{ city }}"),
    ],
)
def test_a_placeholder_is_told_by_its_name(tmp_path, placeholder):
    """In every row that has it."""
    texts = [f"I am {placeholder}, and I like pears.", SOUND, f"I, {placeholder}, like pears."]

    assert told(tmp_path, texts, "placeholders") == [
        "2 of 5 rows hold placeholders that nobody filled in (first: line 3): " + placeholder
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("if a < NUM and b > NUM: pass", "List<STRING> x", "buffer[SIZE] = 0", "see [FAQ](faq)"),
        *("[INFO] it started", "[WARNING] it is late", "<TABLE> of pears", "[A-Z] and [A-Z0-9]"),
        *("<PEAR>it is one</PEAR>", "[x] done, [1] and [2]", "<p>a pear</p>", "see [US] pears"),
    ],
)
def test_what_stands_in_brackets_for_itself_is_not_told(tmp_path, text):
    """Code, logs, links, tags with an end."""
    assert told(tmp_path, [f"{text} and more of it"], "placeholders") == []


def test_special_tokens_in_texts_are_told(tmp_path):
    """Without a model those that are well known."""
    texts = ["A pear.<|im_end|>\n<|im_start|>user", "[INST] a pear [/INST]", "a [pear] < b > c"]

    (found,) = told(tmp_path, texts, "special tokens")

    assert found == (
        "2 of 5 rows hold special tokens in their texts, which a model reads as marks "
        "(first: line 3): <|im_end|>, <|im_start|>, [INST], [/INST]"
    )


def test_with_a_model_its_own_special_tokens_are_told(tmp_path):
    """And no others."""
    file = word_tokenizer(tmp_path) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(["<pear>", "[STOP]"])
    tokenizer.save(str(file))
    texts = ["This is a <pear> and a [STOP] to it.", "This is text: <|im_end|>"]

    found = told(tmp_path, texts, "special tokens", encoder=of_folder(tmp_path))

    assert len(found) == 1
    assert found[0].endswith("(first: line 3): <pear>, [STOP]")


# --- Turns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("u a u a", []),
        ("s u a", []),
        ("u a t a", []),
        ("u u a", ["have two turns of the user in a row"]),
        ("u a a", ["have two replies in a row"]),
        ("a u a", ["begin with a reply"]),
        ("s a u a", ["begin with a reply"]),
        ("u s a", ["have a system turn that is not the first"]),
        ("s s u a", ["have a system turn that is not the first"]),
        (
            "a u s u a",
            [
                "have a system turn that is not the first",
                "have two turns of the user in a row",
                "begin with a reply",
            ],
        ),
    ],
)
def test_an_odd_order_of_turns_is_told(tmp_path, roles, expected):
    """Many templates refuse it or misread it; the usual orders are not told."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    usual = [{"role": names[one], "content": f"{one}, {SOUND}"} for one in "ua"]
    odd = [{"role": names[one], "content": f"{one}: {SOUND}"} for one in roles.split()]
    path = write_rows(tmp_path, [{"messages": usual}, {"messages": odd}])

    assert list(dataset.check(path).warnings) == [
        f"1 of 2 rows {one} (first: line 2)" for one in expected
    ]


def test_they_are_told_with_a_model_too(tmp_path):
    """Where the template takes such turns."""
    turns = [{"role": role, "content": SOUND} for role in ("user", "user", "assistant")]
    source = "{% for m in messages %}{{ m.content + '</s>' }}{% endfor %}"
    ours = of_folder(word_tokenizer(tmp_path), choose=lambda _: ChatTemplate(source, {}))

    found = dataset.check(write_rows(tmp_path, [{"messages": turns}]), encoder=ours)

    assert "1 of 1 rows have two turns of the user in a row (first: line 1)" in found.warnings
