"""The worker's command, for one process or several, and the environment that it gets.

Knows torchrun's arguments; imports the standard library alone, so the supervisor can use it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from profiles import redact, toml_text
from profiles.runs import reading

_WORKER = ["-m", "runner.training.worker"]
_LAUNCHERS_OWN = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)
"""Left in the environment by a cluster's launcher, they would make one worker wait for others."""


def worker_argv(run_path: Path) -> list[str]:
    """Command of the worker, read from the run's own recipe copy."""
    num_processes = _hardware(run_path).get("gpus", 1)
    # No number: the worker says what is wrong
    if not isinstance(num_processes, int) or num_processes <= 1:
        return [sys.executable, "-P", *_WORKER, str(run_path)]
    return [
        *[sys.executable, "-P", "-m", "torch.distributed.run"],
        "--standalone",  # a free port on localhost, never the fixed 29500
        f"--nproc-per-node={num_processes}",
        "--max-restarts=0",
        "--signals-to-handle=SIGTERM,SIGINT",  # a hang-up must not end the run
        f"--log-dir={run_path / '.trainer' / 'launcher'}",  # else a folder in /tmp stays
        *_WORKER,
        str(run_path),
    ]


def _hardware(run_path: Path) -> dict[str, Any]:
    try:
        recipe = toml_text.parse(reading.text(run_path / "recipe.toml"))
    except (OSError, ValueError):
        return {}  # the worker reads it again and says what is wrong
    hardware = recipe.get("hardware", {})
    return hardware if isinstance(hardware, dict) else {}


def worker_environment(
    environment: Mapping[str, str], devices: Sequence[str] = ()
) -> dict[str, str]:
    """Environment of the worker: nothing from the working directory or the network, no secrets.

    With `devices` it sees those GPUs alone: the Trainer would take every one that it sees.
    """
    harmless = redact.without_secrets(environment)
    kept = {name: value for name, value in harmless.items() if name not in _LAUNCHERS_OWN}
    if devices:
        kept |= {"CUDA_VISIBLE_DEVICES": ",".join(devices), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    # Waiting threads that spin stop each other on a machine that does anything else: measured
    # 2.7 to 20 times slower training on two shared cores
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    kept.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return kept | {
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",  # models are local folders: nothing is fetched unasked
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",  # forked data loader workers would deadlock
    }
