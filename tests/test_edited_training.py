"""A run that goes on with an edited recipe trains as that one says, from the next step on."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from small_trainer import small_trainer  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import durable  # noqa: E402
from profiles.runs.records.worker import Changed  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.checks import edits, replay  # noqa: E402

STEPS, SAVED = 8, 4


class Stopped(BaseException):
    """The attempt ends here."""


@pytest.fixture
def first():
    """An attempt of eight steps that was saved after the fourth."""
    trainer = small_trainer(steps=STEPS, save_steps=SAVED, weight_decay=0.2)
    trainer.train()
    return trainer


def gone_on(first, monkeypatch, **arguments):
    """Another attempt of it with other arguments, as it is right before its first step."""
    again = small_trainer(steps=STEPS, save_steps=SAVED, attempt=first.attempt, weight_decay=0.2)
    for name, value in arguments.items():
        setattr(again.args, name, value)

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(again, "training_step", stop)
    place = checkpoints.of_step(first.attempt.run, SAVED).path
    with pytest.raises(Stopped):
        again.train(resume_from_checkpoint=str(place))
    return again


def rates(trainer):
    return [group["lr"] for group in trainer.optimizer.param_groups]


def test_an_unchanged_recipe_goes_on_at_the_rate_that_was_saved(first, monkeypatch):
    """To the last bit."""
    place = checkpoints.of_step(first.attempt.run, SAVED).path
    saved = torch.load(place / "optimizer.pt", weights_only=True)["param_groups"]

    again = gone_on(first, monkeypatch)

    assert [
        [group[key] for key in ("lr", "initial_lr", "weight_decay")]
        for group in again.optimizer.param_groups
    ] == [[group[key] for key in ("lr", "initial_lr", "weight_decay")] for group in saved]
    assert again.optimizer.state


def test_another_rate_holds_from_the_next_step_on(first, monkeypatch):
    """In each group, for this step and for those that the schedule makes of it."""
    again = gone_on(first, monkeypatch, learning_rate=0.04)

    assert rates(again) == pytest.approx([0.02, 0.02])  # linear, half of the steps are made
    assert again.lr_scheduler.get_last_lr() == rates(again)
    again.optimizer.step()
    again.lr_scheduler.step()
    assert rates(again) == pytest.approx([0.04 * 3 / 8] * 2)


def test_another_decay_holds_where_the_recipe_decays(first, monkeypatch):
    """Norms and biases still have none."""
    again = gone_on(first, monkeypatch, weight_decay=0.07)
    assert [group["weight_decay"] for group in again.optimizer.param_groups] == [0.07, 0.0]


@pytest.mark.parametrize(
    ("arguments", "share"),
    [
        ({"lr_scheduler_type": "constant_with_warmup"}, 1.0),
        ({"max_steps": 16}, 12 / 16),
        ({"warmup_steps": 6}, 4 / 6),
    ],
    ids=["schedule", "steps", "warm-up"],
)
def test_another_schedule_holds_at_once(first, monkeypatch, arguments, share):
    """Not one step later."""
    assert rates(gone_on(first, monkeypatch, **arguments)) == pytest.approx([0.5 * share] * 2)


@pytest.mark.parametrize("kind", ["logging", "eval", "save"])
def test_other_intervals_hold(first, monkeypatch, kind):
    """The checkpoint brings those of the attempt that wrote it."""
    again = gone_on(first, monkeypatch, **{f"{kind}_steps": 3})
    assert getattr(again.state, f"{kind}_steps") == 3


def test_intervals_that_a_person_asked_for_hold_against_the_recipe(first, monkeypatch):
    """They were asked of this run."""
    again = small_trainer(steps=STEPS, attempt=first.attempt)
    again.args.logging_steps, again.state.max_steps = 3, STEPS
    again.changes = [Changed(step=2, log_every=6)]
    monkeypatch.setattr(again, "try_longest_batch", lambda: None)

    again.protocol.on_train_begin(None, again.state, None)

    assert again.state.logging_steps == 6


def edit(run, **changes):
    """The run's own recipe says something else."""
    text = run.recipe.read_text()
    for key, (then, now) in changes.items():
        assert f"{key} = {then}\n" in text
        text = text.replace(f"{key} = {then}\n", f"{key} = {now}\n")
    durable.write_atomic(run.recipe, text.encode())


@pytest.mark.slow
def test_a_real_run_trains_on_as_its_edited_recipe_says(tiny_model, orders):
    """Rate, decay, schedule, steps and intervals at once; it was stopped by its first recipe."""
    run = real_runs.new_run(
        tiny_model,
        orders,
        steps=4,
        save_every=2,
        more='weight_decay = 0.5\nscheduler = "linear"\nwarmup = 0.25\nlog_every = 1\n',
    )
    real_runs.attempt(run)
    durable.remove_tree(run.model, inside=run.path)
    edit(
        run,
        learning_rate=("5e-3", "1e-3"),
        weight_decay=("0.5", "0.0"),
        scheduler=('"linear"', '"constant"'),
        max_steps=(4, 10),
        save_every=(2, 5),
        log_every=(1, 2),
    )

    real_runs.next_attempt(run)

    logged = [r for r in real_runs.read_all(run.metrics) if r["kind"] == "loss"]
    later = [(r["step"], r["learning_rate"]) for r in logged if r["step"] > 4]
    assert later == [(step, pytest.approx(1e-3)) for step in (6, 8, 10)]
    assert [c.step for c in checkpoints.committed(run)][:2] == [10, 5]
    states = torch.load(checkpoints.of_step(run, 10).path / "optimizer.pt", weights_only=True)
    assert {group["weight_decay"] for group in states["param_groups"]} == {0.0}


@pytest.mark.slow
def test_a_rank_that_was_edited_is_refused_and_never_loaded(tiny_model, orders):
    """Before the start; and in a few lines where nobody looked before."""
    run = real_runs.new_run(tiny_model, orders, steps=2, save_every=1)
    real_runs.attempt(run)
    lock = replay.lock_beside(run.recipe)
    edit(run, rank=(8, 4), max_steps=(2, 3))
    recipe = real_runs.recipes.parse(run.recipe.read_text(), where="r")
    changed = replay.changes(lock, lock | {"recipe": replay.keys(recipe)})

    with pytest.raises(UserError, match=r"another method\.rank$"):
        edits.refuse(changed, run)
    with pytest.raises(UserError, match="of another shape") as caught:
        real_runs.next_attempt(run)

    assert caught.value.code is ExitCode.NO_CHECKPOINT
    assert len(caught.value.why) < 500
