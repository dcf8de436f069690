"""Real training with something wrong: the disk, the numbers, an early stop."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from safetensors import SafetensorError  # noqa: E402
from transformers import Trainer  # noqa: E402

from advisor.registry.lookup import OPTIMIZERS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import durable  # noqa: E402
from profiles.runs.journal import Journal  # noqa: E402
from profiles.runs.state import State  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.supervision import control  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training import room, saving  # noqa: E402
from runner.training.heartbeat import Heartbeat  # noqa: E402
from runner.training.protocol import Asked, ProtocolCallback  # noqa: E402
from runner.training.selection import Selection  # noqa: E402
from runner.training.stopping import StopEarly, StopFlag  # noqa: E402


@pytest.fixture
def quick(monkeypatch):
    """Look for room and requests without waiting."""
    monkeypatch.setattr("runner.training.protocol._PAUSE_POLL_SECONDS", 0.01)
    monkeypatch.setattr("runner.training.protocol._ROOM_POLL_SECONDS", 0.0)
    monkeypatch.setattr("runner.training.protocol._BLIND_ROOM_POLL_SECONDS", 0.0)


def short_of_room(folder, needed):
    """A file system with nothing left."""
    return room.Shortfall(folder, needed, 1000)


def test_a_full_disk_pauses_the_run_and_it_goes_on_when_there_is_room(
    tiny_model, orders, monkeypatch, quick
):
    """Every checkpoint is there in the end, and the weights are the undisturbed ones."""
    settings = {"steps": 4, "save_every": 2}
    undisturbed = real_runs.new_run(tiny_model, orders, **settings)
    real_runs.attempt(undisturbed)
    run = real_runs.new_run(tiny_model, orders, **settings)
    answers = [short_of_room, short_of_room, lambda *_: None, lambda *_: None]
    monkeypatch.setattr(room, "shortfall", lambda *a: answers.pop(0)(*a) if answers else None)

    assert real_runs.attempt(run) == 0

    (paused,) = real_runs.events(run, "paused")
    assert (paused["step"], paused["reason"]) == (2, "disk_full")
    assert "the checkpoint needs" in paused["what"]
    assert [e["step"] for e in real_runs.events(run, "checkpoint")] == [2, 4]
    assert real_runs.losses(run) == real_runs.losses(undisturbed)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        SafetensorError("Error while serializing: I/O error: No space left (os error 28)"),
    ],
    ids=["full", "quota", "torch", "safetensors"],
)
def test_a_save_that_fails_for_want_of_room_is_tried_again(
    tiny_model, orders, monkeypatch, quick, error
):
    """Half of a checkpoint is removed, and torch's words for a full disk are understood."""
    run = real_runs.new_run(tiny_model, orders, steps=2, save_every=2)
    errors = [error]
    save = Trainer._save_checkpoint

    def failing(trainer, *args):
        save(trainer, *args)
        if errors:
            monkeypatch.setattr(room, "shortfall", short_of_room)
            raise errors.pop()

    wait = ProtocolCallback.wait_for_room

    def make_room(*args):
        monkeypatch.setattr(room, "shortfall", lambda *_: None)
        return wait(*args)

    monkeypatch.setattr(Trainer, "_save_checkpoint", failing)
    monkeypatch.setattr(ProtocolCallback, "wait_for_room", make_room)

    assert real_runs.attempt(run) == 0

    assert len(real_runs.events(run, "paused")) == 1
    assert [c.step for c in checkpoints.committed(run)] == [2]
    assert sorted(p.name for p in run.checkpoints.iterdir() if p.is_dir()) == ["step-00000002"]


@pytest.mark.parametrize("operation", ["stage", "commit"])
def test_a_disk_that_fills_up_unseen_pauses_too(tiny_model, orders, monkeypatch, quick, operation):
    """A quota cannot be measured: the first write tells."""
    run = real_runs.new_run(tiny_model, orders, steps=2, save_every=2)
    errors, real = [OSError(errno.EDQUOT, "Disk quota exceeded")], getattr(checkpoints, operation)

    def failing(*args, **kw):
        if errors:
            raise errors.pop()
        return real(*args, **kw)

    monkeypatch.setattr(checkpoints, operation, failing)

    assert real_runs.attempt(run) == 0

    assert "your quota is used up" in real_runs.events(run, "paused")[0]["what"]
    assert [c.step for c in checkpoints.committed(run)] == [2]


def test_a_stop_that_was_accepted_still_waits_for_room(tiny_model, orders, monkeypatch, quick):
    """SIGTERM means save and stop: a full disk delays it, a second request gives the save up."""
    run = real_runs.new_run(tiny_model, orders, steps=6, save_every=100)
    answers = [short_of_room] * 3
    monkeypatch.setattr(room, "shortfall", lambda *a: answers.pop()(*a) if answers else None)
    step = RunSft.training_step

    def asked(trainer, *args, **kw):
        trainer.attempt.stop.asked |= trainer.state.global_step == 1
        return step(trainer, *args, **kw)

    monkeypatch.setattr(RunSft, "training_step", asked)

    assert real_runs.attempt(run) == ExitCode.STOPPED

    assert [c.step for c in checkpoints.committed(run)] == [2]


