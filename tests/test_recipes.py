"""The ready recipes: sound, and true about where they fit."""

from __future__ import annotations

import pytest
from known import HOST, model

from advisor import recipe
from advisor.choice import fit
from advisor.choice.devices import framework_on
from profiles import installation
from profiles.machines import planned

PLACES = {
    "lora-small-gpu": ("1x RTX 3070", "qwen2.5-1.5b"),
    "qlora-24gb": ("1x RTX 4090", "llama-3.1-8b"),
    "qlora-70b-4x24gb": ("4x RTX 4090", "llama-3.1-70b"),
    "lora-80gb": ("1x A100 80GB", "llama-3.1-8b"),
    "full-8x80gb-fsdp": ("8x A100 80GB", "llama-3.1-8b"),
    "demo": (None, "qwen2.5-0.5b"),
}


def test_every_recipe_has_a_place():
    """A new recipe must say where it fits."""
    assert {p.stem for p in installation.recipes_dir().glob("*.toml")} == set(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_a_ready_recipe_fits_where_it_says(name):
    """By the upper end of the estimate, rows as long as its max_length."""
    path = installation.recipes_dir() / f"{name}.toml"
    found = recipe.parse(path.read_text(), where=str(path))
    gpus, base = PLACES[name]
    machine = planned.plan_machine(gpus, host=HOST) if gpus else HOST

    judged = fit.judge(model(base), machine, found.to_plan(framework_on(machine)))

    assert judged.fits, judged.memory
