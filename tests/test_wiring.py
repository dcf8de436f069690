"""Every key of a recipe reaches the library's field that it is meant for, with its value.

The table of `wires`, checked on what the libraries are handed: for every method that runs, with
the defaults and with the table's values.
"""

from __future__ import annotations

import ast
import json
import shutil
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

pytest.importorskip("torch")
import wanted  # after the check for torch
from built import build, train
from wires import ELSEWHERE, SHARED, WIRES

from advisor import recipe as recipes
from advisor.recipe_sections import MethodSection, Section
from advisor.registry.conflicts import conflict
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS
from advisor.registry.spec import keys_of
from profiles.errors import UserError

pytestmark = pytest.mark.slow
BEGUN = (0, 1, 2)
"""Sessions that go on to where training begins: the defaults, first and second values."""
HANDED = (3, 4)
"""Sessions with third and fourth values, which a CPU in one process does not train with."""


def keys(method):
    """Every key of a recipe with this method, dotted, with its field of the schema."""
    found = {}
    for name, about in recipes.schema().model_fields.items():
        kinds = [k for k in (about.annotation, *get_args(about.annotation)) if is_table(k)]
        if not kinds:
            found[about.alias or name] = about
        for kind in kinds:
            if not issubclass(kind, MethodSection) or kind.model_fields["name"].default == method:
                found |= {f"{name}.{key}": inner for key, inner in kind.model_fields.items()}
    return found


def is_table(kind):
    return isinstance(kind, type) and issubclass(kind, Section)


def choices(method, key, about):
    """The values that can be run, where all are known by name.

    Each optimizer has a line in test_optimizers.py, each schedule one in test_schedules.py.
    """
    registries = {
        "task": TASKS,
        "hardware.strategy": ENGINES,
    }
    if key in registries:
        return set(registries[key].ready)
    settings = keys_of(METHODS[method].settings)
    name = key.removeprefix("method.")
    if key != name and name in settings:
        known = set(settings[name][1].choices) - set(settings[name][1].not_yet)
        return {value for value in known if goes(METHODS[method], {name: value})}
    if about.annotation is bool:
        return {False, True}
    return set(get_args(about.annotation)) if get_origin(about.annotation) is Literal else set()


def goes(spec, settings):
    """The value goes with the method's own; others are refused with a reason."""
    return not conflict(spec, spec.settings(**settings), OPTIMIZERS["adamw"], ENGINES["single"])


def own(method):
    """Keys of its settings."""
    return {f"method.{name}" for name in keys_of(METHODS[method].settings)}


def is_elsewhere(method, key):
    """Another test than this one sees what this key of the method does."""
    entry = ELSEWHERE.get(key)
    return entry is not None and (not entry.methods or method in entry.methods)


EVERY_KEY = [
    (method, key)
    for method in METHODS.ready
    for key in keys(method)
    if method in SHARED or key in own(method)
]
EVERY_WIRE = [
    (method, wire) for method in METHODS.ready for wire in WIRES if method in wire.methods
]
WIRE_IDS = [f"{method}-{wire.key}-{wire.field}" for method, wire in EVERY_WIRE]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """Two models, and rows that begin with the format they are read in, or with their file."""
    folder = tmp_path_factory.mktemp("wiring")
    for name in ("base", "other"):
        shutil.copytree(tiny_model, folder / name)
        (folder / name / "chat_template.jinja").write_text(wanted.OWN_TEMPLATE)
    files = {"plain": wanted.NUM_ROWS, "mixed": wanted.NUM_ROWS, "held": wanted.NUM_HELD_OUT}
    for name, num_rows in files.items():
        rows = wanted.rows(name, num_rows)
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def session(folder):
    """Method and number -> what the libraries were handed, built once."""
    built = {}

    def made(method, number):
        if (method, number) not in built:
            recipe = content(method, number, folder)
            built[method, number] = build(recipe, folder / "home", begin=number in BEGUN)
        return built[method, number]

    return made


def content(method, number, folder):
    """The recipe of a session: 0 has nothing but what it must have."""
    flat = {"schema": 1, "name": "tiny", "model.id": "base", "data.train": "plain.jsonl"}
    flat["method.name"] = method
    for wire in WIRES if number else ():
        if wire.values and method in wire.methods:
            flat[wire.key] = wire.values[min(number, len(wire.values)) - 1]
    if flat.get("hardware.strategy", "single") != "single":
        flat["hardware.gpus"] = 2
    for key in ("model.id", "data.train", "data.eval"):
        if flat.get(key):
            flat[key] = str(folder / flat[key])
    return nested({key: value for key, value in flat.items() if value is not None})


def nested(flat):
    """Dotted keys to tables."""
    found = {}
    for dotted, value in flat.items():
        *tables, key = dotted.split(".")
        table = found
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = value
    return found