def test_a_stop_while_the_disk_is_full_ends_without_a_checkpoint(
    tiny_model, orders, monkeypatch, quick
):
    """Code 75, and nothing half-written."""
    run = real_runs.new_run(tiny_model, orders, steps=6, save_every=2)
    monkeypatch.setattr(room, "shortfall", short_of_room)
    asked = [[], [], [Asked("stop_now")]]
    monkeypatch.setattr(ProtocolCallback, "_take_requests", lambda _: asked.pop(0) if asked else [])

    assert real_runs.attempt(run) == ExitCode.STOPPED

    assert checkpoints.committed(run) == []
    assert real_runs.events(run, "end")[0]["state"] == State.STOPPED
    assert real_runs.events(run, "save_failed")[0]["step"] == 2


def test_a_storage_error_is_no_full_disk(tiny_model, orders, monkeypatch):
    """EIO ends the run: the checkpoint is not trusted, the older one stays."""
    run = real_runs.new_run(tiny_model, orders, steps=4, save_every=2)
    commit = checkpoints.commit

    def failing(run_dir, staging, step, **facts):
        if step == 4:
            raise OSError(errno.EIO, "Input/output error")
        return commit(run_dir, staging, step, **facts)

    monkeypatch.setattr(checkpoints, "commit", failing)

    with pytest.raises(OSError, match="Input/output"):
        real_runs.attempt(run)

    assert [c.step for c in checkpoints.committed(run)] == [2]


