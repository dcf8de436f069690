"""Linears and layers that a recipe names and its model does not have are told before the start."""

from __future__ import annotations

import pytest

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.models.model import from_folder
from runner.checks import pairing

RECIPE = """\
schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
[method]
name = "lora"
"""


def refused(folder, settings):
    """What a recipe with these lines of [method] is told of the model; None if it may start."""
    recipe = recipes.parse(RECIPE + settings, where="r")
    try:
        pairing.check_model(recipe, from_folder(folder))
    except UserError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ('targets = ["q_proj", "v_prj"]', "targets", ("'v_prj'", "did you mean `v_proj`?")),
        ('exclude = ["k_prj"]', "exclude", ("'k_prj'", "did you mean `k_proj`?")),
        ('targets = ["q_proj"]\nexclude = ["q_proj"]', "exclude", ("all that method.targets",)),
        (
            'targets = ["q_proj"]\nexclude = ["k_proj"]',
            "exclude",
            ("'k_proj', which is no target",),
        ),
        ('targets = "attention"\nexclude = ["up_proj"]', "exclude", ("'up_proj', which is no",)),
        ('targets = ["q_proj", "embed_tokens"]', "targets", ("'embed_tokens'", "be merged")),
        ('targets = ["lm_head"]', "targets", ("'lm_head'", "be merged")),
        ("ranks = { q_prj = 4 }", "ranks", ("'q_prj'", "did you mean `q_proj`?")),
        ('targets = ["q_proj"]\nranks = { k_proj = 4 }', "ranks", ("'k_proj', which is no",)),
        ('exclude = ["k_proj"]\nranks = { k_proj = 4 }', "ranks", ("'k_proj', which is no",)),
        ("layers = [0, 2]", "layers", ("names layer 2", "from 0 to 1")),
        ('layers = "last 3"', "layers", ("the last 3 of 2 layers",)),
        ('rank = 129\ninit = "pissa"', "rank", ("is 129, and", "has 128 directions")),
        ('init = "olora"\nranks = { k_proj = 130 }', "ranks", ("is 130, and k_proj has 128",)),
    ],
)
def test_what_the_model_does_not_have_is_refused_with_the_nearest(tiny_model, settings, key, words):
    """PEFT would pass over it as long as another name matches, or merge what is tied."""
    found = refused(tiny_model, settings)

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, f"method.{key}")
    assert all(word in found.why for word in words)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ("layers = [0, 2]", "layers"),
        ('layers = "last 3"', "layers"),
        ('init = "pissa"\nrank = 400', "rank"),
    ],
)
def test_the_change_that_is_offered_may_start(tiny_model, settings, key):
    """As it is written."""
    offered = refused(tiny_model, settings).do.split("'")[1].removeprefix(f"method.{key}=")
    others = [line for line in settings.splitlines() if not line.startswith(key)]

    assert refused(tiny_model, "\n".join([*others, f"{key} = {offered}"])) is None


def test_settings_that_the_model_cannot_have_are_not_answered_with_another_method_alone(tiny_model):
    """Without them it can be trained so."""
    shira = recipes.parse(RECIPE.replace('"lora"', '"shira"'), where="r")
    wide = recipes.parse(RECIPE.replace('"lora"', '"shira"') + "rank = 1000", where="r")

    pairing.check_model(shira, from_folder(tiny_model))
    with pytest.raises(UserError, match="cannot be trained with") as told:
        pairing.check_model(wide, from_folder(tiny_model))

    assert "leave its keys out of [method]" in told.value.do


def test_layers_that_are_there_stay_in_the_change_that_is_offered(tiny_model):
    """What was meant is not thrown away with what was wrong."""
    assert "method.layers=[0]'" in refused(tiny_model, "layers = [0, 2]").do


@pytest.mark.parametrize("method", ["vera", "oft", "loha", "lokr", "shira", "adalora", "eva"])
def test_every_method_with_targets_looks_for_them(tiny_model, method):
    """A name that is no linear of the model would be passed over."""
    text = RECIPE.replace('"lora"', f'"{method}"')
    for name, word in (("v_prj", "did you mean `v_proj`?"), ("lm_head", "be merged")):
        recipe = recipes.parse(f'{text}targets = ["q_proj", "{name}"]', where="r")
        with pytest.raises(UserError, match="does not fit the model") as told:
            pairing.check_model(recipe, from_folder(tiny_model))

        assert word in told.value.why


@pytest.mark.parametrize("value", ["[4]", "[[4]]", "3", "{ q_proj = 0 }", "{ q_proj = 2.5 }"])
def test_ranks_are_a_table_of_names(value):
    """Told, whatever stands there."""
    with pytest.raises(UserError, match="1 mistake") as caught:
        recipes.parse(f"{RECIPE}ranks = {value}", where="r")

    assert "table of names with whole numbers of 1 to" in caught.value.why


@pytest.mark.parametrize(
    "settings",
    [
        'targets = ["q_proj", "up_proj"]\nexclude = ["q_proj"]',
        'exclude = ["k_proj", "down_proj"]',
        'targets = "attention"\nexclude = ["o_proj"]',
        'layers = "last 2"',
        "ranks = { q_proj = 4, down_proj = 64 }",
        "layers = [1]",
        'init = "pissa"\nrank = 128',
        "rank = 129",
        'init = "pissa"\nrank = 400\ntargets = ["up_proj"]\nranks = { up_proj = 64 }',
    ],
)
def test_what_the_model_has_may_start(tiny_model, settings):
    """Every name and number is there."""
    assert refused(tiny_model, settings) is None


@pytest.mark.parametrize("value", ['"last"', '"last 0"', '"first 2"', "[]", "[-1]", "[1.0]", "3"])
def test_layers_are_numbers_or_the_last_ones(value):
    """Nothing else is guessed at."""
    with pytest.raises(UserError, match="1 mistake") as caught:
        recipes.parse(f"{RECIPE}layers = {value}", where="r")

    assert "list of numbers of layers from 0 on" in caught.value.why


@pytest.mark.parametrize(
    "settings", ['layers = "last 3"', "layers = [2, 0]", 'exclude = ["o_proj"]']
)
def test_layers_and_names_are_the_same_after_a_recipe_is_written(settings):
    """And read again."""
    recipe = recipes.parse(RECIPE + settings, where="r")

    again = recipes.parse(recipe.to_toml(), where="r")

    assert "[]" not in recipe.to_toml()
    assert again.method.settings == recipe.method.settings
