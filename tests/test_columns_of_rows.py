"""[data.columns]: parts of a row from columns with other names, or from templates of several."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest
from data_files import examples, refused, write, write_rows

from advisor.recipe_data import DataSection
from profiles.data import dataset
from profiles.data.columns import Columns
from profiles.data.formats.spec import Example, Message
from profiles.errors import ExitCode, UserError
from tui.main import run

MEDICAL = {"symptoms": "fever, cough", "diagnosis": "influenza"}
CONTRACT = {"contract_section": "clause 3", "risk": "no limit", "suggestion": "set one"}
LESSON = {"topic": "moss", "instruction": "explain", "content": "it has no roots"}


def asked(example: Example) -> tuple[str, str]:
    """Prompt and reply of a plain example or a chat of two turns."""
    if example.messages:
        return example.messages[-2].content, example.messages[-1].content
    return example.prompt or "", example.completion or ""


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        (MEDICAL, {"prompt": "symptoms", "completion": "diagnosis"}, ("fever, cough", "influenza")),
        (
            MEDICAL,
            {"instruction": "What is it? {symptoms}", "output": "{diagnosis}"},
            ("What is it? fever, cough", "influenza"),
        ),
        (
            CONTRACT,
            {"prompt": "{contract_section}", "completion": "{risk}\n{suggestion}"},
            ("clause 3", "no limit\nset one"),
        ),
        (
            LESSON,
            {"prompt": "{topic}\n{instruction}", "completion": "content"},
            ("moss\nexplain", "it has no roots"),
        ),
        (
            {"instruction": "sum up", "response": "short", "text": "unused"},
            {"prompt": "instruction", "completion": "response"},
            ("sum up", "short"),
        ),
        (
            {"instruction": "sum up", "context": "a long text", "response": "short"},
            {"prompt": "{instruction}\n{context}", "completion": "{response}"},
            ("sum up\na long text", "short"),
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_the_examples_of_the_documents(tmp_path, row, columns, expected, name):
    """From JSON and from a table alike."""
    text = json.dumps(row)
    if name.endswith("csv"):
        cells = [f'"{value}"' for value in row.values()]
        text = f"{','.join(row)}\n{','.join(cells)}\n"
    path = write(tmp_path, text, name)

    assert [asked(one) for one in examples(path, columns=columns)] == [expected]


@pytest.mark.parametrize(
    ("row", "template", "text"),
    [
        ({"a": "1", "b": ""}, "{a}\n{b}", "1"),
        ({"a": "1", "b": None}, "{b}\n{a}\nend", "1\nend"),
        ({"a": "1"}, "{a}\n{b}", "1"),
        ({"a": "1", "b": "2"}, "{a}{b}", "12"),
        ({"a": 1.5, "b": True}, "{a} {b}", "1.5 true"),
        ({"a": "{b}", "b": "2"}, "{{{a}}}", "{{b}}"),
        ({"a": "x", "b": ""}, "{}fixed", "fixed"),
        ({"a b": "x", "a.c": "y"}, "{a b}{a.c}", "xy"),
        ({"a": "1\n2"}, "{a}\n\nend", "1\n2\n\nend"),
    ],
)
def test_a_template_is_a_text_with_columns(row, template, text):
    """A line whose columns are all empty is left out; nothing in a value is read as a template."""
    assert Columns.of({"text": template}).apply(row) == {"text": text}


def test_a_row_without_any_column_of_a_part_lacks_the_part(tmp_path):
    """Told as every fault of a row."""
    path = write_rows(tmp_path, [MEDICAL, {"diagnosis": "none"}])

    error = refused(path, columns={"prompt": "{symptoms}!", "completion": "diagnosis"})

    assert "1 of 2 rows lack `prompt`" in error.what
    assert error.where.endswith(":2")


def test_a_list_is_no_text(tmp_path):
    """Written out it would be Python."""
    path = write_rows(tmp_path, [MEDICAL | {"symptoms": ["fever"]}])

    assert "1 of 1 rows have a list in `symptoms`, of which `prompt` is to be a text" in (
        refused(path, columns={"prompt": "{symptoms}", "completion": "diagnosis"}).what
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_column_that_no_row_has_is_answered_with_the_nearest(tmp_path, name):
    """Before the start; also where it is one of several in a template."""
    rows = "symptoms,diagnosis\nfever,influenza\n" if name == "a.csv" else json.dumps(MEDICAL)
    path = write(tmp_path, rows, name)

    error = refused(path, columns={"prompt": "{symptom}{diagnosis}", "completion": "diagnosis"})

    assert error.what == "no row has the column `symptom`"
    assert error.do == "did you mean `symptoms` for `symptom`?"


def test_a_column_of_few_rows_is_known(tmp_path):
    """Though none of the first has it."""
    rows = [{"q": "why?", "a": "because"}] * 40 + [{"q": "who?", "a": "she", "more": "context"}]
    columns = {"instruction": "{q}\n{more}", "output": "a"}

    found = examples(write_rows(tmp_path, rows), columns=columns)

    assert [asked(one)[0] for one in found[-2:]] == ["why?", "who?\ncontext"]


def test_lists_in_a_table_are_parsed_by_the_part_they_make(tmp_path):
    """And a text is not, whatever its column is called."""
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    cell = json.dumps(turns).replace('"', '""')
    dialog = write(tmp_path, f'dialog\n"{cell}"\n', "dialog.csv")
    history = write(tmp_path, "history,reply\nonce upon a time,the end\n", "history.csv")

    assert len(examples(dialog, columns={"messages": "dialog"})[0].messages) == 2
    found = examples(history, columns={"prompt": "history", "completion": "reply"})
    assert [asked(one) for one in found] == [("once upon a time", "the end")]


def test_a_system_text_makes_a_chat_of_prompt_and_completion(tmp_path):
    """Plain texts have no place for one; it may be fixed."""
    path = write_rows(tmp_path, [MEDICAL])
    columns = {"system": "{}You are a doctor.", "prompt": "symptoms", "completion": "{diagnosis}"}

    assert [turn for one in examples(path, columns=columns) for turn in one.messages] == [
        Message(role="system", content="You are a doctor."),
        Message(role="user", content="fever, cough"),
        Message(role="assistant", content="influenza"),
    ]


def test_only_parts_that_are_named_are_read(tmp_path):
    """What is left is told as not used."""
    row = MEDICAL | {"messages": [{"role": "user", "content": "?"}], "output": "other"}
    found = dataset.check(
        write_rows(tmp_path, [row]), columns={"prompt": "symptoms", "completion": "diagnosis"}
    )

    assert found.format == "prompt_completion"
    assert any("not used: `messages`, `output`" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"promt": "a"}, "did you mean prompt?"),
        ({"zzz": "a"}, "there are "),
        ({"prompt": "{a"}, "a brace that is not closed"),
        ({"prompt": "a}"}, "a brace that is not closed"),
        ({"prompt": ""}, "without a name"),
    ],
)
def test_what_is_no_part_or_no_template_is_refused(columns, told):
    """In a recipe and on the command line."""
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        DataSection(train="a.csv", columns=columns)
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        Columns.of(columns)


@pytest.mark.parametrize(
    "row",
    [
        MEDICAL,
        CONTRACT,
        {"zzz": "a text"},
        {"body of it": "a text", "Title's": "of it"},
        {"Prompt": "why?", "said": "because"},
        {"chosen": "good", "turned_down": "bad", "for": "why?"},
    ],
)
def test_the_advice_where_no_format_fits_works(tmp_path, row, capsys):
    """The options, pasted behind the command."""
    path = str(write_rows(tmp_path, [row] * 3))
    with pytest.raises(UserError) as caught:
        dataset.check(path)

    options = caught.value.do[caught.value.do.index("--column") :].partition(" ([")[0]

    assert run(["data", "check", path, *shlex.split(options)]) == 0
    shown = capsys.readouterr().out
    assert "ready for training" in shown
    assert run(["data", "show", path, *shlex.split(options)]) == 0
    assert str(next(iter(row.values()))) in capsys.readouterr().out


def test_the_command_line_takes_line_breaks(tmp_path, capsys):
    """As TOML writes them."""
    path = str(write_rows(tmp_path, [LESSON]))

    columns = ["--column", r"prompt={topic}\n{instruction}", "--column", "completion=content"]
    code = run(["data", "show", path, *columns, "--json"])

    assert code == 0
    assert "moss\\nexplain" in capsys.readouterr().out
    assert run(["data", "check", path, "--column", "promt=a"]) == ExitCode.USAGE


def test_a_run_trains_on_the_parts(tmp_path, tiny_model):
    """What is learnt is the completion, written by the template."""
    pytest.importorskip("torch")
    from transformers import AutoTokenizer

    from advisor import recipe as recipes
    from runner.tasks import sft
    from runner.training import data

    write_rows(tmp_path, [CONTRACT] * 3, "rows.jsonl")
    recipe = recipes.parse(
        f'schema = 1\nname = "x"\n[model]\nid = "{tiny_model}"\n[data]\ntrain = "rows.jsonl"\n'
        'split = "1:0:0"\n[data.columns]\nprompt = "{contract_section}"\n'
        'completion = "{risk}\\n{suggestion}"\n[method]\nname = "lora"\n',
        where="r",
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    encoder = data.encoder_of(recipe, tiny_model, tokenizer)
    reading = data.Reading(recipe=recipe, base_dir=tmp_path, encoder=encoder, columns=sft.columns)
    splits = reading.load(tmp_path / "rows-1", reading.draw(), SimpleNamespace(tick=lambda: None))

    ids = splits.train.rows[0]["input_ids"]
    assert tokenizer.decode(ids).startswith("clause 3no limit\nset one")


@pytest.mark.parametrize(
    "row",
    [
        {"question": "who?", "context": "a text", "answers": {"text": ["he"]}},
        {"instruction": "say", "completions": [{"response": "no"}]},
        {"translation": {"en": "yes", "fr": "oui"}},
    ],
)
def test_no_text_is_offered_of_a_list_or_an_object(tmp_path, row):
    """Nor another column in its place."""
    with pytest.raises(UserError) as caught:
        dataset.check(write_rows(tmp_path, [row] * 3))

    assert "--column" not in caught.value.do


def test_an_answer_is_offered_of_one_column(tmp_path):
    """What was asked may be of several."""
    with pytest.raises(UserError) as caught:
        dataset.check(write_rows(tmp_path, [{"question": "who?", "id": "7", "said": "he"}]))

    assert "--column output=said" in caught.value.do
