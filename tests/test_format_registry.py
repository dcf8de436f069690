"""A data format is registered in one place; everything that reads data then knows it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_files import examples, refused, write, write_rows

from advisor import recipe as recipes
from profiles.data import dataset, formats
from profiles.data.detect import detect_format
from profiles.data.formats.spec import Example, Field, Format, Message
from profiles.data.formats.turns import ending_with_a_reply, turns
from profiles.data.formats.values import text
from profiles.errors import ExitCode, UserError
from tui.main import run

INTERVIEW = Format(
    name="interview",
    required=(Field(name="guest"), Field(name="talk", aliases=("parley",), holds="list")),
    read=lambda row: Example(
        messages=(
            Message(role="system", content=text(row, "guest")),
            *ending_with_a_reply(turns(row, "talk")),
        )
    ),
    is_chat=True,
)
RIDDLE = Format(
    name="riddle",
    required=(Field(name="riddle"), Field(name="solution")),
    read=lambda row: Example(prompt=text(row, "riddle"), completion=text(row, "solution")),
)
RANKING = Format(
    name="ranking",
    required=(Field(name="ranked"),),
    read=lambda row: Example(text=text(row, "ranked")),
    kind="rank",
    needs="training of a ranker",
    instead="rank them by hand",
)
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello to you"}]


@pytest.fixture(autouse=True)
def made_up():
    """Three formats that nothing else has heard of."""
    with (
        formats.registered(INTERVIEW),
        formats.registered(RIDDLE),
        formats.registered(RANKING),
    ):
        yield


def interviews(folder, num_rows=9, name="train.jsonl"):
    return write_rows(
        folder, [{"guest": f"guest {n}", "talk": TALK} for n in range(num_rows)], name
    )


def riddles(folder, num_rows=9):
    rows = [{"riddle": f"what is {n}?", "solution": f"it is a number {n}"} for n in range(num_rows)]
    return write_rows(folder, rows)


def test_its_rows_are_detected_and_checked(tmp_path, capsys):
    """As those of any other format, on every page."""
    found = dataset.check(interviews(tmp_path))

    assert (found.format, found.num_rows, found.problem) == ("interview", 9, "")
    assert found.tokens is not None
    assert found.tokens.counts.num_learnt == 9 * 3
    assert run(["data", "check", str(tmp_path / "train.jsonl")]) == 0
    assert "interview, JSON Lines" in capsys.readouterr().out


def test_its_faults_are_told_by_its_keys(tmp_path):
    """What a row needs, and what a row of it looks like among others."""
    rows = [{"riddle": "r", "solution": 7}]
    error = refused(write_rows(tmp_path, rows))
    assert error.what == "1 of 1 rows have a number in `solution`, not a text (first: line 1)"
    assert error.why == "each riddle row needs usable `riddle`, `solution`"

    rows = [{"prompt": "p", "completion": "c"}] * 3 + [{"riddle": "r", "solution": "s"}]
    assert "look like riddle, not prompt_completion" in refused(write_rows(tmp_path, rows)).what


def test_a_misspelt_name_is_answered_with_it(tmp_path):
    """And the list of formats has it with its keys."""
    error = refused(riddles(tmp_path), format="ridle")

    assert (error.code, error.do) == (ExitCode.USAGE, "choose riddle")
    assert "interview (guest, talk); riddle (riddle, solution)" in error.why
    assert examples(riddles(tmp_path, 1), format="riddle") == [
        Example(prompt="what is 0?", completion="it is a number 0")
    ]


def test_keys_near_to_its_own_lead_to_it():
    """By its aliases, by a misspelling, or by the rest of its keys."""
    for keys, steps in [
        (("guest", "Parley"), "rename `Parley` to `talk`"),
        (("guests", "talk"), "rename `guests` to `guest`"),
        (("talk",), "add `guest`"),
    ]:
        with pytest.raises(UserError) as caught:
            detect_format([keys])
        assert caught.value.do.split("; or ")[0] == f"the nearest is interview: {steps}"


def test_a_list_of_it_in_a_table_is_json(tmp_path):
    """And a file that is one object is not told to take its rows from that list."""
    cell = json.dumps(TALK).replace('"', '""')
    table = write(tmp_path, f'guest,talk\nguest 0,"{cell}"\n', "a.csv")
    assert examples(table) == examples(interviews(tmp_path, 1))

    lone = write(tmp_path, json.dumps({"guest": "g", "talk": TALK}), "a.json")
    assert "jq" not in refused(lone).do


def test_a_key_that_two_formats_write_differently_is_read_either_way(tmp_path):
    """A cell of turns is JSON, any other is a text."""
    with formats.registered(
        Format(name="x", required=(Field(name="text", holds="list"),), read=RIDDLE.read)
    ):
        table = write(tmp_path, 'text\n[a list?]\n"[{""role"": ""user""}]"\n', "a.csv")
        rows = [row["text"] for _, _, row in dataset.read_rows(table)]

    assert rows == ["[a list?]", [{"role": "user"}]]


def test_a_chat_in_it_needs_a_chat_template(tmp_path, capsys):
    """Both a look at the data and the check before a run ask for one; texts need none."""
    from small_model import small_model

    from profiles.models import model
    from runner.checks import chat_templates

    folder = small_model(tmp_path / "base")
    write(folder, "{}", "tokenizer_config.json")
    base = model.from_folder(folder)

    assert run(["data", "check", str(interviews(tmp_path)), "--model", str(folder)]) == 0
    assert "! the model has no chat template" in capsys.readouterr().out
    with pytest.raises(UserError, match="no chat template"):
        dataset.check(interviews(tmp_path), encoder=chat_templates.encoder(base, "model"))
    dataset.check(interviews(tmp_path), encoder=chat_templates.encoder(base, "chatml"))

    run(["data", "check", str(riddles(tmp_path)), "--model", str(folder)])
    assert "chat template" not in capsys.readouterr().out
    dataset.check(riddles(tmp_path), encoder=chat_templates.encoder(base, "model"))


def test_data_for_another_task_is_shown_and_not_trained_on(tmp_path):
    """What it needs and what to do are the format's own words; its task takes it."""
    path = write_rows(tmp_path, [{"ranked": f"long text {n}"} for n in range(3)])

    problem = "needs training of a ranker, which this version does not run"
    assert dataset.inspect(path).dataset.problem == problem
    error = refused(path)
    words = "ranking data is for training of a ranker, not for this task"
    assert (error.what, error.do) == (words, "rank them by hand")
    told = error.why.removeprefix("here it can be ").split(", ")
    assert (set(told) > {"messages", "interview", "riddle"}, "ranking" in told) == (True, False)
    assert dataset.inspect(path, kinds=("rank",)).dataset.problem == ""
    assert dataset.check(path, kinds=("rank",)).num_rows == 3
    assert refused(riddles(tmp_path), kinds=("rank",)).why == "here it can be ranking"
    for kinds, advice in [(("text",), "none is near"), (("rank",), "rename `rankd` to `ranked`")]:
        with pytest.raises(UserError) as caught:
            detect_format([("rankd",)], kinds=kinds)
        assert advice in caught.value.do