SLOW = frozenset({"eva"})
"""Methods that look at the rows before they begin."""
WIRE_PARAMS = [
    pytest.param(method, wire, id=name, marks=[pytest.mark.long] if method in SLOW else [])
    for (method, wire), name in zip(EVERY_WIRE, WIRE_IDS, strict=True)
]


@pytest.mark.parametrize(("method", "wire"), WIRE_PARAMS)
def test_a_value_reaches_the_library(session, method, wire):
    """The default, and every value of the table."""
    for number in (*BEGUN, *HANDED) if wire.early else BEGUN:
        built = session(method, number)
        assert attrgetter(wire.field)(built) == wire.expected(built), f"session {number}"


@pytest.mark.parametrize(("method", "key"), EVERY_KEY)
def test_every_key_is_wired_or_has_a_test_of_its_own(method, key):
    """A key that is added must be added here."""
    wires = [wire for wire in WIRES if wire.key == key and method in wire.methods]

    assert bool(wires) != is_elsewhere(method, key)


@pytest.mark.parametrize(("method", "key"), [one for one in EVERY_KEY if not is_elsewhere(*one)])
def test_every_wired_key_has_another_value_and_all_that_can_be_chosen(folder, method, key):
    """Else a wire that hangs loose would look like one that holds the default."""
    numbers = (*BEGUN, *HANDED)
    sent = [recipes.validate(content(method, n, folder), where="test") for n in numbers]
    found = [attrgetter(key)(recipe) for recipe in sent]
    possible = choices(method, key, keys(method)[key])

    assert possible <= set(found)
    assert len(set(found)) > 1 or key == "method.name" or len(possible) == 1


def test_the_table_names_no_key_that_is_gone():
    """Nor a test that is gone."""
    known = {key for _, key in EVERY_KEY}
    named = {one.test for one in ELSEWHERE.values()}
    found = set()
    for name in {test.split("::")[0] for test in named}:
        tree = ast.parse((Path(__file__).parent / name).read_text())
        found |= {f"{name}::{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef)}

    assert {wire.key for wire in WIRES} | set(ELSEWHERE) == known
    assert named <= found


def test_a_bad_row_is_refused_unless_it_may_be_skipped(folder):
    """`data.on_bad` as it is by default."""
    with pytest.raises(UserError, match="1 of"):
        build(nested_with(folder, {"data.train": str(folder / "mixed.jsonl")}), folder / "home")


def test_names_and_predictions_change_nothing_of_the_training(folder):
    """[plan] and the name are for people."""
    plan = {"machine": "m", "peak_bytes": 1, "peak_low_bytes": 1, "peak_high_bytes": 1}
    plan |= {"tokens_per_second": 1.0, "hours": 1.0, "advisor_version": "1", "path": ["a"]}
    told = {f"plan.{key}": value for key, value in plan.items()} | {"name": "another"}

    bare, full = (
        build(nested_with(folder, more), folder / "home", begin=False) for more in ({}, told)
    )

    assert set(plan) == {key.split(".")[1] for _, key in EVERY_KEY if key.startswith("plan.")}
    assert vars(full.loading) == vars(bare.loading)
    assert settings_of(full) == settings_of(bare)


def nested_with(folder, more):
    """The defaults of a LoRA with these keys."""
    return content("lora", 0, folder) | nested(more)


def settings_of(built):
    """All but where the run writes."""
    return {k: v for k, v in built.args.to_dict().items() if k not in ("output_dir", "logging_dir")}


STEPS = {"max_steps": 4, "save_every": 1}
LIGHT = {"loss": "full", "keep_checkpoints": 2, "micro_batch": 2, "accumulation": 3}


@pytest.mark.parametrize(
    ("settings", "forward", "num_forwards", "norm", "kept"),
    [
        ({}, (1, True), 1, 1.0, [4, 3, 2]),
        (LIGHT | {"max_grad_norm": 0.3}, (2, False), 3, 0.3, [4, 3]),
    ],
)
def test_a_run_makes_its_steps_as_the_recipe_says(
    folder, settings, forward, num_forwards, norm, kept
):
    """Rows of a forward pass, how its loss is made, passes of a step, clipping, checkpoints."""
    recipe = content("lora", 0, folder)
    recipe["data"]["split"] = "1:0:0"

    done = train(recipe | {"train": STEPS | settings}, folder / "home")

    counts = [count for _, count in done.clips]
    assert set(done.forwards) == {forward}
    assert {after - before for before, after in pairwise(counts)} == {num_forwards}
    assert [allowed for allowed, _ in done.clips] == [norm] * STEPS["max_steps"]
    assert done.kept == kept
