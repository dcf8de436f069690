"""Preference pairs and labelled texts: how they are read, and that no fine-tuning takes them."""

from __future__ import annotations

import json

import pytest
from data_files import examples, refused, write, write_rows

from profiles.data import dataset
from profiles.data.formats.spec import Example, Message
from profiles.errors import UserError


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


ASKED = [{"role": "user", "content": "q"}]
YES, NO = [{"role": "assistant", "content": text} for text in ("yes", "no")]
PAIRS = {
    "texts": {"prompt": "q", "chosen": "yes", "rejected": "no"},
    "no prompt": {"chosen": "q yes", "rejected": "q no"},
    "turns": {"prompt": ASKED, "chosen": [YES], "rejected": [NO]},
    "whole": {"chosen": [*ASKED, YES], "rejected": [*ASKED, NO]},
    "whole with prompt": {"prompt": "q", "chosen": [*ASKED, YES], "rejected": [*ASKED, NO]},
    "text and turns": {"prompt": "q", "chosen": [YES], "rejected": [NO]},
    "turns and texts": {"prompt": ASKED, "chosen": "yes", "rejected": "no"},
    "alpaca": {"instruction": "q", "input": "", "chosen": "yes", "rejected": "no"},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no"},
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_preference_pairs_are_counted_and_not_trained_on(tmp_path, name):
    """All ways to write a pair are understood; training says what it would need."""
    path = write(tmp_path, json.dumps(PAIRS[name]) + "\n", "a.jsonl")

    found = dataset.inspect(path).dataset

    assert (found.format, found.num_rows) == ("preference", 1)
    assert found.problem == "needs preference training (DPO), which this version does not run"
    with pytest.raises(UserError, match="preference training"):
        examples(path)
    assert "`chosen` replies as `output`" in refused(path).do


def test_a_pair_is_read_for_the_task_that_it_is_for(tmp_path):
    """The better reply where replies stand, the worse one beside it, and what both answer."""
    read = {
        name: examples(write_rows(tmp_path, [row]), kinds=("preference",))[0]
        for name, row in PAIRS.items()
    }

    chat = Example(messages=(_user("q"), _assistant("yes")), rejected="no")
    assert read.pop("texts") == Example(prompt="q", completion="yes", rejected="no")
    assert read.pop("no prompt") == Example(prompt="q", completion=" yes", rejected=" no")
    assert read.pop("alpaca") == Example(prompt="q", completion="yes", rejected="no")
    assert read == dict.fromkeys(read, chat)


DIALOGUE = "\n\nHuman: why?\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        (f"{DIALOGUE} because", f"{DIALOGUE} bah", DIALOGUE),
        (f"{DIALOGUE} so it is", f"{DIALOGUE} so", DIALOGUE),
        ("yes", "no", ""),
        ("it is", "it was", "it"),
        ("as it is", "as it is", ""),
        ("it is ", "it is so", ""),
    ],
)
def test_what_pairs_without_a_prompt_begin_with_is_not_learnt(tmp_path, chosen, rejected, prompt):
    """Whole words; it is told, and a reply stays one."""
    path = write_rows(tmp_path, [{"chosen": chosen, "rejected": rejected}])

    (found,) = examples(path, kinds=("preference",))

    assert found.prompt == prompt
    assert (found.prompt + found.completion, found.prompt + found.rejected) == (chosen, rejected)
    told = " ".join(dataset.inspect(path).dataset.warnings)
    assert ("have no prompt: the words that both replies begin with" in told) == bool(prompt)


def test_a_pair_may_have_a_system_turn_and_an_empty_prompt(tmp_path):
    """An empty turn is left out; a pair with an empty reply has nothing to prefer."""
    row = {"prompt": "", "system": "s", "chosen": [YES], "rejected": [NO]}
    path = write_rows(tmp_path, [row, {"prompt": "q", "chosen": "yes", "rejected": " "}])

    found = dataset.inspect(path).dataset

    assert (found.num_rows, found.num_empty) == (1, 1)
    assert "columns that are not used" not in " ".join(found.warnings)
    turns = (Message(role="system", content="s"), _assistant("yes"))
    assert examples(path, kinds=("preference",)) == [Example(messages=turns, rejected="no")]


def test_turns_of_a_pair_may_be_json_in_a_table(tmp_path):
    """A text beside them stays a text, whatever it looks like."""
    cell = json.dumps([YES]).replace('"', '""')
    path = write(tmp_path, f'prompt,chosen,rejected\n[q],"{cell}","{cell}"\n', "a.csv")

    assert examples(path, kinds=("preference",)) == [
        Example(messages=(_user("[q]"), _assistant("yes")), rejected="yes")
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rejected": None}, "lack `rejected`"),
        ({"chosen": 3}, "have a number in `chosen`"),
        ({"chosen": [YES]}, "have a text and turns in `chosen` and `rejected`"),
        ({"chosen": ASKED, "rejected": [NO]}, "do not end with a reply"),
        ({"chosen": [YES], "rejected": ASKED}, "do not end with a reply"),
        ({"chosen": [], "rejected": [NO]}, "have no turns in `chosen`"),
    ],
)
def test_faults_of_preference_pairs(tmp_path, change, fault):
    """Each has a sentence of its own."""
    path = write(tmp_path, json.dumps(PAIRS["texts"] | change) + "\n", "a.jsonl")

    with pytest.raises(UserError, match="1 of 1 rows") as caught:
        dataset.inspect(path)

    assert fault in caught.value.what


def test_labelled_texts_are_counted_by_label(tmp_path):
    """Labels are texts or whole numbers; the texts alone can be learnt if asked for."""
    path = write(tmp_path, "text,label\nfine,good\nnice,good\nawful,bad\n", "a.csv")

    found = dataset.inspect(path).dataset

    assert (found.format, found.labels) == ("classification", (("good", 2), ("bad", 1)))
    assert found.problem == "needs training of a classifier, which this version does not run"
    number = write_rows(tmp_path, [{"text": "t", "label": 3}])
    assert examples(number, kinds=("label",)) == [Example(text="t", label="3")]
    assert 'set the format to "text"' in refused(path).do
    assert dataset.check(path, format="text").num_rows == 3


@pytest.mark.parametrize("label", [None, True, "", 1.5, ["a"]])
def test_faulty_labels(tmp_path, label):
    """What is no class is a fault of the row."""
    path = write(tmp_path, json.dumps({"text": "t", "label": label}) + "\n", "a.jsonl")

    with pytest.raises(UserError, match="`label`"):
        dataset.inspect(path)
