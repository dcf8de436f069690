"""A recipe that comes with a lock: what changed since is told, other data is refused."""

from __future__ import annotations

import copy
import json
import os
import time
from pathlib import Path

import pytest

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.runs import find_run, listing, rundir
from profiles.runs.state import State, status
from runner.checks import replay
from runner.checks.replay import Change
from tui.commands import inputs

LOCK = {
    "schema": 1,
    "sha256": {"data.train": "3fa0", "model/config.json": "aa", "model/model.safetensors": "bb"},
    "packages": {"torch": "2.10.0", "peft": "0.21.0"},
    "python": "3.11.7",
    "gpu": None,
}
OTHERS = {
    "data.train": ("sha256", "data.train", "9bc1"),
    "model/config.json": ("sha256", "model/config.json", "ff"),
    "torch": ("packages", "torch", "2.13.0"),
}


def changed(section, key, value):
    """The lock with one value of now."""
    now = copy.deepcopy(LOCK)
    now[section][key] = value
    return now


def test_nothing_changed_is_no_change():
    """The lock compared with itself."""
    assert replay.changes(LOCK, LOCK) == ()


@pytest.mark.parametrize("name", OTHERS)
def test_each_difference_is_named_with_both_values(name):
    """A byte of data, of the model, or a package's version."""
    section, key, value = OTHERS[name]

    found = replay.changes(LOCK, changed(section, key, value))

    assert found == (Change(name=name, then=LOCK[section][key], now=value),)


def test_files_and_packages_that_came_or_went_differ():
    """Another shard, a missing file, an uninstalled package, another Python."""
    now = changed("sha256", "model/second.safetensors", "cc") | {"python": "3.12.1"}
    now["sha256"]["data.train"] = None
    now["packages"]["peft"] = None

    assert replay.changes(LOCK, now) == (
        Change(name="data.train", then="3fa0", now="not there"),
        Change(name="model/second.safetensors", then="not there", now="cc"),
        Change(name="peft", then="0.21.0", now="not there"),
        Change(name="python", then="3.11.7", now="3.12.1"),
    )


@pytest.mark.parametrize("lock", [{}, {"sha256": [], "packages": "x"}, {"sha256": {"a": 3}}])
def test_a_lock_of_a_strange_shape_breaks_nothing(lock):
    """A person may have edited it."""
    assert replay.changes(lock, LOCK)
    assert replay.changes(LOCK, lock)


@pytest.mark.parametrize(
    ("name", "meant", "is_refused"),
    [
        ("data.train", (), True),
        ("data.train", ("data.max_length",), True),
        ("data.train", ("data.train",), False),
        ("model/config.json", (), True),
        ("model/config.json", ("model.id",), False),
        ("torch", (), False),
    ],
)
def test_other_inputs_are_refused_unless_meant(name, meant, is_refused):
    """`--set` names what is meant; packages are told only."""
    found = replay.changes(LOCK, changed(*OTHERS[name]))

    if not is_refused:
        replay.refuse(found, meant, Path("r.toml"))
        return
    with pytest.raises(UserError, match=name) as caught:
        replay.refuse(found, meant, Path("r.toml"))
    assert caught.value.code is ExitCode.BAD_DATA
    assert "--allow-changed" in caught.value.do


@pytest.fixture
def locked(tmp_path, bare_inputs):
    """A run directory whose recipe and lock were written for data that lies elsewhere."""
    text = (
        f'schema = 1\nname = "tiny"\n[model]\nid = "{bare_inputs / "model"}"\n'
        '[data]\ntrain = "rows.json"\n[method]\nname = "lora"\n'
    )
    run = rundir.create("tiny")
    run.manifest.write_text(json.dumps({"id": run.id, "base_dir": str(bare_inputs)}))
    run.recipe.write_text(text)
    recipe = recipes.parse(text, where="r")
    lock = LOCK | {"packages": {"click": "0.1", "no-such-package": "1.0"}}
    now = replay.found(recipe, bare_inputs, lock, {})
    run.recipe_lock.write_text(json.dumps(lock | {"sha256": now["sha256"]}))
    inputs.remember(recipe, bare_inputs)  # as every start does
    return run


@pytest.fixture
def bare_inputs(tmp_path):
    """Data, and a model of two files."""
    folder = tmp_path / "inputs"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "rows.json").write_text('[{"instruction": "a", "output": "b"}]')
    return folder


def test_a_runs_own_recipe_is_replayed_where_the_run_began(locked, bare_inputs):
    """Its relative paths mean what they meant then."""
    assert replay.base_dir_of(locked.recipe) == bare_inputs
    assert replay.base_dir_of(bare_inputs / "recipe.toml") == bare_inputs


def test_a_run_directory_from_elsewhere_names_no_place_on_this_machine(locked, tmp_path):
    """Its run.json is somebody else's word."""
    (tmp_path / "theirs").mkdir()
    for file in (locked.recipe, locked.manifest, locked.recipe_lock):
        (tmp_path / "theirs" / file.name).write_bytes(file.read_bytes())

    assert replay.base_dir_of(tmp_path / "theirs" / "recipe.toml") == tmp_path / "theirs"


