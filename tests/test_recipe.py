"""Recipes: a closed schema whose mistakes are told all at once, with their lines."""

from __future__ import annotations

import pytest

from advisor import recipe
from advisor.framework import OURS
from profiles.errors import ExitCode, UserError

SOUND = """\
schema = 1
name = "support bot"

[model]
id = "models/base"

[data]
train = "rows.jsonl"

[method]
name = "qlora"
rank = 8

[train]
epochs = 2
"""


def refusal(text):
    """The error that this recipe gives."""
    with pytest.raises(UserError) as caught:
        recipe.parse(text, where="r.toml")
    return caught.value


def test_a_sound_recipe_round_trips():
    """What is written is read back equal."""
    found = recipe.parse(SOUND, where="r.toml")

    assert recipe.parse(found.to_toml(), where="again") == found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rank = 8", "rnak = 8", "line 12: unknown key `method.rnak`; did you mean `rank`?"),
        ("epochs = 2", "epoch = 2", "line 15: unknown key `train.epoch`; did you mean `epochs`?"),
        ("epochs = 2", "epochs = 'two'", "line 15: `train.epochs`"),
        ("epochs = 2", "epochs = -1", "line 15: `train.epochs`"),
        ("epochs = 2", "learning_rate = nan", "line 15: `train.learning_rate`"),
        (
            '"qlora"',
            '"qlroa"',
            "line 11: `method.name`: there is no method 'qlroa'; did you mean `qlora`?",
        ),
        ("rank = 8", "bits = 3", "line 12: `method.bits`"),
        ('id = "models/base"', "", "missing key `model.id`"),
        ("[train]", "[hardware]\ngpus = 2\n[train]", 'strategy "single" goes with gpus = 1'),
        ("[train]", "[shell]\nrun = 'rm'\n[train]", "unknown key `shell`"),
        ("[train]", "[train", "not TOML"),
        ("schema = 1\n", "", "missing key `schema`"),
    ],
)
def test_a_mistake_is_named_with_its_line(old, new, words):
    """Where, what, and what it may have been meant to be."""
    error = refusal(SOUND.replace(old, new))

    assert words in error.why
    assert error.code is ExitCode.BAD_RECIPE


def test_all_mistakes_are_told_at_once():
    """Nobody wants to correct a recipe in five rounds."""
    error = refusal(SOUND.replace("rank", "rnak").replace("epochs", "epoch").replace("id", "di"))

    assert (error.what, len(error.why.splitlines())) == ("the recipe has 4 mistakes", 4)


def test_a_recipe_of_a_newer_schema_is_refused_with_advice():
    """Not with a list of unknown keys."""
    error = refusal(SOUND.replace("schema = 1", "schema = 9"))

    assert (error.code, error.do) == (ExitCode.NEWER_SCHEMA, "upgrade tunedeck")


def test_changes_are_applied_and_checked():
    """`--set` goes through the same schema."""
    changed = recipe.with_changes(SOUND, {"train.epochs": "1", "model.id": "other"}, where="r")

    assert (changed.train.epochs, changed.model.id) == (1.0, "other")


def test_a_change_of_an_unknown_key_is_refused():
    """With the same suggestion as in a file."""
    with pytest.raises(UserError, match="1 mistake"):
        recipe.with_changes(SOUND, {"train.epoch": "1"}, where="r")


def test_full_fine_tuning_has_a_lower_default_learning_rate():
    """The adapters' default would destroy the weights."""
    text = SOUND.replace('name = "qlora"\nrank = 8', 'name = "full"')

    found = recipe.parse(text, where="r")

    assert found.learning_rate == 1e-5


def test_the_plan_carries_what_memory_depends_on():
    """Method, adapters, batch and the cap on rows."""
    plan = recipe.parse(SOUND, where="r").to_plan(OURS, seq_len=300)

    assert (plan.method.name, plan.settings.rank, plan.settings.alpha, plan.seq_len) == (
        "qlora",
        8,
        32,
        300,
    )
    assert len(plan.settings.target_names) == 7


def test_changing_the_method_leaves_the_old_ones_settings_behind():
    """`--set method.name=full` on a LoRA recipe: no rank, and the full method's learning rate."""
    text = SOUND.replace("epochs = 2", "epochs = 2\nlearning_rate = 2e-4")

    changed = recipe.with_changes(text, {"method.name": "full"}, where="r")

    assert (changed.method.name, changed.learning_rate) == ("full", 1e-5)


def test_a_learning_rate_that_was_chosen_stays_when_the_method_changes():
    """Only the old method's default goes."""
    text = SOUND.replace("epochs = 2", "epochs = 2\nlearning_rate = 3e-5")

    changed = recipe.with_changes(text, {"method.name": "full"}, where="r")

    assert changed.learning_rate == 3e-5


def test_a_learning_rate_that_is_set_together_with_the_method_stays():
    """Even if it equals the old method's default."""
    changes = {"method.name": "full", "train.learning_rate": "2e-4"}

    assert recipe.with_changes(SOUND, changes, where="r").learning_rate == 2e-4


def test_a_change_that_replaces_a_table_is_an_error_and_no_crash():
    """`--set train=3 --set method.name=full`."""
    with pytest.raises(UserError, match="mistake"):
        recipe.with_changes(SOUND, {"train": "3", "method.name": "full"}, where="r")