def poison(trainer):
    """Make one trained weight NaN."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    with torch.no_grad():
        trained[0].view(-1)[0] = float("nan")


def test_weights_that_are_not_finite_are_never_committed(tiny_model, orders, monkeypatch):
    """Poisoned just before a save, while the loss still looked well."""
    run = real_runs.new_run(tiny_model, orders, steps=4, save_every=2)
    save = RunSft._save_checkpoint

    def poisoned(trainer, *args):
        if trainer.state.global_step == 4:
            poison(trainer)
        save(trainer, *args)

    monkeypatch.setattr(RunSft, "_save_checkpoint", poisoned)

    with pytest.raises(UserError, match="diverged at step 4") as caught:
        real_runs.attempt(run)

    assert caught.value.code is ExitCode.DIVERGED
    assert [c.step for c in checkpoints.committed(run)] == [2]
    assert "the weights of step 2 are finite and kept" in caught.value.why


def test_a_nan_ends_the_run_at_the_step_that_made_it(tiny_model, orders, monkeypatch):
    """Exit code 82; the loss is recorded as not finite, never as 0."""
    run = real_runs.new_run(tiny_model, orders, steps=6, save_every=2)
    step = RunSft.training_step

    def poisoned(trainer, *args, **kw):
        loss = step(trainer, *args, **kw)
        return loss * float("nan") if trainer.state.global_step == 3 else loss

    monkeypatch.setattr(RunSft, "training_step", poisoned)

    with pytest.raises(UserError, match="diverged at step 4"):
        real_runs.attempt(run)

    assert real_runs.losses(run)[4] is None
    assert real_runs.events(run, "guard")[0]["fault"] == "nonfinite_loss"


def test_a_spike_pins_the_checkpoint_before_it(tiny_model, orders, monkeypatch):
    """Warn: the run goes on, and rotation keeps what was before."""
    run = real_runs.new_run(
        tiny_model, orders, steps=30, accumulation=1, micro_batch=1, save_every=5
    )
    step = RunSft.training_step

    def spiking(trainer, *args, **kw):
        loss = step(trainer, *args, **kw)
        return loss * 5 if 21 <= trainer.state.global_step <= 25 else loss

    monkeypatch.setattr(RunSft, "training_step", spiking)

    assert real_runs.attempt(run) == 0

    assert real_runs.events(run, "guard")[0]["fault"] == "loss_spike"
    assert list(checkpoints.pins(run)) == [20]
    assert 20 in [c.step for c in checkpoints.committed(run)]


def test_a_spike_stops_the_run_where_the_recipe_says_so(tiny_model, orders, monkeypatch):
    """Exit code 83."""
    run = real_runs.new_run(
        tiny_model, orders, steps=30, accumulation=1, micro_batch=1, more='on_spike = "stop"\n'
    )
    step = RunSft.training_step

    def spiking(trainer, *args, **kw):
        return step(trainer, *args, **kw) * (5 if trainer.state.global_step >= 21 else 1)

    monkeypatch.setattr(RunSft, "training_step", spiking)

    with pytest.raises(UserError, match="loss spike at step 2") as caught:
        real_runs.attempt(run)

    assert caught.value.code is ExitCode.LOSS_SPIKE


def test_the_best_checkpoint_is_marked_and_outlives_rotation(tiny_model, orders, monkeypatch):
    """By evaluation loss, at the step that was evaluated."""
    run = real_runs.new_run(tiny_model, orders, steps=10, save_every=2, eval_every=2, split="8:2:0")
    losses = RunSft.row_losses

    def valley(trainer, model, inputs):
        found = losses(trainer, model, inputs)
        return found._replace(losses=found.losses * (2 + abs(trainer.state.global_step - 4)))

    monkeypatch.setattr(RunSft, "row_losses", valley)

    real_runs.attempt(run)

    assert checkpoints.best(run).step == 4
    assert [c.step for c in checkpoints.committed(run)] == [10, 8, 6, 4]


@pytest.fixture
def beating(tmp_path):
    """A heartbeat that looks for requests of a run before training begins."""
    from profiles.runs import rundir

    run = rundir.create("early")
    durable.write_json(run.manifest, {"schema": 1, "created": 0.0})
    durable.write_atomic(run.attempt_file, b"1\n")
    before = signal.getsignal(signal.SIGTERM)
    stop = StopFlag()
    stop.install()
    yield run, Heartbeat(run, Journal(run.worker_events, attempt=1), stop), stop
    signal.signal(signal.SIGTERM, before)


def test_a_request_before_the_first_step_interrupts_what_goes_on(beating):
    """Loading and tokenising may take long, and there is nothing to save."""
    run, heartbeat, stop = beating
    durable.write_json(run.requests / "a.json", {"run": run.id, "attempt": 1, "verb": "stop"})

    def load():
        heartbeat.start()  # the signal may come before this returns
        threading.Event().wait(20)

    with pytest.raises(StopEarly):
        load()

    real_runs.wait_for(lambda: not control.waiting(run))
    assert heartbeat.is_alive()
    assert stop.asked


def test_a_stall_is_written_down_with_the_stacks_of_all_threads(beating):
    """Nothing is killed: a person decides."""
    run, _, stop = beating
    heartbeat = Heartbeat(run, Journal(run.worker_events, attempt=1), stop)
    heartbeat.phase, now = "training", 0.0
    heartbeat._stall.clock = lambda: now
    heartbeat._look_for_stall()

    now = 400.0
    heartbeat._look_for_stall()
    heartbeat.end_step(1, 2.0)
    heartbeat._look_for_stall()

    (stalled,) = real_runs.events(run, "stalled")
    assert stalled["what"] == "alive but no step for 7 min; stacks are in stacks.log"
    assert "test_a_stall_is_written_down" in run.stacks.read_text()
    assert len(real_runs.events(run, "progressing")) == 1


def test_during_training_the_first_signal_waits_and_the_second_does_not(beating):
    """Finish the step and save; asked again, leave at once with code 75."""
    _, _, stop = beating
    stop.wait_for_steps()

    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)

    assert caught.value.code == ExitCode.STOPPED


def test_a_stop_during_an_evaluation_leaves_it_and_saves(tiny_model, orders, monkeypatch):
    """The evaluation is given up, the step is not."""
    run = real_runs.new_run(
        tiny_model, orders, steps=9, save_every=100, eval_every=3, split="5:5:0"
    )
    predict = RunSft.prediction_step

    def asked(trainer, *args, **kw):
        trainer.attempt.stop.asked = trainer.state.global_step == 3
        return predict(trainer, *args, **kw)

    monkeypatch.setattr(RunSft, "prediction_step", asked)

    assert real_runs.attempt(run) == ExitCode.STOPPED

    assert [e["step"] for e in real_runs.events(run, "evaluated")] == [0]
    assert [c.step for c in checkpoints.committed(run)] == [4]


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2 * 4), ("adamw_8bit", 2 * 1)])
def test_a_checkpoint_needs_what_the_last_one_took(tiny_model, orders, optimizer, moments):
    """Before the first: weights and their moments, as wide as the optimizer keeps them."""
    run, spec = real_runs.new_run(tiny_model, orders), OPTIMIZERS[optimizer]
    saver = saving.Saver(
        attempt=real_runs.quiet(run), keep=2, facts={}, optimizer=spec, selection=Selection()
    )
    layer = torch.nn.Linear(10, 10, bias=False)

    first = saver.needed_bytes(layer)
    staging = checkpoints.stage(run, 1)
    (staging / "weights").write_bytes(b"x" * 5000)
    checkpoints.commit(run, staging, 1)

    assert first == 100 * (4 + moments)
    assert saver.needed_bytes(layer) > 5000