def test_a_recommendation_counts_it(tmp_path, tiny_model):
    """With the tokenizer of the model."""
    from profiles.models import model
    from tui.commands import recommend

    found = recommend.read_data(
        model.from_folder(tiny_model), str(riddles(tmp_path)), recommend.Asked()
    )

    assert (found.format, found.num_rows) == ("riddle", 9)


def recipe_for(train: Path, model: Path, more: str = "") -> recipes.Recipe:
    """A recipe that leaves the format to be found."""
    return recipes.parse(
        f'schema = 1\nname = "x"\n[model]\nid = "{model}"\n[data]\ntrain = "{train.name}"\n'
        f'split = "1:0:0"\n{more}[method]\nname = "lora"\n',
        where="r",
    )


def test_the_check_before_a_run_takes_it(tmp_path, tiny_model):
    """Nothing but the data is new to it."""
    pytest.importorskip("torch")
    from runner.checks import preflight

    ready = preflight.check(recipe_for(interviews(tmp_path), tiny_model), tmp_path, share=True)

    assert (ready.dataset.format, ready.dataset.num_rows) == ("interview", 9)


def loaded(path: Path, model: Path, folder: Path, tokenizer):
    """The rows of a file as the task of a run takes them."""
    from runner.tasks import sft
    from runner.training import data

    recipe = recipe_for(path, model)
    encoder = data.encoder_of(recipe, model, tokenizer)
    reading = data.Reading(
        recipe=recipe, base_dir=path.parent, encoder=encoder, columns=sft.columns
    )
    return reading.load(folder / "tokens", reading.draw(), SimpleNamespace(tick=lambda: None))


