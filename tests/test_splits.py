"""Rows of a recipe as a trainer takes them: read, drawn apart, with their chat template."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from data_files import word_tokenizer

pytest.importorskip("datasets")

from advisor import recipe as recipes
from profiles.chat_families import TEMPLATES
from profiles.data.encoding import of_folder
from profiles.errors import ExitCode, UserError
from runner.checks import chat_templates
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
OWN = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


class Ticks:
    """A progress that counts."""

    def __init__(self):
        self.num = 0

    def tick(self, number=1):
        self.num += number


def columns(example, render, max_length):
    """A task's: the text of an example, unless it holds nothing."""
    if example.completion == "nothing":
        return None
    tokens = render(example).num_tokens
    return {"text": " ".join(text for text, _ in example.segments), "num_tokens": tokens}


def instructions(number, first=0):
    return [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(first, first + number)]


def chats(*, turns=1, number=10):
    pair = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    return [
        {"messages": [{"role": "system", "content": f"s{i}"}, *pair * turns]} for i in range(number)
    ]


@pytest.fixture
def reading(tmp_path):
    """What reads these rows after a recipe's [data]; `files`: further ones, by name."""

    def make(rows, text="", *, more="", template=OWN, **files):
        model = tmp_path / "model"
        model.mkdir(exist_ok=True)
        word_tokenizer(model)
        (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": " </s>"}))
        if template is not None:
            (model / "chat_template.jinja").write_text(template)
        for name, content in {"rows": rows, **files}.items():
            lines = "".join(json.dumps(row) + "\n" for row in content)
            (tmp_path / f"{name}.jsonl").write_text(lines)
        recipe = recipes.parse(RECIPE.format(data=text, more=more), where="test")
        choose = chat_templates.chooser(model, recipe.data.chat_template, {"eos_token": " </s>"})
        encoder = of_folder(model, choose=choose, learn=recipe.data.learn)
        return data.Reading(recipe=recipe, base_dir=tmp_path, encoder=encoder, columns=columns)

    return make


@pytest.fixture
def loaded(reading, tmp_path):
    """Load them."""

    def load(*args, **kw):
        one = reading(*args, **kw)
        return one.load(tmp_path / "rows-1", one.draw(), Ticks())

    return load


def texts(part):
    return list(part.rows["text"])


def asked(found):
    return [example.prompt for example in found.asked]


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
    assert [f"{p} c{p[1:]}" for p in asked(found)] == parts[2]


def test_the_draw_depends_on_the_seed_alone(loaded):
    """Another seed holds out other rows."""
    seeds = [loaded(instructions(40), more=f"[train]\nseed = {seed}") for seed in (0, 0, 1)]

    first, again, other = (texts(found.eval[""]) for found in seeds)
    assert first == again
    assert first != other


def test_without_a_share_nothing_is_held_out(loaded):
    """No empty sets, which a trainer would refuse."""
    found = loaded(instructions(10), 'split = "1:0:0"')

    assert (found.eval_rows, found.test.rows, found.asked) == ({}, None, [])
    assert len(found.train.rows) == 10


def test_answers_are_held_out_of_the_evaluation_set_where_nothing_is_kept_for_them(loaded):
    """As many as the recipe wants."""
    for number in (0, 2):
        more = f"[train]\nsamples = {number}"
        found = loaded(instructions(20), 'split = "7:3:0"', more=more)

        assert found.test.rows is None
        assert [f"{p} c{p[1:]}" for p in asked(found)] == texts(found.eval[""])[:number]


def test_files_for_evaluation_take_the_place_of_a_share(loaded):
    """By their names, in the recipe's order, and nothing of the training file is evaluated."""
    found = loaded(
        instructions(20),
        'split = "9:5:1"\neval = {domain = "domain.jsonl", general = "general.jsonl"}',
        domain=instructions(3, 100),
        general=instructions(2, 200),
    )

    assert {name: rows["text"][0] for name, rows in found.eval_rows.items()} == {
        "domain": "p100 c100",
        "general": "p200 c200",
    }
    assert len(found.train.rows) + len(found.test.rows) == 20


def test_exact_duplicates_stay_on_one_side(loaded):
    """Nothing of what is evaluated has been learnt; every row is still there."""
    rows = [{"prompt": f"p{i % 10}", "completion": "c"} for i in range(40)]

    found = loaded(rows, 'split = "6:2:2"')

    parts = [texts(part) for part in (found.train, found.eval[""], found.test)]
    assert [len(part) for part in parts] == [24, 8, 8]
    assert len({text for part in parts for text in part}) == sum(len(set(p)) for p in parts) == 10


def test_rows_that_are_the_same_only_when_run_together_are_two(loaded):
    """Where a prompt ends is part of it."""
    rows = [{"prompt": "a", "completion": "bc"}, {"prompt": "ab", "completion": "c"}]

    found = loaded(rows, 'split = "1:1:0"')

    assert (len(found.train.rows), len(found.eval[""].rows)) == (1, 1)


def test_the_last_of_few_rows_is_trained_on(loaded):
    """A share of too few rows is none."""
    found = loaded(instructions(1))

    assert (len(found.train.rows), found.eval_rows, found.test.rows) == (1, {}, None)


def test_faulty_rows_and_formats_are_the_readers_business(loaded):
    """It is told what the recipe says."""
    rows = [*instructions(9), {"prompt": 7}]

    with pytest.raises(UserError):
        loaded(rows)
    assert len(loaded(rows, 'on_bad = "skip"\nsplit = "1:0:0"').train.rows) == 9
    with pytest.raises(UserError):
        loaded(instructions(9), 'format = "messages"')


def test_rows_of_another_kind_than_the_tasks_are_refused(loaded):
    """Pairs of a better and a worse reply are not for fine-tuning."""
    pairs = [{"prompt": "p", "chosen": "a", "rejected": f"b{i}"} for i in range(9)]

    with pytest.raises(UserError, match=r"preference|DPO"):
        loaded(pairs)


def test_rows_of_which_nothing_is_learnt_are_left_out_and_counted(loaded):
    """So are those that are cut, and the tokens that are left of them."""
    rows = [
        {"prompt": "a a", "completion": "a"},
        {"prompt": "a", "completion": "nothing"},
        {"prompt": "a " * 9, "completion": "a a"},
    ]

    found = loaded(rows, 'split = "1:0:0"\nmax_length = 8')

    told = found.train
    assert (len(told.rows), told.num_dropped, told.num_cut) == (2, 1, 1)
    assert (told.num_tokens, told.num_learnt) == (3 + 8, 2)


def test_rows_are_counted_as_they_are_written(reading, tmp_path):
    """For the heartbeat."""
    one, ticks = reading(instructions(12)), Ticks()

    one.load(tmp_path / "rows-1", one.draw(), ticks)

    assert ticks.num == 12


def test_another_process_maps_what_the_first_has_written(reading, tmp_path, monkeypatch):
    """It waits until all is there, and reads no row itself."""
    one = reading(instructions(20))
    first = one.load(tmp_path / "rows-1", one.draw(), Ticks())
    (tmp_path / "rows.jsonl").unlink()
    done = tmp_path / "rows-1" / "done.json"
    done.unlink()
    waited = []
    monkeypatch.setattr(
        data, "time", SimpleNamespace(sleep=lambda s: waited.append(s) or done.write_text("{}"))
    )

    other = one.load(tmp_path / "rows-1", None, Ticks())

    assert len(waited) == 1
    assert texts(other.train) == texts(first.train)
    assert texts(other.eval[""]) == texts(first.eval[""])


def test_rows_of_an_earlier_start_are_not_taken_for_new_ones(reading, tmp_path):
    """What lies there is taken away, that of an earlier attempt too."""
    old = reading(instructions(20))
    for number in (1, 0):
        old.load(tmp_path / f"rows-{number}", old.draw(), Ticks())
    (tmp_path / "rows-7").mkdir()
    new = reading(instructions(5, 500), 'split = "1:0:0"')

    found = new.load(tmp_path / "rows-1", new.draw(), Ticks())

    assert texts(found.train) == [f"p{i} c{i}" for i in range(500, 505)]
    assert [path.name for path in tmp_path.glob("rows-*")] == ["rows-1"]


def test_chats_are_written_by_the_template_that_the_recipe_names(reading):
    """The tokenizer's own, or one of ours."""
    for choice, source in (("chatml", TEMPLATES["chatml"]), ("model", OWN)):
        one = reading(chats(), f'chat_template = "{choice}"')
        one.draw()
        assert one.encoder.renderer.chats.source == source


def test_chats_without_any_template_are_refused(loaded, tmp_path):
    """Named after the model."""
    with pytest.raises(UserError, match="no chat template") as caught:
        loaded(chats(), template=None)

    assert caught.value.where == str(tmp_path / "model")
    assert caught.value.code is ExitCode.BAD_RECIPE


def test_rows_that_are_no_chats_need_no_template(reading):
    """And leave the tokenizer as it is."""
    one = reading(instructions(9), template=None)

    one.draw()

    assert one.encoder.renderer.chats is None


def test_the_models_own_template_is_tried_before_it_is_used(loaded):
    """In quarantine; one of ours is used without a look at it."""
    hostile = "{{ messages.clear() }}"

    with pytest.raises(UserError, match="is refused") as caught:
        loaded(chats(), template=hostile)

    assert caught.value.code is ExitCode.REFUSED
    loaded(chats(), 'chat_template = "chatml"', template=hostile)


@pytest.mark.parametrize(("learn", "wanted"), [("all", 3), ("last", 1)])
def test_every_reply_is_learnt_or_the_last_of_each_row(loaded, learn, wanted):
    """As the recipe says."""
    found = loaded(chats(turns=3, number=1), f'learn = "{learn}"\nsplit = "1:0:0"')

    assert found.train.num_learnt == wanted


def test_rows_with_other_tools_are_other_rows(reading):
    """Each is drawn for itself; rows that are equal in all that is read go to one part."""
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": turns, "tools": [{"name": name}]} for name in ("f", "g", "f")]

    first, second, third = reading(rows, 'split = "1:1:0"', template="{{ tools }} " + OWN).draw()

    assert (first == third, first == second) == (True, False)
