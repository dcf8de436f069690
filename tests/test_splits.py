"""Rows of a recipe as a trainer takes them: read, drawn apart, with their chat template."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("datasets")

from advisor import recipe as recipes
from profiles.data.formats.spec import Example
from profiles.errors import ExitCode, UserError
from runner.checks.chat_templates import TEMPLATES
from runner.training import data

RECIPE = """schema = 1
name = "r"
[model]
id = "model"
[data]
train = "rows.jsonl"
{data}
[method]
name = "lora"
{more}
"""
OWN = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def tokenizer(template=OWN):
    """As far as it is asked."""
    return SimpleNamespace(chat_template=template)


def columns(example, *, assistant_only):
    """A task's, which shows what it was told."""
    text = " ".join(text for text, _ in example.segments)
    return {"text": text, "assistant_only": assistant_only}


def instructions(number, first=0):
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(first, first + number)]


def chats(*, turns=1, number=10):
    pair = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    return [
        {"messages": [{"role": "system", "content": f"s{i}"}, *pair * turns]} for i in range(number)
    ]


@pytest.fixture
def loaded(tmp_path):
    """Load rows after a recipe's [data]; `files`: further ones, by name."""

    def load(rows, text="", *, more="", with_tokenizer=None, **files):
        (tmp_path / "model").mkdir(exist_ok=True)
        for name, content in {"rows": rows, **files}.items():
            lines = "".join(json.dumps(row) + "\n" for row in content)
            (tmp_path / f"{name}.jsonl").write_text(lines)
        recipe = recipes.parse(RECIPE.format(data=text, more=more), where="test")
        return data.load(recipe, tmp_path, with_tokenizer or tokenizer(), columns)

    return load


def texts(rows):
    return list(rows["text"])


def test_rows_are_drawn_apart_after_the_recipes_shares(loaded):
    """Each is in one part, in the order of the file."""
    found = loaded(instructions(20), 'split = "7:2:1"')

    parts = [texts(part) for part in (found.train, found.eval[""], found.test)]
    assert [len(part) for part in parts] == [14, 4, 2]
    assert sorted(text for part in parts for text in part) == sorted(
        f"p{i} c{i}" for i in range(20)
    )
    for part in parts:
        assert part == sorted(part, key=lambda text: int(text.split()[0][1:]))
    assert found.num_rows == 18
    assert texts(found.held_out) == parts[2]


def test_the_draw_depends_on_the_seed_alone(loaded):
    """Another seed holds out other rows."""
    seeds = [loaded(instructions(40), more=f"[train]\nseed = {seed}") for seed in (0, 0, 1)]

    first, again, other = (texts(found.eval[""]) for found in seeds)
    assert first == again
    assert first != other


def test_without_a_share_nothing_is_held_out(loaded):
    """No empty sets, which a trainer would refuse."""
    found = loaded(instructions(10), 'split = "1:0:0"')

    assert (found.eval, found.test, found.held_out, found.num_rows) == ({}, None, None, 10)


def test_answers_are_held_out_of_the_evaluation_set_where_nothing_is_kept_for_them(loaded):
    """Of the first, if there are several."""
    found = loaded(instructions(10), 'split = "8:2:0"')

    assert found.test is None
    assert texts(found.held_out) == texts(found.eval[""])


def test_files_for_evaluation_take_the_place_of_a_share(loaded):
    """By their names, in the recipe's order, and nothing of the training file is evaluated."""
    found = loaded(
        instructions(20),
        'split = "9:5:1"\neval = {domain = "domain.jsonl", general = "general.jsonl"}',
        domain=instructions(3, 100),
        general=instructions(2, 200),
    )

    assert {name: texts(rows)[0] for name, rows in found.eval.items()} == {
        "domain": "p100 c100",
        "general": "p200 c200",
    }
    assert len(found.train) + len(found.test) == 20
    assert found.num_rows == len(found.train) + 5


