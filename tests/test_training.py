"""Real training of a tiny random model on the CPU, through the command, as a user does it."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import peft
import pytest
import real_runs
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from on_disk import num_damaged, read_all
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from profiles.runs import find_run, listing, rundir
from profiles.runs.state import State, status
from runner.engines.fsdp import shard_by_layer

pytestmark = pytest.mark.slow
ADAPTER = "rank = 8\nalpha = 16\n[train]\nlearning_rate = 5e-3"


@pytest.fixture
def recipe(tmp_path, tiny_model, orders):
    """Write a recipe for the tiny model; returns its path."""

    def write(method="lora", settings=ADAPTER, name="r.toml"):
        path = tmp_path / name
        path.write_text(
            f'schema = 1\nname = "tiny"\n[model]\nid = "{tiny_model}"\n'
            f'[data]\ntrain = "{orders.name}"\nmax_length = 96\n'
            f'[method]\nname = "{method}"\n{settings}\n'
            "max_steps = 12\nmicro_batch = 2\naccumulation = 2\n"
            'precision = "fp32"\nsave_every = 4\nsamples = 1\n'
        )
        return path

    return write


def losses(run):
    """Step -> loss, as recorded; the later attempt counts."""
    return {r["step"]: r["loss"] for r in read_all(run.metrics) if r["kind"] == "loss"}


def finished(done):
    """The run that `--follow` showed, which must have finished."""
    assert done.returncode == 0, done.stderr
    run = find_run.find(done.stdout.strip())
    assert status(run).state is State.FINISHED
    assert num_damaged(run) == 0
    return run


def learns_and_reports(advisor, run):
    """Evaluation loss below the base model's, and a report that adds up."""
    found = status(run)
    assert found.eval_loss < found.base_loss
    assert len(losses(run)) == 12
    report = json.loads(advisor("profile", run.id, "--json").stdout)["report"]
    assert report["verdict"]
    assert abs(sum(share for _, share in report["phase_shares"]) - 1) < 1e-6
    assert report["run"]["padded_tokens"] >= report["run"]["tokens"] > report["run"]["label_tokens"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "settings"), [("qlora", ADAPTER), ("full", "[train]\nlearning_rate = 3e-3")]
)
def test_a_run_learns_and_reports(advisor, recipe, method, settings):
    """With LoRA so does the run that a killed one is held against."""
    learns_and_reports(advisor, finished(advisor("run", recipe(method, settings), "--follow")))


@pytest.mark.parametrize(
    "method", ["qlora", *(pytest.param(name, marks=pytest.mark.long) for name in ("lora", "full"))]
)
def test_a_recipe_replays_bit_for_bit(tiny_model, orders, method):
    """The same losses the second time."""
    first, second = (
        real_runs.new_run(tiny_model, orders, method=method, steps=4) for _ in range(2)
    )
    for run in (first, second):
        real_runs.attempt(run)

    assert real_runs.losses(first) == real_runs.losses(second)
    assert len(real_runs.losses(first)) == 4


def test_a_killed_worker_resumes_to_the_same_losses(advisor, recipe):
    """SIGKILL after the checkpoint of step 4: the resumed losses equal the undisturbed ones.

    The undisturbed run learns, and its report adds up.
    """
    path = recipe()
    whole = finished(advisor("run", path, "--follow"))
    learns_and_reports(advisor, whole)
    run = find_run.find(advisor("run", path).stdout.strip())
    deadline = time.monotonic() + 120
    while (status(run).resumable_from or 0) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)

    os.kill(rundir.read_json(run.processes)["worker"]["pid"], signal.SIGKILL)
    while not status(run).state.is_over and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = status(run)
    resumed = advisor("resume", run.id, "--follow")

    assert (killed.state, killed.exit_code) == (State.KILLED, 137)
    assert f"resumable from step {killed.resumable_from}" in killed.reason
    assert f"going on from step {killed.resumable_from}" in resumed.stderr
    assert losses(finished(resumed)) == losses(whole)


@pytest.mark.parametrize(
    "hardware",
    [pytest.param("", marks=pytest.mark.long), 'strategy = "ddp"\ngpus = 2\n'],
    ids=["one", "two"],
)
def test_a_stopped_run_saves_and_can_go_on(advisor, recipe, hardware):
    """`advisor stop` ends it at a step boundary with code 75, with one process and with two."""
    path = recipe()
    path.write_text(path.read_text() + f"[hardware]\n{hardware}")
    run = find_run.find(advisor("run", path, "--set", "train.max_steps=400").stdout.strip())
    deadline = time.monotonic() + 120
    while status(run).step < 2 and time.monotonic() < deadline:
        time.sleep(0.05)

    assert advisor("stop", run.id).returncode == 0
    while not status(run).state.is_over and time.monotonic() < deadline:
        time.sleep(0.05)

    found = status(run)
    assert (found.state, found.exit_code) == (State.STOPPED, 75), found.reason
    assert found.resumable_from == found.step > 0