def test_training_reads_its_turns(tmp_path, tiny_model):
    """By the model's template, and all replies are learnt."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    path = write_rows(tmp_path, [{"guest": "g", "talk": TALK * 2}])

    splits = loaded(path, tiny_model, tmp_path, tokenizer)

    turns = [{"role": "system", "content": "g"}, *TALK * 2]
    (row,) = splits.train.rows
    assert row["input_ids"] == tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
    learnt = tokenizer.decode([label for label in row["labels"] if label != -100])
    reply = f"{TALK[-1]['content']}{tokenizer.eos_token}"
    assert learnt == reply * 2
    assert (splits.eval_rows, splits.test.rows) == ({}, None)


def test_training_reads_its_texts(tmp_path, tiny_model):
    """A tokenizer without chat template will do; the end mark is learnt."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None

    splits = loaded(riddles(tmp_path, 1), tiny_model, tmp_path, tokenizer)

    (row,) = splits.train.rows
    end = tokenizer.eos_token
    assert tokenizer.decode(row["input_ids"]) == f"what is 0?it is a number 0{end}"
    learnt = tokenizer.decode([label for label in row["labels"] if label != -100])
    assert learnt == f"it is a number 0{end}"


@pytest.mark.slow
def test_a_run_trains_on_it(tmp_path, tiny_model):
    """To the end, and its loss falls."""
    pytest.importorskip("trl")
    import real_runs

    path = interviews(tmp_path, 20)
    started = real_runs.new_run(
        tiny_model, path, steps=4, micro_batch=2, accumulation=1, save_every=0, eval_every=0
    )

    assert real_runs.attempt(started) == 0
    losses = real_runs.losses(started)
    assert len(losses) == 4
    assert losses[4] < losses[1]


# --- The list ---


def test_a_registration_ends_with_its_block():
    """Also by an error; a name that is taken is refused."""
    before = list(formats.FORMATS)
    other = Format(name="other", required=(Field(name="o"),), read=RIDDLE.read)
    with contextlib.suppress(KeyError), formats.registered(other):
        assert formats.by_name("other") is other
        raise KeyError

    assert before == formats.FORMATS
    with pytest.raises(UserError):
        formats.by_name("other")
    with pytest.raises(AssertionError), formats.registered(RIDDLE):
        pass
    assert before == formats.FORMATS


def test_every_format_has_a_file_and_every_file_a_format():
    """Named alike, so that it is found."""
    folder = Path(formats.__file__).parent
    files = {one.stem for one in folder.glob("*.py")} - {
        "__init__",
        "spec",
        "values",
        "turns",
        "calls",
    }

    assert {one.name for one in formats.FORMATS} - {"interview", "riddle", "ranking"} == files


def test_no_format_hides_another():
    """A row with the keys of a format alone is in that format."""
    for one in formats.FORMATS:
        assert detect_format([one.keys]) is one


def test_the_names_come_without_any_library():
    """A recipe asks for them where nothing else of the data is loaded."""
    code = (
        "import sys; from profiles.data import formats; print(*formats.names(('text',)))\n"
        "print(*{'pydantic', 'tokenizers', 'pyarrow', 'csv', 'hashlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["text", ""]
