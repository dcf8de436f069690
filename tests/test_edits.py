"""A recipe that was edited between two attempts: what it says takes effect, or is refused."""

from __future__ import annotations

import json

import pytest

from advisor import recipe as recipes
from advisor.recipe import Recipe
from advisor.recipe_data import DataSection
from advisor.recipe_sections import HardwareSection, ModelSection, TrainSection
from advisor.registry.lookup import METHODS
from profiles.errors import ExitCode, UserError
from profiles.runs import rundir
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Changed
from runner import checkpoints
from runner.checks import edits, replay
from runner.checks.replay import Change

TABLES = {
    "model": ModelSection,
    "data": DataSection,
    "train": TrainSection,
    "hardware": HardwareSection,
}
TEXT = """schema = 1
name = "r"
[model]
id = "m"
[data]
train = "d.json"
[method]
name = "lora"
[train]
max_steps = 9
"""


@pytest.fixture
def run():
    """With a checkpoint."""
    run = rundir.create("edited")
    run.recipe.touch()
    run.manifest.write_text('{"base_dir": "/where/it/began"}')
    staging = checkpoints.stage(run, 4)
    (staging / "weights").write_text("w")
    checkpoints.commit(run, staging, 4)
    return run


def edited(key, then="1", now="2"):
    """A key that was edited."""
    return Change(name=f"recipe: {key}", then=then, now=now)


def all_keys():
    """Of the recipe; those of [method] for each method."""
    found = {f"{table}.{key}" for table, section in TABLES.items() for key in section.model_fields}
    for method in METHODS:
        text = TEXT.replace('"lora"', f'"{method.name}"')
        try:
            found |= set(replay.keys(recipes.parse(text, where="r")))
        except UserError:  # not yet
            continue
    return sorted(found)


def test_every_table_of_a_recipe_is_looked_at():
    """Those that are compared."""
    fields = set(Recipe.model_fields) - {
        "schema_version",
        "name",
        "task",
        "plan",
        "method",
        "objective",
    }
    assert fields == set(TABLES)


@pytest.mark.parametrize("key", all_keys())
def test_what_becomes_of_each_key_is_said(key):
    """In a line of its own, or for its whole table."""
    assert key in edits.EDITS or key.partition(".")[0] in edits.TABLES
    assert edits.refusal(key) != edits.refusal("no.such")


def test_no_line_is_of_a_key_that_there_is_not():
    """It would be of a key that was renamed."""
    assert set(edits.EDITS) <= {"schema", "task", *all_keys()}


def test_a_key_that_nobody_thought_of_is_refused(run):
    """Not taken for one that takes effect."""
    with pytest.raises(UserError, match=r"another no\.such"):
        edits.refuse([edited("no.such")], run)


@pytest.mark.parametrize("key", ["method.rank", "method.alpha", "method.targets", "data.split"])
def test_what_no_checkpoint_goes_with_is_refused_with_both_values(run, key):
    """All of it at once; what takes effect is not named."""
    changed = [edited(key, "16", "8"), edited("train.seed"), edited("train.learning_rate")]

    with pytest.raises(UserError, match=f"another {key}, train.seed$") as caught:
        edits.refuse(changed, run)

    error = caught.value
    assert error.why.startswith(f"{key} was 16, is 8; train.seed was 1, is 2: ")
    assert edits.refusal(key) in error.why
    assert edits.refusal("train.seed") in error.why
    assert "learning_rate" not in error.why
    assert (error.code, error.where) == (ExitCode.BAD_RECIPE, str(run.recipe))
    assert f"advisor run {run.path}" in error.do


def test_what_takes_effect_and_what_is_no_key_is_not_refused(run):
    """Data and packages are somebody else's to judge."""
    others = [Change(name=name, then="a", now="b") for name in ("data.train", "torch")]
    edits.refuse([edited("train.learning_rate"), edited("method.dropout"), *others], run)


def test_without_a_checkpoint_all_takes_effect():
    """The run begins with the base model again."""
    edits.refuse([edited("method.rank")], rundir.create("new"))


def words(run, *changed, step=4, text=TEXT):
    """What a resume says."""
    return list(edits.words(changed, run, recipes.parse(text, where="r"), step))


def test_what_is_gone_on_with_is_told_with_what_it_means(run):
    """From which step a key takes effect; that losses are of other data; a package as it is."""
    others = [Change(name=name, then="a", now="b") for name in ("data.train", "torch")]
    told = words(run, edited("train.learning_rate", "0.1", "0.2"), *others)

    assert told == [
        f"not as the run began: {text}"
        for text in (
            "recipe: train.learning_rate was 0.1, is 0.2; it takes effect after step 4",
            "data.train was a, is b; losses before and after cannot be compared",
            "torch was a, is b",
        )
    ]


def test_from_the_base_model_no_step_is_named(run):
    """All of the run is as the recipe says."""
    (told,) = words(run, edited("train.epochs"), step=0)
    assert told.endswith("is 2")


@pytest.mark.parametrize(
    ("key", "asked", "holds"),
    [
        ("train.log_every", (Changed(step=2, log_every=5), Changed(step=3, log_every=7)), 7),
        ("train.log_every", (Changed(step=3, eval_every=7),), None),
        ("train.eval_every", (Changed(step=3, eval_every=7),), 7),
        ("train.eval_every", (Changed(step=5, eval_every=7),), None),
    ],
    ids=["the last", "another", "the other", "of a step that is made again"],
)
def test_what_a_person_asked_of_the_run_holds_against_its_recipe(run, key, asked, holds):
    """And is said to."""
    journal = Journal(run.worker_events, attempt=1)
    for record in asked:
        journal.append(record)
    journal.close()

    (told,) = words(run, edited(key))

    assert told.endswith(
        "takes effect after step 4" if holds is None else f"asked for {holds}, which holds"
    )


@pytest.mark.parametrize(("last", "is_told"), [(9, False), (4, False), (3, True)])
def test_fewer_steps_than_are_made_are_told(run, last, is_told):
    """The run only finishes."""
    told = words(run, text=TEXT.replace("9", str(last)))
    assert bool(told) is is_told
    assert not told or told == [
        "train.max_steps is 3, and step 4 is made: what is left is to publish"
    ]


def test_values_are_told_as_the_recipe_would_have_them():
    """The comparison's own form."""
    recipe = recipes.parse(TEXT, where="r")
    then = {"recipe": replay.keys(recipe)}
    now = {"recipe": replay.keys(recipe) | {"method.targets": json.dumps(["q_proj"])}}
    (change,) = (one for one in replay.changes(then, now) if one.is_of_recipe)

    assert (change.recipe_key, change.then, change.now) == (
        *("method.targets", '"all"', '["q_proj"]'),
    )