def test_a_flipped_byte_of_the_data_is_refused_with_the_table(advisor, locked, bare_inputs):
    """Exit code 65; the versions are in the table too; nothing is started."""
    rows = bare_inputs / "rows.json"
    rows.write_text(rows.read_text().replace('"b"', '"c"'))

    done = advisor("run", locked.recipe)

    said = " ".join(done.stderr.split())
    assert done.returncode == ExitCode.BAD_DATA, done.stderr
    assert "the inputs changed since this recipe ran: data.train" in said
    assert "changed then now data.train" in said
    assert "click 0.1" in said
    assert "no-such-package 1.0 not there" in said
    assert len(listing.all_runs()) == 1


def test_changed_data_can_be_allowed(advisor, locked, bare_inputs):
    """Then what comes next is checked: here, that the model is none."""
    (bare_inputs / "rows.json").unlink()

    done = advisor("run", locked.recipe, "--allow-changed")

    assert "the inputs changed" not in done.stderr
    assert "config.json" in done.stderr


def test_a_recipe_without_a_lock_is_compared_with_nothing(advisor, bare_inputs, locked):
    """No file is hashed for it."""
    path = bare_inputs / "r.toml"
    path.write_bytes(locked.recipe.read_bytes())

    done = advisor("run", path)

    assert "comparing" not in done.stderr
    assert "config.json" in done.stderr


@pytest.mark.slow
def test_data_that_is_removed_during_a_run_is_not_missed(tiny_model, orders, monkeypatch):
    """What is trained on was read before the first step; the run reaches its end."""
    pytest.importorskip("torch")
    import real_runs

    from runner.training.protocol import ProtocolCallback

    run = real_runs.new_run(tiny_model, orders, steps=3, split="8:2:0")
    end = ProtocolCallback.on_step_end

    def ending(callback, args, state, flow, **more):
        orders.unlink(missing_ok=True)
        end(callback, args, state, flow, **more)

    monkeypatch.setattr(ProtocolCallback, "on_step_end", ending)

    assert real_runs.attempt(run) == ExitCode.FINISHED
    assert len(real_runs.steps(run)) == 3
    assert not orders.exists()


@pytest.mark.long
def test_a_run_is_finished_whose_data_was_removed(advisor, tiny_model, orders, tmp_path):
    """As its status tells."""
    path = tmp_path / "r.toml"
    path.write_text(
        f'schema = 1\nname = "tiny"\n[model]\nid = "{tiny_model}"\n'
        f'[data]\ntrain = "{orders.name}"\nmax_length = 96\n'
        '[method]\nname = "lora"\nrank = 2\n[train]\nlearning_rate = 1e-3\n'
        'max_steps = 12\nmicro_batch = 2\nprecision = "fp32"\nsave_every = 4\n'
    )
    run = find_run.find(advisor("run", path).stdout.strip())
    deadline = time.monotonic() + 120
    while status(run).step < 1 and not status(run).state.is_over:
        assert time.monotonic() < deadline
        time.sleep(0.02)

    orders.unlink()

    while not status(run).state.is_over:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert status(run).state is State.FINISHED, status(run).reason


def test_a_damaged_lock_is_passed_over_as_its_advice_says(advisor, locked, tmp_path):
    """From any folder: the advice is followed."""
    locked.recipe_lock.write_text("{")

    refused = advisor("run", locked.path)
    followed = advisor("run", locked.path, "--allow-changed")

    assert "add --allow-changed" in refused.stderr
    assert "recipe's lock cannot be read" in refused.stderr
    assert "lock cannot be read" not in followed.stderr
    assert "config.json" in followed.stderr  # what comes next is checked: the model is none


@pytest.mark.parametrize(
    "refuse", [lambda found, where: replay.refuse(found, (), where), replay.refuse_resume]
)
def test_what_is_gone_is_not_offered_to_be_allowed(refuse):
    """Nothing could be read there; all that is gone is counted."""
    gone = {"sha256": {f"model/{n}.json": "a" * 64 for n in range(17)}}
    found = replay.changes(gone, {"sha256": {}})

    with pytest.raises(UserError) as caught:
        refuse(found, Path("r.toml"))

    assert "--allow-changed" not in caught.value.do
    assert "put back what is gone" in caught.value.do
    assert caught.value.what.endswith(" and 12 more")


def test_an_edited_value_can_be_allowed(locked):
    """What is there can be read."""
    found = replay.changes({"sha256": {"data.train": "a"}}, {"sha256": {"data.train": "b"}})

    with pytest.raises(UserError) as caught:
        replay.refuse_resume(found, locked.recipe)

    assert caught.value.do == "put it back, or go on all the same with --allow-changed"


def test_a_model_that_nobody_may_look_into_has_no_files(bare_inputs, monkeypatch):
    """The check of the model, which follows, says why."""
    recipe = recipes.parse(
        'schema = 1\nname = "tiny"\n[model]\nid = "model"\n'
        '[data]\ntrain = "rows.json"\n[method]\nname = "lora"\n',
        where="r",
    )
    files = replay.input_files(recipe, bare_inputs)
    real = os.scandir, os.listdir

    def refuse(kind, path):
        if Path(path) == bare_inputs / "model":
            raise PermissionError(13, "Permission denied", str(path))
        return real[kind](path)

    monkeypatch.setattr(os, "scandir", lambda path=".": refuse(0, path))
    monkeypatch.setattr(os, "listdir", lambda path=".": refuse(1, path))

    assert list(files) == ["data.train", "model/config.json", "model/model.safetensors"]
    assert list(replay.input_files(recipe, bare_inputs)) == ["data.train"]
