"""Going on after a stop or a kill: the same weights, bit for bit, or a reason why not."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch")

import mixtures  # noqa: E402
import real_runs  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import durable  # noqa: E402
from runner import checkpoints, resume  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402

NOW = {"micro_batch": 2, "accumulation": 3, "world_size": 1}


class KilledError(BaseException):
    """As abrupt as a signal: no handler of the run sees it."""


@pytest.fixture
def die_after(monkeypatch):
    """Make attempts die after this many optimizer steps; None takes it back."""
    step = RunSft.training_step

    def arrange(num_steps):
        def until(trainer, *args, **kw):
            if trainer.state.global_step == num_steps:
                raise KilledError
            return step(trainer, *args, **kw)

        monkeypatch.setattr(RunSft, "training_step", until)

    return arrange


BF16 = {"precision": "bf16_pure"}
CASES = {
    "lora": {},
    "full": {},
    "lora, packed": {"packing": True},
    "full, packed": {"packing": True},
    "lora, 16-bit adapters": BF16,
    "qlora, 16-bit adapters": {},
    "full, 16-bit": BF16,
    "full mixtral": {},
    "full qwen3_moe": {},
    "freeze mixtral": {"adapter": ""},
}
LONG = ("full", "lora, packed", "lora, 16-bit adapters", "full qwen3_moe")
"""Each of what they have is in another case as well."""


@pytest.fixture
def base(tiny_model, tmp_path):
    """The folder of a model by its family; the tiny Llama for none."""
    return lambda family: mixtures.save(family, tmp_path / family) if family else tiny_model


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.long] * (case in LONG)) for case in CASES]
)
def test_a_resumed_run_has_the_same_weights_bit_for_bit(base, orders, die_after, case):
    """Killed in the middle of an epoch and in the next; shuffled, accumulation 3, dropout 0.1.

    The base is evaluated in the first attempt alone, the adapters' type is kept.
    """
    method, _, family = case.partition(",")[0].partition(" ")
    settings = {"method": method, "steps": 9, "save_every": 2, "split": "9:1:0"}
    model = base(family)
    undisturbed, disturbed = (
        real_runs.new_run(model, orders, **settings, **CASES[case]) for _ in range(2)
    )
    real_runs.attempt(undisturbed)

    die_after(3)
    with pytest.raises(KilledError):
        real_runs.attempt(disturbed)
    die_after(7)
    with pytest.raises(KilledError):
        real_runs.next_attempt(disturbed)
    die_after(None)
    real_runs.next_attempt(disturbed)

    wanted, found = real_runs.weights(undisturbed), real_runs.weights(disturbed)
    assert [e["from_step"] for e in real_runs.events(disturbed, "resumed")] == [2, 6]
    assert {n: t.dtype for n, t in wanted.items()} == {n: t.dtype for n, t in found.items()}
    assert ({t.dtype for t in found.values()} == {torch.bfloat16}) == ("16-bit" in case)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert real_runs.losses(disturbed) == real_runs.losses(undisturbed)


@pytest.fixture
def saved(tiny_model, orders):
    """A run directory with a sealed checkpoint of step 4."""
    run = real_runs.new_run(tiny_model, orders)
    staging = checkpoints.stage(run, 4)
    (staging / "weights").write_text("w")
    checkpoints.commit(run, staging, 4, **NOW)
    return run


def test_the_choice_of_a_checkpoint_is_told_with_its_reason(saved):
    """Newest that verifies, and what is wrong with the newer one."""
    staging = checkpoints.stage(saved, 8)
    (staging / "weights").write_text("w")
    (checkpoints.commit(saved, staging, 8).path / "weights").write_text("x")

    start = resume.choose(saved, NOW)

    assert start.step == 4
    assert start.what.startswith("going on from step 4, the newest that verifies (step 8: ")


@pytest.mark.parametrize(("name", "value"), [("micro_batch", 4), ("world_size", 2)])
def test_other_settings_than_the_checkpoints_are_refused_with_both_values(saved, name, value):
    """The position in the data would be another."""
    with pytest.raises(UserError, match="other settings") as caught:
        resume.choose(saved, NOW | {name: value})

    assert caught.value.code is ExitCode.BAD_RECIPE
    assert f"was {NOW[name]}, is {value}" in caught.value.why


def test_no_sound_checkpoint_is_an_error_of_its_own(saved):
    """Code 85, with what is wrong."""
    (saved.checkpoints / "step-00000004" / "weights").unlink()

    with pytest.raises(UserError, match="no checkpoint") as caught:
        resume.choose(saved, NOW)

    assert caught.value.code is ExitCode.NO_CHECKPOINT
    assert "weights is missing" in caught.value.why


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
def test_of_a_checkpoint_that_another_user_wrote_only_the_weights_are_taken(saved):
    """An optimizer's state is a pickle."""
    os.chown(saved.checkpoints / "step-00000004" / "weights", 12345, -1)

    start = resume.choose(saved, NOW)

    assert start.weights_only
    assert start.step == 0
    assert "another user" in start.what


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
def test_foreign_weights_train_on_with_a_new_optimizer_and_no_pickle_of_theirs(
    tiny_model, orders, die_after, monkeypatch
):
    """A canary in the optimizer's file is never opened."""
    run = real_runs.new_run(tiny_model, orders, steps=3, save_every=2)
    die_after(2)
    with pytest.raises(KilledError):
        real_runs.attempt(run)
    die_after(None)
    (checkpoint,) = checkpoints.committed(run)
    os.chown(checkpoint.path / "optimizer.pt", 12345, -1)
    opened = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda f, **kw: (opened.append(str(f)), load(f, **kw))[1])

    assert real_runs.next_attempt(run) == 0

    assert opened == []
    steps = [r["step"] for r in real_runs.steps(run) if r["a"] == 2]
    assert steps == [1, 2, 3]
    assert [c.step for c in checkpoints.committed(run)] == [3, 2]
    assert [p.name[:17] for p in run.checkpoints.glob("bad-*")] == ["bad-step-00000002"]


def test_pieces_of_earlier_attempts_are_used_again(saved):
    """A clean process must not run out of memory at the same place."""
    durable.write_json(saved.error, {"attempt": 1, "clean_restart": True, "pieces": 4})

    assert (resume.pieces(saved, "train"), resume.pieces(saved, "eval")) == (4, 1)
