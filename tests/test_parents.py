"""`run:ID` where a folder could stand: which run it names, and what that has to have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_model import recipe_text, small_model

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.models import find_model
from profiles.runs import parents, rundir
from profiles.runs.rundir import RunDir
from runner import checkpoints
from runner.checks import replay

HASHES = {"config.json": "c1", "model.safetensors": "f2"}


@pytest.fixture
def done():
    """A run that has published a whole model."""
    return finished("first")


def finished(name, *, model=True, state="finished", files=None):
    """A run of this name that is over."""
    run = rundir.create(name)
    run.manifest.write_text(json.dumps({"schema": 1, "id": run.id, "base_dir": "/", "created": 1}))
    run.attempt_file.write_text("1\n")
    ended = {"attempt": 1, "state": state, "code": 0, "what": ""}
    run.exit.write_text(json.dumps(ended))
    if model:
        small_model(run.model)
        for file, content in (files or {}).items():
            (run.model / file).write_text(content)
        checkpoints.seal(run.model, step=12)
    return run


def hashes_of(run):
    """Of the files of a result, as a lock has them."""
    manifest = json.loads((run.model / checkpoints.MANIFEST).read_text())
    return {name: about["sha256"] for name, about in manifest["files"].items()}


def refusal(text):
    """The error for a recipe that names this model."""
    with pytest.raises(UserError) as caught:
        parents.model_folder(text, Path("/"))
    return caught.value


def test_a_whole_id_and_its_end_name_a_run(done):
    """And a folder is a folder."""
    assert parents.model_folder(f"run:{done.id}", Path("/")) == done.model
    assert parents.model_folder(f"run:{done.end}", Path("/")) == done.model
    assert parents.model_folder("models/base", Path("/x")) == Path("/x/models/base")
    assert parents.model_folder("./run:x", Path("/x")) == Path("/x/run:x")


def test_a_part_of_an_id_is_refused_with_the_end_that_works(done):
    """Another run could fit it tomorrow, and the recipe would mean another one in silence."""
    error = refusal("run:first")

    assert error.code is ExitCode.BAD_RECIPE
    assert error.do == f"write run:{done.end}, which is {done.id}"
    assert parents.model_folder(error.do.split()[1].rstrip(","), Path("/")) == done.model


def test_an_end_that_two_runs_have_is_refused(done):
    """Ids are drawn, so it can happen; the whole id still names one."""
    other = RunDir(done.path.with_name(f"2026-01-01_0000_second_{done.end}"))
    done.path.joinpath("run.json").read_text()
    other.path.mkdir()

    error = refusal(f"run:{done.end}")

    assert "2 runs" in error.what
    assert other.id in error.why
    assert parents.run_of(f"run:{done.id}") == done


def test_a_run_that_is_not_there_and_a_path_are_refused(done, tmp_path):
    """With what works instead."""
    assert "no run is called 'zzzzz'" in refusal("run:zzzzz").what
    elsewhere = done.path.rename(tmp_path / done.id)

    error = refusal(f"run:{elsewhere}")

    assert "is a path" in error.what
    assert error.do == f"write the folder of its result: {elsewhere / 'model'}"


@pytest.mark.parametrize(
    ("state", "does"),
    [("stopped", "advisor resume"), ("failed", "advisor resume"), ("finished", "advisor run")],
)
def test_a_run_without_a_result_is_refused_by_its_state(state, does):
    """What is left to do about it."""
    run = finished("second", model=False, state=state)

    error = refusal(f"run:{run.end}")

    assert error.code is ExitCode.NO_INPUT
    assert (f"it is {state}" in error.why, run.id in error.do) == (True, does == "advisor resume")
    assert does in error.do or "recipe.toml is left" in error.do


@pytest.mark.parametrize("file", ["adapter_config.json", "bottleneck_config.json"])
def test_an_adapter_is_no_model(file):
    """It would be loaded as one that was never trained, or fail after minutes."""
    run = finished("adapted", files={file: "{}"})

    assert "an adapter, not a model" in refusal(f"run:{run.end}").what


def test_a_model_of_a_run_is_called_by_the_run(done):
    """Its folder is called model."""
    found = find_model.resolve(f"run:{done.end}")

    assert (found.id, found.path) == (f"run:{done.end}", str(done.model))
    assert find_model.named(str(done.model), Path("/")).id == "model"


def test_a_parent_is_told_with_its_own(done):
    """Of a third run the ids of both before it."""
    grown = finished("second")
    own = parents.of("model.id", f"run:{done.end}", hashes_of(done))
    lock = {parents.LOCK_KEY: parents.for_lock([own])}
    grown.recipe_lock.write_text(json.dumps(lock))

    found = parents.of("model.id", f"run:{grown.end}", hashes_of(grown))

    assert (own.run, own.step, own.path, own.ancestors) == (done.id, 12, str(done.model), ())
    assert (found.run, found.ancestors) == (grown.id, (done.id,))
    assert parents.of_run(grown) == (own,)
    assert found.fingerprint != parents.fingerprint(HASHES)


@pytest.mark.parametrize("kept", [None, "x", [3], [{"run": "x"}], [{"run": 3, "ancestors": 1}]])
def test_a_lock_of_a_strange_shape_names_no_parent(kept):
    """A person may have edited it."""
    assert parents.of_lock({parents.LOCK_KEY: kept}) == ()


@pytest.mark.parametrize(
    "change", [{"config.json": "zz"}, {"new.json": "a"}, {"config.json": None}]
)
def test_a_result_that_is_not_what_was_published_is_refused(done, change):
    """Somebody wrote over it: nobody knows what would be trained."""
    with pytest.raises(UserError) as caught:
        parents.of("model.id", f"run:{done.end}", hashes_of(done) | change)

    assert caught.value.code is ExitCode.BAD_DATA
    assert next(iter(change)) in caught.value.why
    assert str(done.model) in caught.value.do


def test_it_is_told_what_became_of_a_result(done):
    """Published again, or gone."""
    parent = parents.of("model.id", f"run:{done.end}", hashes_of(done))
    assert parents.since(parent) == ""

    (done.model / "config.json").write_text("{}")
    checkpoints.seal(done.model, step=12)
    assert parents.since(parent) == "which changed since"

    done.model.rename(done.path / "away")
    assert parents.since(parent) == "which is gone"


def test_what_a_recipe_begins_with_is_checked_before_the_start(advisor, done, tmp_path):
    """`recipe check` tells of the run by its name."""
    (tmp_path / "rows.json").write_text('[{"instruction": "a", "output": "a"}]')
    recipe = tmp_path / "r.toml"
    recipe.write_text(recipe_text(model="run:first"))

    refused = advisor("recipe", "check", recipe)

    assert refused.returncode == ExitCode.BAD_RECIPE, refused.stderr
    assert f"write run:{done.end}" in refused.stderr


def test_a_parent_that_published_again_is_drift(done):
    """Told as other inputs are: by file, and refused before the run goes on."""
    recipe = recipes.parse(recipe_text(model=f"run:{done.end}"), where="r")
    lock = replay.found(recipe, Path("/nowhere"), {}, {})
    (parent,) = replay.parents_of(recipe, lock)
    (done.model / "config.json").write_text('{"other": 1}')
    with pytest.raises(UserError, match="not what it has published"):
        replay.parents_of(recipe, replay.found(recipe, Path("/nowhere"), lock, {}))
    checkpoints.seal(done.model, step=13)

    now = replay.found(recipe, Path("/nowhere"), lock, {})
    changed = replay.changes(lock, now)

    assert {one.name for one in changed} == {"model/MANIFEST.json", "model/config.json"}
    with pytest.raises(UserError, match="inputs changed"):
        replay.refuse(changed, (), Path("r.toml"))
    (again,) = replay.parents_of(recipe, now)
    assert (again.step, again.fingerprint != parent.fingerprint) == (13, True)