def test_exact_duplicates_stay_on_one_side():
    """Nothing of what is evaluated has been learnt; every row is still there."""
    examples = [Example(prompt=f"p{i % 10}", completion="c") for i in range(40)]

    parts = data.split(examples, (6, 2, 2), 0)

    prompts = [{example.prompt for example in part} for part in parts]
    assert [len(part) for part in parts] == [24, 8, 8]
    assert len(set.union(*prompts)) == sum(map(len, prompts)) == 10


def test_rows_that_are_the_same_only_when_run_together_are_two():
    """Where a prompt ends is part of it; letters that cannot be encoded are no reason to fail."""
    examples = [Example(prompt="a", completion="bc"), Example(prompt="ab", completion="c")]
    odd = [Example(text="\ud800"), Example(text="\ud801")]

    for two in (examples, odd):
        train, evaluated, _ = data.split(two, (1, 1, 0), 0)
        assert (len(train), len(evaluated)) == (1, 1)


def test_faulty_rows_and_formats_are_the_readers_business(loaded):
    """It is told what the recipe says."""
    rows = [*instructions(9), {"prompt": 7}]

    with pytest.raises(UserError):
        loaded(rows)
    assert loaded(rows, 'on_bad = "skip"\nsplit = "1:0:0"').num_rows == 9
    with pytest.raises(UserError):
        loaded(instructions(9), 'format = "messages"')


def test_rows_of_another_kind_than_the_tasks_are_refused(loaded):
    """Pairs of a better and a worse reply are not for fine-tuning."""
    pairs = [{"prompt": "p", "chosen": "a", "rejected": f"b{i}"} for i in range(9)]

    with pytest.raises(UserError, match=r"preference|DPO"):
        loaded(pairs)


def test_chats_are_given_the_template_that_the_recipe_names(loaded):
    """The tokenizer's own, or one of ours."""
    for choice, template in (("chatml", TEMPLATES["chatml"]), ("plain", TEMPLATES["plain"])):
        mine = tokenizer(None)
        loaded(chats(), f'chat_template = "{choice}"', with_tokenizer=mine)
        assert mine.chat_template == template

    mine = tokenizer()
    loaded(chats(), with_tokenizer=mine)
    assert mine.chat_template == OWN


def test_chats_without_any_template_are_refused(loaded):
    """Named after the model."""
    with pytest.raises(UserError, match="no chat template") as caught:
        loaded(chats(), with_tokenizer=tokenizer(None))

    assert (caught.value.where, caught.value.code) == ("model", ExitCode.BAD_RECIPE)


def test_rows_that_are_no_chats_need_no_template(loaded):
    """And leave the tokenizer as it is."""
    mine = tokenizer(None)

    loaded(instructions(9), 'chat_template = "chatml"', with_tokenizer=mine)

    assert mine.chat_template is None


def test_a_template_of_the_models_own_must_be_there_to_be_chosen():
    """An empty one is none."""
    mine = tokenizer("theirs")
    data.set_template(mine, "model", "here")
    assert mine.chat_template == "theirs"
    with pytest.raises(UserError) as caught:
        data.set_template(tokenizer(""), "model", "here")
    assert caught.value.where == "here"


def test_the_models_own_template_is_tried_before_it_is_used(loaded, tmp_path):
    """In quarantine; one of ours is used without a look at it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages.clear() }}")

    with pytest.raises(UserError, match="is refused") as caught:
        loaded(chats())

    assert caught.value.code is ExitCode.REFUSED
    loaded(chats(), 'chat_template = "chatml"')


@pytest.mark.parametrize(
    ("turns", "choice", "wanted"),
    [(1, "chatml", False), (2, "chatml", True), (2, "model", False)],
    ids=["one reply", "several", "unmarked"],
)
def test_all_replies_are_learnt_where_the_template_marks_them(loaded, turns, choice, wanted):
    """And where one row has several; the task is told, row by row."""
    rows = [*chats(turns=turns), *chats(number=3)]

    found = loaded(rows, f'chat_template = "{choice}"')

    assert found.assistant_only is wanted
    assert set(found.train["assistant_only"]) == {wanted}