def test_a_run_killed_after_its_last_step_is_finished_without_another_step(tiny_model, orders):
    """Resumed from the checkpoint of the last step, it only evaluates and publishes."""
    run = real_runs.new_run(tiny_model, orders, steps=4, save_every=4, split="8:2:0")
    real_runs.attempt(run)
    undisturbed = real_runs.losses(run)
    shutil.rmtree(run.model)  # as if it had been killed before publishing

    assert real_runs.next_attempt(run) == 0

    assert real_runs.losses(run) == undisturbed
    assert [r["a"] for r in real_runs.steps(run)] == [1, 1, 1, 1]
    assert run.model.is_dir()


def test_two_processes_train_together(advisor, recipe):
    """Two gloo processes end like any run."""
    path = recipe("qlora", f"{ADAPTER}\n")
    path.write_text(path.read_text() + '[hardware]\nstrategy = "ddp"\ngpus = 2\n')

    run = finished(advisor("run", path, "--follow"))

    assert status(run).eval_loss < status(run).base_loss


def test_fsdp_takes_peft_models_layer_by_layer(tiny_model):
    """PEFT's own policy is none that Accelerate's FSDP2 knows: it would gather all at once."""
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules="all-linear"))
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    plugin.auto_wrap_policy = peft.utils.other.fsdp_auto_wrap_policy(model)
    assert fsdp2_prepare_auto_wrap_policy(plugin, model) is None

    shard_by_layer(plugin)

    policy = fsdp2_prepare_auto_wrap_policy(plugin, model)
    assert sum(map(policy, model.modules())) == base.config.num_hidden_layers


def test_whole_logits_and_tiles_give_the_same_losses(tiny_model, orders):
    """The chunked loss is the same mathematics."""
    adapter = "rank = 8\nalpha = 16"
    chunked = real_runs.new_run(tiny_model, orders, adapter=adapter)
    full = real_runs.new_run(tiny_model, orders, adapter=adapter, more='loss = "full"\n')

    for run in (chunked, full):
        real_runs.attempt(run)

    wanted = real_runs.losses(chunked)
    assert real_runs.losses(full) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.long
def test_a_base_model_that_is_not_finite_is_never_trained(advisor, recipe, tiny_model, tmp_path):
    """Exit code 65 with the tensor's name, before the first evaluation."""
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    done = advisor("run", recipe(), "--set", f"model.id={broken}", "--follow")

    found = status(find_run.find(done.stdout.strip()))
    assert (done.returncode, found.state, found.resumable_from) == (65, State.FAILED, None)
    assert "the base model holds values that are not finite" in found.reason
    assert "evaluation loss" not in done.stderr
    assert (
        "model.norm.weight"
        in json.loads(find_run.find(done.stdout.strip()).exit.read_text())["why"]
    )


def test_packing_leaves_hardly_any_padding_and_has_checkpoints_on_its_way(tiny_model, orders):
    """It makes fewer steps than rows suggest: periods are counted in what is left."""
    run = real_runs.new_run(
        tiny_model, orders, packing=True, steps=0, save_every=0, more="epochs = 6\n"
    )

    real_runs.attempt(run)

    steps = real_runs.steps(run)
    padded, real = (sum(s[key] for s in steps) for key in ("padded_tokens", "tokens"))
    saved = [e["step"] for e in real_runs.events(run, "checkpoint")]
    assert padded - real <= 0.2 * real
    assert len(saved) >= 4
    assert saved[0] < saved[-1]


@pytest.mark.long
def test_rows_that_are_cut_are_told(advisor, recipe):
    """A max_length that takes the replies away must not go unseen."""
    done = advisor("run", recipe(), "--set", "data.max_length=64", "--follow")

    assert "rows are cut at data.max_length" in done.stderr


@pytest.mark.long
def test_a_closed_terminal_does_not_end_a_run(recipe, tmp_path):
    """Started and followed in a terminal that hangs up, in a directory with hostile packages."""
    path = recipe()
    for name in ("tui", "advisor", "runner", "profiles"):
        canary = f"open({str(tmp_path / 'fired')!r}, 'a').write(__file__)"
        (tmp_path / f"{name}.py").write_text(canary)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        advisor = str(Path(sys.executable).parent / "advisor")
        os.execv(advisor, [advisor, "run", str(path), "--follow"])  # noqa: S606
    deadline = time.monotonic() + 120
    while not any(status(r).step for r in listing.all_runs()) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)

    os.close(terminal)
    os.waitpid(pid, 0)

    (run,) = listing.all_runs()
    while not status(run).state.is_over and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(run).state is State.FINISHED
    assert not (tmp_path / "fired").exists()
