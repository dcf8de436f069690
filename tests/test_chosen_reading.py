"""What a person chooses about the reading of data: told, followed, written into the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import write_rows

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.models import model
from tui.cli_recommend import reading_of
from tui.commands import recommend as command
from tui.commands.request import Asked
from tui.main import run

TURNS = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]
CHATS = [{"messages": [*TURNS, *TURNS], "id": number} for number in range(29)]
CUT_OFF = {"messages": [*TURNS, TURNS[0]]}
"""Ends with the user."""


@pytest.fixture
def recommend(monkeypatch, capsys, tmp_path, tiny_model):
    """Call the command with a model of this disk: (exit code, what was said)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    data = write_rows(tmp_path, [*CHATS, CUT_OFF])

    def called(*options):
        arguments = ["--model", str(tiny_model), "--gpu", "1x RTX 4090", "--data", str(data)]
        code = run(["recommend", *arguments, *options])
        said = capsys.readouterr()
        return code, said.out + said.err

    return called


def saved(name="r.toml"):
    """The recipe that was written."""
    return recipes.parse(Path(name).read_text(), where=name)


def test_faulty_rows_are_left_out_as_the_refusal_says(recommend, tmp_path):
    """Followed as it is said; the run that comes of it checks the same way."""
    pytest.importorskip("torch")
    from runner.checks import preflight

    code, told = recommend()
    assert code == ExitCode.BAD_DATA
    assert "1 of 30 rows do not end with a reply" in told
    assert "(--on-bad skip)" in told

    code, told = recommend("--on-bad", "skip", "--save", "r.toml")
    assert code == 0
    assert "29 rows" in told
    assert saved().data.on_bad == "skip"
    ready = preflight.check(saved(), tmp_path, share=True)
    assert (ready.dataset.num_rows, ready.dataset.num_bad) == (29, 1)


def test_what_was_chosen_stands_in_the_recipe(recommend):
    """And what was not keeps its default."""
    more = ("--on-bad", "skip", "--save", "r.toml", "--force")
    recommend("--chat-template", "chatml", "--learn", "last", "--encoding", "GBK", *more)
    found = saved().data
    assert (found.chat_template, found.learn, found.encoding) == ("chatml", "last", "gb18030")

    recommend(*more)
    found = saved().data
    assert (found.learn, found.encoding) == ("all", None)


def test_columns_stand_in_the_recipe_as_they_were_given(recommend, tmp_path):
    """A table of its own, with line breaks."""
    write_rows(tmp_path, [{"topic": "moss", "ask": "explain", "said": "it has no roots"}])
    columns = ["--column", r"prompt={topic}\n{ask}", "--column", "completion=said"]

    code, told = recommend(*columns, "--save", "r.toml")

    assert code == 0, told
    assert saved().data.columns == {"prompt": "{topic}\n{ask}", "completion": "said"}


def test_the_choice_changes_what_is_counted(tmp_path, tiny_model):
    """The last reply alone is half of what is learnt."""
    data, base = write_rows(tmp_path, CHATS), model.from_folder(tiny_model)

    def learnt(**chosen):
        asked = Asked(chat_template="chatml", **chosen)
        return command.read_data(base, str(data), asked).tokens.counts.num_learnt

    assert learnt() == 2 * learnt(learn="last") > 0


def test_an_unknown_template_is_refused_with_the_nearest(recommend):
    """Before the data is read."""
    code, told = recommend("--chat-template", "chatmll")

    assert code == ExitCode.USAGE
    assert "chatml" in told.split("do:")[1]


def test_a_template_of_ones_own_is_named_from_where_the_recipe_lies(recommend, tmp_path):
    """As all paths of a recipe are."""
    (tmp_path / "there").mkdir()
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    )
    recommend("--on-bad", "skip", "--chat-template", "own.jinja", "--save", "there/r.toml")

    assert saved("there/r.toml").data.chat_template == str(tmp_path / "own.jinja")


def test_a_format_that_was_chosen_holds_as_the_refusal_says(recommend, tmp_path):
    """Rows with a label are for another task, unless their texts alone are wanted."""
    rows = [{"text": f"The film was number {n}.", "label": n % 2} for n in range(30)]
    write_rows(tmp_path, rows)
    code, told = recommend("--task", "sft")
    assert code == ExitCode.BAD_DATA
    assert "(--format text)" in " ".join(told.split())

    code, told = recommend("--format", "text", "--save", "r.toml")
    assert code == 0
    assert "columns that are not used: `label`" in told
    assert (saved().task, saved().data.format) == ("sft", "text")


def test_a_task_that_the_rows_do_not_fit_is_answered_with_one_that_they_fit(recommend):
    """And the formats of the task that was asked for are named."""
    code, told = recommend("--task", "dpo", "--on-bad", "skip")
    words = " ".join(told.split())

    assert code == ExitCode.BAD_DATA
    assert "here it can be preference" in words
    assert "`--task sft`" in words
    assert recommend("--task", "sft", "--on-bad", "skip")[0] == 0


def test_a_format_may_be_typed_in_the_app_too():
    """As the other options of reading, and the task; what says nothing of these is refused."""
    assert reading_of("--format messages")["data_format"] == "messages"
    assert reading_of("--task kto")["task"] == "kto"
    with pytest.raises(UserError, match="not understood"):
        reading_of("--batch 2")
