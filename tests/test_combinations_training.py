"""What `recipe check` accepts trains: combinations of everything, drawn, are really started.

Two steps each in this process on a tiny random Llama. What the model makes impossible is refused
before the first step, and nothing ends with an error of a library.
"""

from __future__ import annotations

import json
import random
import time

import pytest

torch = pytest.importorskip("torch")

import combinations  # noqa: E402
import real_runs  # noqa: E402
import tiny_families  # noqa: E402

from advisor.registry.lookup import OPTIMIZERS, TASKS  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from profiles.runs import durable, rundir  # noqa: E402
from runner.checks import pairing  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.long]
NUMBER, STEPS, MORE_STEPS = 168, 2, 12
"""More for those that two are too few for."""
FAMILIES = ("llama", "mixtral")
"""The second has experts, each time after the first."""
TRAIN = {"warmup": 0.1, "samples": 0, "learning_rate": 1e-3, "save_every": 2}


def sample():
    """Accepted recipes for one device here, all different, in an order that is always the same."""
    chosen = combinations.drawn()
    random.Random(1).shuffle(chosen)  # noqa: S311  # nothing is kept secret
    found = {}
    for one in chosen:
        if OPTIMIZERS[one["optimizer"]].needs_gpu or one["precision"] == "fp16":
            continue
        asked = one | {"strategy": "single"}
        recipe = combinations.led_to(combinations.recipe_of(asked))
        found.setdefault(recipe.model_dump_json(), recipe)
        if len(found) == NUMBER:
            break
    return list(found.values())


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Family -> folder of a tiny model."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: tiny_families.save(name, folder / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Kind of rows -> file of two dozen."""
    folder, made = tmp_path_factory.mktemp("rows"), {}
    for kind in ("replies", "text", "preference", "rated", "label"):
        made[kind] = folder / f"{kind}.json"
        found = [row_of(kind, n, row) for n, row in enumerate(instruction_rows(24, seed=1))]
        made[kind].write_text(json.dumps(found))
    return made


def row_of(kind, number, row):
    """An order and its record as a row of this kind."""
    asked, good = f"{row['instruction']} {row['input']}\n", row["output"]
    return {
        "replies": row,
        "text": {"text": asked + good},
        "preference": {"prompt": asked, "chosen": good, "rejected": row["input"]},
        "rated": {"prompt": asked, "completion": good, "label": number % 2 == 0},
        "label": {"text": asked, "label": ("lamps", "chairs")[number % 2]},
    }[kind]


def started(recipe, base, data):
    """The run, ready for its attempt: the recipe with this model and these rows."""
    content = recipe.model_dump(by_alias=True, exclude_none=True, mode="json")
    content["model"]["id"], content["data"]["train"] = str(base), str(data)
    content["data"]["split"] = "8:2:0"
    steps = MORE_STEPS if recipe.method.settings.too_short(STEPS) else STEPS
    content["train"] |= TRAIN | {"max_steps": steps}
    recipe = type(recipe).model_validate(content)
    run = rundir.create("tiny")
    durable.write_json(run.manifest, {"schema": 1, "created": time.time(), "base_dir": "/"})
    durable.write_atomic(run.recipe, recipe.to_toml().encode())
    durable.write_atomic(run.attempt_file, b"1\n")
    return run, recipe


@pytest.mark.parametrize("number", range(NUMBER))
def test_what_is_accepted_trains_or_is_refused_before_the_first_step(number, bases, rows, drawn):
    """By a sentence for people, which says what to do."""
    recipe = drawn[number]
    base = bases[FAMILIES[number % len(FAMILIES)]]
    data = rows[TASKS[recipe.task].learns_from[0]]
    run, recipe = started(recipe, base, data)
    try:
        pairing.check_model(recipe, from_folder(base))
        code = real_runs.attempt(run)
    except UserError as error:
        refused = error
    else:
        made = [step["step"] for step in real_runs.steps(run)]
        assert (code, made[-1]) == (0, recipe.train.max_steps)
        assert real_runs.weights(run)
        return
    assert refused.do
    assert not real_runs.steps(run), run.recipe.read_text()


@pytest.fixture(scope="module")
def drawn():
    """All of them."""
    return sample()
