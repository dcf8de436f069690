"""Where an attempt goes on, and what it knows of those before it; nothing is trained here."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import real_runs

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.runs import durable, rundir
from profiles.runs.records.worker import OutOfMemory, Resumed
from runner import checkpoints, resume
from runner.resume import Start

RECIPE = """schema = 1
name = "r"
[model]
id = "m"
[data]
train = "d.json"
max_length = 96
packing = true
[method]
name = "lora"
[train]
micro_batch = 2
accumulation = 3
seed = 5
"""
NOW = {
    "micro_batch": 2,
    "accumulation": 3,
    "world_size": 4,
    "seed": 5,
    "packing": True,
    "max_length": 96,
    "method": "lora",
}


@pytest.fixture
def run():
    """An empty run directory."""
    return rundir.create("resumed")


def save(run, step, **facts):
    """Commit a small checkpoint."""
    staging = checkpoints.stage(run, step)
    (staging / "weights").write_text("w")
    return checkpoints.commit(run, staging, step, **facts)


def damage(checkpoint):
    (checkpoint.path / "weights").write_text("x")
    return checkpoint


def test_what_the_position_in_the_data_depends_on_is_known_from_the_recipe():
    """And from the number of processes."""
    assert resume.facts(recipes.parse(RECIPE, where="test"), 4) == NOW


def test_a_fresh_start_is_one_from_the_base_model():
    """Nothing is told of it."""
    assert Start() == Start(path=None, step=0, weights_only=False, what="", passed_over=())
    assert Start().faulty == ()


def test_without_any_checkpoint_the_base_model_is_gone_on_from(run):
    """The attempt before ended too early, which is no error."""
    found = resume.choose(run, NOW)

    assert found == Start(what="no checkpoint was saved: going on from the base model")


def test_the_newest_sound_checkpoint_is_gone_on_from(run):
    """With its step and place; nothing was passed over."""
    save(run, 2, **NOW)
    newest = save(run, 4, **NOW)

    found = resume.choose(run, NOW)

    assert found == Start(
        path=newest.path, step=4, what="going on from step 4, the newest that verifies"
    )


def test_damaged_checkpoints_are_passed_over_with_their_reasons(run):
    """And named for whoever sets them aside."""
    sound = save(run, 2, **NOW)
    broken = [damage(save(run, step, **NOW)) for step in (6, 4)]

    found = resume.choose(run, NOW)

    assert (found.path, found.step, found.weights_only) == (sound.path, 2, False)
    assert found.faulty == tuple(broken)
    assert [reason.split(":")[0] for reason in found.passed_over] == ["step 6", "step 4"]
    assert found.what.endswith(f" ({'; '.join(found.passed_over)})")


def test_where_all_are_damaged_nothing_is_gone_on_from(run):
    """Code 85 with every reason, not a silent start from the base model."""
    for step in (2, 4):
        damage(save(run, step, **NOW))

    with pytest.raises(UserError, match="no checkpoint can be resumed from") as caught:
        resume.choose(run, NOW)

    error = caught.value
    assert (error.code, error.where) == (ExitCode.NO_CHECKPOINT, str(run.checkpoints))
    assert "step 2: " in error.why
    assert "; " in error.why


@pytest.mark.parametrize(
    ("key", "name", "value"),
    [
        ("micro_batch", "train.micro_batch", 4),
        ("accumulation", "train.accumulation", 1),
        ("world_size", "hardware.gpus", 2),
        ("seed", "train.seed", 0),
        ("packing", "data.packing", False),
        ("max_length", "data.max_length", 128),
        ("method", "method.name", "full"),
    ],
)
def test_each_setting_that_must_stay_is_refused_by_the_recipes_name(run, key, name, value):
    """With both values."""
    saved = save(run, 2, **NOW)

    with pytest.raises(UserError, match="step 2 cannot be gone on from") as caught:
        resume.choose(run, NOW | {key: value})

    error = caught.value
    assert error.why.startswith(f"{name} was {NOW[key]}, is {value}: ")
    assert (error.code, error.where) == (ExitCode.BAD_RECIPE, str(saved.path))


def test_what_an_older_version_did_not_write_down_is_not_refused(run):
    """Nobody can say that it changed."""
    save(run, 2, micro_batch=2)

    assert resume.choose(run, NOW).step == 2


@pytest.fixture
def foreign(monkeypatch):
    """Make one file look as if another user had written it."""
    lstat = Path.lstat

    def arrange(name):
        def seen(path):
            found = lstat(path)
            if path.name != name:
                return found
            return os.stat_result((*found[:4], os.getuid() + 1, *found[5:]))

        monkeypatch.setattr(Path, "lstat", seen)

    return arrange


@pytest.mark.parametrize("name", ["weights", "step-00000004", "MANIFEST.json"])
def test_of_what_another_user_wrote_the_weights_alone_are_taken(run, foreign, name):
    """A single file of theirs is enough; settings do not matter then."""
    damage(save(run, 6))
    theirs = save(run, 4, micro_batch=99)
    foreign(name)

    found = resume.choose(run, NOW)

    assert (found.path, found.weights_only, found.step) == (theirs.path, True, 0)
    assert [checkpoint.step for checkpoint in found.faulty] == [6]
    assert found.what.startswith(
        "going on with the weights of step 4, which another user wrote, and a new optimizer (step 6"
    )


def test_another_users_checkpoints_are_set_aside_and_their_marks_forgotten(run):
    """Their steps would be taken for newer ones; the chosen weights are found where they are."""
    chosen = save(run, 6)
    save(run, 4)
    checkpoints.mark_best(run, 4, 0.5)
    checkpoints.pin(run, 4, "spike")
    start = Start(path=chosen.path, weights_only=True, what="theirs")

    found = resume.set_foreign_aside(run, start)

    assert checkpoints.committed(run) == []
    assert found.path.name.startswith("bad-step-00000006")
    assert (found.path / "weights").read_text() == "w"
    assert dataclasses.replace(found, path=chosen.path) == start
    save(run, 4)
    assert (checkpoints.best(run), checkpoints.pins(run)) == (None, {})


def oom(during, pieces):
    return OutOfMemory(
        step=1, during=during, pieces=pieces, micro_batch=1, accumulation=1, error="", what=""
    )


def test_the_most_pieces_of_earlier_attempts_are_used_again(run):
    """Of training and of evaluation, each on its own."""
    events = real_runs.quiet(run).events
    for record in (oom("train", 2), oom("train", 4), oom("eval", 8), oom("train", 2)):
        events.append(record)
    events.append(Resumed(from_step=1, passed_over=(), what=""))

    assert (resume.pieces(run, "train"), resume.pieces(run, "eval")) == (4, 8)


@pytest.mark.parametrize(
    ("error", "train"),
    [
        ({"clean_restart": True, "pieces": 4}, 4),
        ({"clean_restart": True}, 1),
        ({"clean_restart": False, "pieces": 4}, 1),
        ({"code": 81}, 1),
        (None, 1),
    ],
)
def test_an_attempt_that_asked_for_a_clean_process_says_with_how_many_pieces(run, error, train):
    """For training alone; any other end says nothing of it."""
    if error is not None:
        durable.write_json(run.error, error)

    assert (resume.pieces(run, "train"), resume.pieces(run, "eval")) == (train, 1)
