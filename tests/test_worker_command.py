"""How the worker is started: one process or several, and what it sees of the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runner.supervision import worker_command


@pytest.fixture
def argv(tmp_path):
    """The worker's command for a [hardware] table."""

    def command(hardware):
        (tmp_path / "recipe.toml").write_text(f"schema = 1\n[hardware]\n{hardware}\n")
        return worker_command.worker_argv(tmp_path)

    return command


def test_one_device_needs_no_launcher(argv, tmp_path):
    """Python itself, safe from the working directory."""
    expected = [sys.executable, "-P", "-m", "runner.training.worker", str(tmp_path)]

    assert argv('strategy = "single"\ngpus = 1') == expected


def test_several_devices_are_started_by_torchrun(argv):
    """On a free port, one process a device, deaf to hang-ups."""
    command = argv('strategy = "fsdp"\ngpus = 4')

    assert "torch.distributed.run" in command
    assert {"--standalone", "--nproc-per-node=4", "--max-restarts=0"} <= set(command)
    assert "--signals-to-handle=SIGTERM,SIGINT" in command


def test_what_torchrun_keeps_lies_in_the_run(argv, tmp_path):
    """With what else is taken away at the end; its own choice is a folder in /tmp that stays."""
    command = argv('strategy = "fsdp"\ngpus = 4')

    (place,) = (one.partition("=")[2] for one in command if one.startswith("--log-dir="))
    assert Path(place).parent == tmp_path / ".trainer"
    assert command.index(f"--log-dir={place}") < command.index("runner.training.worker")


def test_a_damaged_recipe_starts_one_worker_that_will_say_so(argv):
    """The supervisor must not fail on what the worker reports better."""
    assert "torch.distributed.run" not in argv("gpus = ")


def test_the_worker_sees_the_chosen_devices_alone():
    """The Trainer would take every GPU it sees."""
    environment = worker_command.worker_environment({"A": "b"}, ["GPU-1", "GPU-2"])

    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert environment["A"] == "b"


def test_without_chosen_devices_the_users_choice_stays():
    """On a CPU nothing is set."""
    assert "CUDA_VISIBLE_DEVICES" not in worker_command.worker_environment({})


def test_the_worker_imports_nothing_from_the_working_directory_and_fetches_nothing():
    """Also if the user's environment says otherwise."""
    environment = worker_command.worker_environment({"HF_HUB_OFFLINE": "0", "PYTHONSAFEPATH": ""})

    assert (environment["PYTHONSAFEPATH"], environment["HF_HUB_OFFLINE"]) == ("1", "1")


def test_a_waiting_policy_of_the_user_stays():
    """Ours is only a default."""
    environment = worker_command.worker_environment({"OMP_WAIT_POLICY": "ACTIVE"})

    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"
