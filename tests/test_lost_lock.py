"""A run whose lock is gone: nothing would be compared, so a resume does not go on in silence."""

from __future__ import annotations

import json

import pytest
import real_runs

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.runs import durable
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Prepared
from runner import checkpoints
from runner.checks import preflight, replay
from tui.commands import run as command

PREPARED = Prepared(
    seconds=1.0, num_train=1, num_dropped=0, num_trainable=1, reclaimed_bytes=0, device="cpu"
)


@pytest.fixture
def run(tiny_model, orders):
    """A run that was prepared and has a lock."""
    run = real_runs.new_run(tiny_model, orders)
    recipe = recipes.parse(run.recipe.read_text(), where="r")
    lock = {"schema": 1, "packages": {}}
    durable.write_json(run.recipe_lock, lock | replay.found(recipe, run.base_dir(), lock, {}))
    journal = Journal(run.worker_events, attempt=1)
    journal.append(PREPARED)
    journal.close()
    return run


def save(run):
    """A checkpoint of step 4."""
    staging = checkpoints.stage(run, 4)
    (staging / "weights").write_text("w")
    checkpoints.commit(run, staging, 4)


def resumed(run, **options):
    """What a resume warns of."""
    return preflight.check_resume(run, share=True, **options).warnings


def edit(run, then, now):
    """The run's recipe says something else."""
    text = run.recipe.read_text()
    assert then in text
    run.recipe.write_text(text.replace(then, now))


def gone(run):
    run.recipe_lock.unlink()


def emptied(run):
    run.recipe_lock.write_text("{}")


@pytest.mark.parametrize("lose", [gone, emptied])
def test_without_its_lock_a_run_is_not_gone_on_with_in_silence(run, lose):
    """Whoever changed the recipe may have removed it."""
    lose(run)
    edit(run, "rank = 8", "rank = 4")

    with pytest.raises(UserError, match="nobody can say whether the run's data") as caught:
        resumed(run)

    error = caught.value
    assert (error.code, error.where) == (ExitCode.BAD_DATA, str(run.recipe_lock))
    assert "--allow-changed" in error.do


@pytest.mark.parametrize("lose", [gone, emptied])
def test_without_its_lock_it_is_gone_on_with_where_that_is_allowed_and_told(run, lose):
    """What is not compared."""
    lose(run)

    told = resumed(run, allow_changed=True)

    assert told[:2] == (
        "nobody can say whether data and model changed",
        "nobody can say whether the recipe changed",
    )


def test_an_older_lock_has_no_recipe_and_that_is_told(run):
    """Data and model are compared, so it goes on."""
    lock = json.loads(run.recipe_lock.read_text())
    del lock["recipe"]
    durable.write_json(run.recipe_lock, lock)

    assert resumed(run)[0] == "nobody can say whether the recipe changed"
    assert replay.not_compared(run) == ("the recipe",)


@pytest.mark.parametrize(("now", "is_told"), [("warn", False), ("stop", True)])
def test_a_key_that_an_older_version_did_not_know_was_its_default(run, now, is_told):
    """A run goes on with a newer version; what was written into its recipe since is a change."""
    lock = json.loads(run.recipe_lock.read_text())
    for key in ("train.on_spike", "data.packing", "method.dropout", "task"):
        del lock["recipe"][key]
    durable.write_json(run.recipe_lock, lock)
    save(run)
    edit(run, "dropout = 0.1", "dropout = 0.0")
    run.recipe.write_text(f'{run.recipe.read_text()}on_spike = "{now}"\n')

    told = [text for text in resumed(run, allow_changed=True) if "recipe: " in text]

    assert len(told) == is_told
    assert not told or 'train.on_spike was not there, is "stop"' in told[0]


@pytest.mark.parametrize("sign", ["a checkpoint", "nothing"])
def test_a_run_that_never_came_to_a_lock_lacks_none(run, sign):
    """Unless it has a checkpoint, which comes later."""
    run.recipe_lock.unlink()
    run.worker_events.unlink()
    if sign == "a checkpoint":
        save(run)

    assert bool(replay.not_compared(run)) is (sign == "a checkpoint")


def test_with_its_lock_nothing_is_told(run):
    """All can be compared."""
    assert replay.not_compared(run) == ()
    assert not any("nobody can say" in text for text in resumed(run))


def test_a_replay_of_such_a_run_says_what_it_does_not_compare(run, capsys):
    """It is a new run, so it starts."""
    run.recipe_lock.unlink()
    recipe = recipes.parse(run.recipe.read_text(), where="r")

    command._compare(recipe, run.recipe, (), allow_changed=False)

    said = capsys.readouterr().err
    assert "recipe.lock.json does not tell whether data and model changed since" in said
    assert "does not tell whether the recipe changed since" in said


@pytest.mark.parametrize("option", [{}, {"allow_changed": True}])
def test_a_rank_that_was_edited_is_refused_before_the_start_whatever_is_allowed(run, option):
    """It could not be loaded."""
    save(run)
    edit(run, "rank = 8", "rank = 4")

    with pytest.raises(UserError, match=r"cannot go on with another method\.rank"):
        resumed(run, **option)


def test_a_rate_that_was_edited_is_refused_or_told_with_the_step_that_it_holds_from(run):
    """As it is allowed."""
    save(run)
    edit(run, "learning_rate = 5e-3", "learning_rate = 1e-3")

    with pytest.raises(UserError, match=r"not as the run began: recipe: train\.learning_rate"):
        resumed(run)
    told = resumed(run, allow_changed=True)

    assert "train.learning_rate was 0.005, is 0.001; it takes effect after step 4" in told[0]


@pytest.mark.parametrize(("attempt", "lose"), [(1, gone), (2, gone), (2, emptied)])
def test_a_lock_that_is_written_anew_is_told_of(run, attempt, lose):
    """By the attempt that does it; the first one writes one as it should."""
    pytest.importorskip("torch")
    from runner.training import recipe_lock

    lose(run)
    if lose is emptied:
        run.recipe_lock.write_text("{")
    durable.write_atomic(run.attempt_file, f"{attempt}\n".encode())

    told = recipe_lock.keep(run, {"schema": 1})

    assert told == (("recipe.lock.json was gone or damaged",) if attempt == 2 else ())
    assert json.loads(run.recipe_lock.read_text()) == {"schema": 1}
