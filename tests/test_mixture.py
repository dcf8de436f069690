"""Several files to train on: what of each is in an epoch, told before and drawn the same again."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import pytest
from data_files import write_rows

from advisor import recipe as recipes
from profiles.data import dataset, mixture
from profiles.errors import UserError
from runner.checks import edits, replay

RECIPE = """schema = 1
name = "r"
[model]
id = "{model}"
[data]
train = {train}
split = "{split}"
[method]
name = "lora"
[train]
seed = {seed}
"""
MIX = '[{file = "a.jsonl"}, {file = "b.jsonl", weight = 0.25}, {file = "c.jsonl", weight = 2.5}]'


def pairs(name, number):
    """Rows that say which file they are of; those of `b` are long."""
    reply = "because " * (9 if name == "b" else 1)
    return [{"prompt": f"{name}{i}?", "completion": reply.strip()} for i in range(number)]


@pytest.fixture
def files(tmp_path):
    """a, b and c, of 40, 40 and 10 rows."""
    for name, number in (("a", 40), ("b", 40), ("c", 10)):
        write_rows(tmp_path, pairs(name, number), f"{name}.jsonl")
    return tmp_path


def recipe_of(train=MIX, *, model="model", split="1:0:0", seed=0):
    """Trains on a mix."""
    text = RECIPE.format(train=train, model=model, split=split, seed=seed)
    return recipes.parse(text, where="r.toml")


@pytest.mark.parametrize(
    ("num_rows", "weight", "expected"),
    [
        (1000, 0.05, (1000, 50, 50)),
        (1000, 1, (1000, 1000, 1000)),
        (1000, 2.5, (1000, 1000, 2500)),
        (3, 0.5, (3, 2, 2)),
        (3, 0.01, (3, 1, 1)),
        (7, 1.2, (7, 7, 8)),
    ],
)
def test_a_weight_is_how_often_each_row_is_there(num_rows, weight, expected):
    """Rounded to whole rows, one at least."""
    assert mixture.drawn(num_rows, weight) == expected


def test_below_one_no_row_is_twice_above_it_all_are_as_often():
    """But for the remainder."""
    found = mixture.times([40, 40, 10], [1, 0.25, 2.5], 0)

    assert list(found[:40]) == [1] * 40
    assert Counter(found[40:80]) == {1: 10, 0: 30}
    assert Counter(found[80:]) == {2: 5, 3: 5}


def test_the_seed_and_the_place_decide_and_nothing_else():
    """Other files beside it, or more rows in them, change nothing."""
    first = mixture.times([40, 40], [1, 0.25], 0)

    assert mixture.times([9, 40], [3, 0.25], 0)[27 - 18 :] == first[40:]
    assert mixture.times([40, 40], [1, 0.25], 1) != first
    assert mixture.times([40, 40], [0.25, 0.25], 0)[:40] != first[40:]


@pytest.fixture
def loaded(files, tiny_model):
    """What a run trains on, evaluates with and keeps, as the prompts of the rows."""
    pytest.importorskip("torch")
    from runner.training import data

    def columns(example, render, max_length):
        return {"prompt": example.prompt, "num": min(render(example).num_tokens, max_length)}

    def load(**options):
        recipe = recipe_of(model=tiny_model, **options)
        from transformers import AutoTokenizer

        encoder = data.encoder_of(recipe, tiny_model, AutoTokenizer.from_pretrained(tiny_model))
        reading = data.Reading(recipe=recipe, base_dir=files, encoder=encoder, columns=columns)
        splits = reading.load(files / "rows-1", reading.draw(), SimpleNamespace(tick=lambda: None))
        parts = (splits.train, *splits.eval.values(), splits.test)
        return splits, [list(part.rows["prompt"]) if part.rows else [] for part in parts]

    return load


def test_a_run_has_the_rows_of_each_file_as_often_as_it_says(loaded):
    """40 of a, 10 of b, 25 of c; the same ones again."""
    splits, (train, *rest) = loaded()

    assert Counter(prompt[0] for prompt in train) == {"a": 40, "b": 10, "c": 25}
    assert max(Counter(prompt for prompt in train if prompt[0] == "b").values()) == 1
    assert rest == [[]]
    assert splits.train.counts.num_rows == 75
    assert splits.train.num_tokens == sum(splits.train.rows["num"])
    assert loaded()[1][0] == train
    assert loaded(seed=1)[1][0] != train


def test_a_row_that_is_repeated_stays_on_one_side(loaded):
    """And is evaluated with once."""
    _, (train, evaluation, kept) = loaded(split="2:1:1")

    assert not set(train) & set(evaluation)
    assert not (set(train) | set(evaluation)) & set(kept)
    assert len(set(evaluation)) == len(evaluation) == 15
    assert len(set(kept)) == len(kept) == 15
    assert len(set(train)) == 30
    assert {n for prompt, n in Counter(train).items() if prompt[0] == "c"} <= {2, 3}


def test_what_is_told_before_is_what_is_drawn(files, loaded, tiny_model):
    """Rows, and the tokens that are to be expected."""
    from runner.checks import preflight

    ready = preflight.check(recipe_of(model=tiny_model), files, share=True)
    splits, _ = loaded()

    assert "a.jsonl: 40 of 40 rows an epoch (weight 1)" in ready.rows
    assert "b.jsonl: 10 of 40 rows an epoch (weight 0.25)" in ready.rows
    assert "c.jsonl: 25 of 10 rows an epoch (weight 2.5)" in ready.rows
    assert "about 75 to train on" in ready.rows
    assert ready.dataset.num_rows == 75
    assert ready.dataset.tokens.at(None).num_rows == 75
    assert ready.dataset.tokens.total == pytest.approx(splits.train.num_tokens, rel=0.03)


def test_lengths_of_a_mix_are_those_of_its_files_by_weight(files):
    """A weight that is a whole number gives exactly its rows again."""
    a, b = (dataset.inspect(files / f"{name}.jsonl") for name in "ab")
    twice = dataset.inspect(
        write_rows(files, pairs("a", 40) + pairs("b", 40) * 2, "whole.jsonl")
    ).dataset.tokens

    found = mixture.mixed([a, b], [1, 2]).dataset.tokens

    assert (found.lengths, found.starts, found.edges) == (
        twice.lengths,
        twice.starts,
        twice.edges,
    )
    assert (found.min, found.median, found.p95, found.max, found.total) == (
        twice.min,
        twice.median,
        twice.p95,
        twice.max,
        twice.total,
    )
    rarely = mixture.mixed([a, b], [1, 0.1]).dataset.tokens
    assert sum(count for _, count in rarely.lengths) == 44


def test_rows_that_two_files_share_are_told(files):
    """And so is what one of them has to say."""
    write_rows(files, pairs("a", 5) + pairs("d", 5) * 2, "d.jsonl")
    a, d = (dataset.inspect(files / f"{name}.jsonl") for name in "ad")

    warnings = mixture.mixed([a, d], [1, 1]).dataset.warnings

    assert "5 rows of d.jsonl are also in a.jsonl" in warnings
    assert any(one.startswith("d.jsonl: 5 of 15 rows repeat") for one in warnings)


def test_rows_of_any_file_that_are_evaluated_with_are_told(files):
    """Not those of the first file alone."""
    a, b = (dataset.inspect(files / f"{name}.jsonl") for name in "ab")
    held = dataset.inspect(write_rows(files, pairs("b", 3), "held.jsonl"))

    told = held.compared_with(mixture.mixed([a, b], [1, 1])).dataset.warnings

    assert "3 rows of the evaluation are also trained on" in told


def test_every_file_of_a_mix_is_in_the_lock(files):
    """By its place; a change of one is a change of the data."""
    recipe = recipe_of()
    lock = replay.found(recipe, files, {}, {})
    assert [name for name in lock["sha256"] if name.startswith("data.")] == [
        f"data.train.{place}.file" for place in range(3)
    ]

    write_rows(files, pairs("c", 11), "c.jsonl")
    (change,) = replay.changes(lock, replay.found(recipe, files, lock, {}))

    assert (change.name, change.input_key) == ("data.train.2.file",) * 2


def test_another_weight_is_refused_at_a_resume_another_path_is_not(files):
    """Held-out rows may have been learnt; what lies at another path the hashes tell."""
    lock = json.loads(json.dumps(replay.found(recipe_of(), files, {}, {})))
    other = recipe_of(MIX.replace("0.25", "0.5"))

    (change,) = replay.changes(lock, replay.found(other, files, lock, {}))

    assert (change.recipe_key, change.then, change.now) == ("data.train.1.weight", "0.25", "0.5")
    assert edits.refusal(change.recipe_key)
    assert not edits.refusal("data.train.1.file")
    assert edits.refusal("data.train.1.file.x")


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ("[]", "data.train"),
        ('[{file = "a.jsonl"}, {file = "a.jsonl"}]', "twice in the mix"),
        ('[{file = "a.jsonl", weight = 0}]', "weight"),
        ('[{file = "a.jsonl", weight = -1.0}]', "weight"),
        ('[{file = "a.jsonl", share = 1}]', "share"),
        ('[{file = "~/a.jsonl"}]', "~"),
        ('["a.jsonl"]', "data.train"),
    ],
)
def test_what_is_no_mix_is_refused(train, told):
    """With the key."""
    with pytest.raises(UserError) as caught:
        recipe_of(train)
    assert told in f"{caught.value.what} {caught.value.why} {caught.value.do}"


def test_a_mix_survives_being_written_down(files):
    """As a recipe of a run is."""
    recipe = recipe_of(MIX.replace("weight = 0.25", "weight = 3"))

    again = recipes.parse(recipe.to_toml(), where="again")

    assert again == recipe
    assert [one.weight for one in again.data.train_files] == [1.0, 3.0, 2.5]


def test_a_mix_is_divided_by_the_values_of_a_column_too(files, loaded, tiny_model):
    """As it is told before."""
    from runner.checks import preflight

    for name in "abc":
        number = 10 if name == "c" else 40
        rows = [row | {"kind": name} for row in pairs(name, number)]
        write_rows(files, rows, f"{name}.jsonl")
    split = '1:1:0"\nsplit_by = "kind'

    _, (train, evaluation, _) = loaded(split=split)
    ready = preflight.check(recipe_of(model=tiny_model, split=split), files, share=True)

    assert Counter(prompt[0] for prompt in evaluation) == {"a": 20, "b": 5, "c": 5}
    assert Counter(prompt[0] for prompt in set(train)) == {"a": 20, "b": 5, "c": 5}
    assert "by `kind` (about train/eval/kept): a 20/20/0, b 5/5/0, c 5/5/0" in ready.rows


def test_rows_that_are_held_out_are_counted_once_before_as_after(files, loaded, tiny_model):
    """However often their file is in an epoch, and their tokens with them."""
    from runner.checks import preflight

    ready = preflight.check(recipe_of(model=tiny_model, split="2:1:1"), files, share=True)
    splits, (train, evaluation, kept) = loaded(split="2:1:1")

    trained = splits.of_train_file
    assert trained.num_rows == len(train) + len(evaluation) + len(kept)
    assert ready.rows.startswith("about 67 rows")
    assert "about 37 to train on, 15 to evaluate with, 15 kept" in ready.rows
    assert trained.num_rows == pytest.approx(67, abs=4)
    told = ready.dataset.tokens.counts.expected_of(67)
    assert told.num_tokens == pytest.approx(trained.num_tokens, rel=0.1)
    assert told.words in ready.rows
