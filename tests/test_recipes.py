"""The ready recipes: sound, and true about where they fit."""

from __future__ import annotations

import json
import shlex

import pytest
from known import HOST, model

from advisor import recipe
from advisor.choice import fit
from advisor.choice.devices import framework_on
from advisor.registry.lookup import TASKS
from profiles import installation
from profiles.machines import planned

PLACES = {
    "lora-small-gpu": ("1x RTX 3070", "qwen2.5-1.5b"),
    "qlora-24gb": ("1x RTX 4090", "llama-3.1-8b"),
    "qlora-70b-4x24gb": ("4x RTX 4090", "llama-3.1-70b"),
    "lora-80gb": ("1x A100 80GB", "llama-3.1-8b"),
    "full-8x80gb-fsdp": ("8x A100 80GB", "llama-3.1-8b"),
    "demo": (None, "qwen2.5-0.5b"),
    "qlora-mixture": ("1x L40S", "mixtral-8x7b"),
    "full-24gb": ("1x RTX 4090", "qwen2.5-0.5b"),
    "long-context": ("1x A100 80GB", "qwen2.5-7b"),
    "for-personal": ("1x RTX 4070", "llama-3.1-8b"),
    **dict.fromkeys(
        (
            *("pissa", "p-tuning", "prefix-tuning", "p-tuning-v2"),
            *("adalora", "eva", "vera", "loha", "lokr", "oft", "shira"),
            *("pretrain", "dpo", "orpo", "kto", "reward", "classify"),
            *("sft-after-pretrain", "dpo-after-sft", "monthly-refresh"),
        ),
        ("1x RTX 3070", "qwen2.5-1.5b"),
    ),
    **dict.fromkeys(
        ("full-8bit", "full-adafactor", "full-galore", "full-apollo", "full-lomo", "freeze"),
        ("1x RTX 4090", "qwen2.5-1.5b"),
    ),
    **dict.fromkeys(
        (
            *("lora-plus", "lora-fa", "prompt-tuning", "ia3", "ln-tuning", "bitfit"),
            *("adapter", "lora-experts"),
            *("for-finance", "for-education", "for-research", "for-enterprise"),
            *("for-prototype", "for-production"),
        ),
        ("1x RTX 4090", "qwen2.5-7b"),
    ),
    **dict.fromkeys(
        ("dora", "rslora", "qlora-8bit", "llama-adapter", "for-medical", "for-law"),
        ("1x RTX 4090", "llama-3.1-8b"),
    ),
}
"""The machine that the recipe's comment names, and the model that it does."""


def test_every_recipe_has_a_place():
    """A new recipe must say where it fits."""
    assert {p.stem for p in installation.recipes_dir().glob("*.toml")} == set(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_a_ready_recipe_fits_where_it_says(name):
    """By the upper end of the estimate, rows as long as its max_length."""
    found = ready(name)
    gpus, base = PLACES[name]
    machine = planned.plan_machine(gpus) if gpus else HOST

    judged = fit.judge(model(base), machine, found.to_plan(framework_on(machine)))

    assert judged.fits, judged.memory
    assert base in found.model.id.lower() or name == "demo"


def test_methods_and_tasks_have_a_recipe_each():
    """Nobody has to write the first one by hand."""
    recipes = [ready(name) for name in PLACES]

    assert {one.task for one in recipes} == set(TASKS.ready)
    assert len({one.method.name for one in recipes}) >= 20
    changed = {"dora": True, "rslora": True, "freeze_a": True, "init": "pissa", "b_rate": 16.0}
    for key, value in changed.items():
        assert any(getattr(one.method.settings, key, None) == value for one in recipes), key


def test_the_list_tells_when_to_take_each_recipe(advisor):
    """The first sentence of its comment, as it stands in the file."""
    shown = advisor("recipe", "list")

    assert shown.returncode == 0, shown.stderr
    named = {line.split()[0] for line in shown.stdout.splitlines() if line[:1].strip()}
    assert set(PLACES) <= named
    assert "KTO on one 8 GB GPU: replies that are marked good or bad one" in shown.stdout
    assert f"cp {shlex.quote(str(installation.recipes_dir()))}/NAME.toml ." in shown.stdout


def test_the_list_as_json_holds_what_a_script_needs_to_start_one(advisor):
    """Its path, its method and task, and the whole comment."""
    found = json.loads(advisor("recipe", "list", "--json").stdout)

    assert [one["name"] for one in found["recipes"]] == sorted(PLACES)
    one = next(one for one in found["recipes"] if one["name"] == "qlora-8bit")
    assert (one["method"], one["task"]) == ("qlora", "sft")
    assert one["about"].endswith("where 4 bits cost too much quality and 16 do not fit.")
    assert advisor("recipe", "check", one["path"]).returncode == 0


def ready(name):
    """The recipe of this name, refused if it is not sound."""
    path = installation.recipes_dir() / f"{name}.toml"
    return recipe.parse(path.read_text(), where=str(path))
