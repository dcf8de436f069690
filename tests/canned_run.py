"""Run directories as the runner writes them, without a runner."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from profiles.runs import identity, rundir
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.metrics import Loss, Step
from profiles.runs.records.sampler import GpuUsage, Usage
from profiles.runs.records.supervisor import SupervisorStarted
from profiles.runs.records.worker import Checkpoint, SaveBegun, TrainBegun, WorkerStarted

if TYPE_CHECKING:
    from profiles.runs.rundir import RunDir

GIB = 2**30
_STEP_SECONDS = 0.5


def canned_run(
    *, name: str = "tiny lora", num_steps: int = 40, done: int = 20, end: str | None = None
) -> RunDir:
    """Make a run under TUNEDECK_HOME: working (as this process) unless `end` names its end."""
    run = rundir.create(name)
    run.manifest.write_text(json.dumps({"id": run.id, "name": name, "created": time.time()}))
    run.recipe.write_text("[plan]\ntokens_per_second = 800.0\n")
    run.attempt_file.write_text("1\n")
    run.lock.touch()
    Journal(run.supervisor_events, attempt=1).append(SupervisorStarted(pid=os.getpid()))
    write_events(run, num_steps)
    add_steps(run, 1, done)
    me = identity.of_process(os.getpid())
    assert me is not None
    people = {"attempt": 1, "supervisor": me.as_dict(), "worker": me.as_dict()}
    run.processes.write_text(json.dumps(people))
    if end is not None:
        finish(run, end, done)
    return run


def write_events(run: RunDir, num_steps: int) -> None:
    """Write what comes before the first step, and one checkpoint."""
    events = Journal(run.worker_events, attempt=1)
    events.append(WorkerStarted(pid=os.getpid()))
    events.append(Evaluated(step=0, loss=3.83, seconds=0.4))
    events.append(TrainBegun(step=0, num_steps=num_steps))
    events.append(SaveBegun(step=4))
    events.append(Checkpoint(step=4, seconds=0.1, bytes=8_000_000))
    events.append(Evaluated(step=4, loss=3.61, seconds=0.4))


def add_steps(run: RunDir, first: int, last: int) -> None:
    """Write steps and losses."""
    metrics = Journal(run.metrics, attempt=1)
    for number in range(first, last + 1):
        metrics.append(step(number), sync=False)
        metrics.append(Loss(step=number, loss=4.0 - number / 40), sync=False)


def step(number: int, **changes: Any) -> Step:
    """Make a step on the CPU."""
    phases = {"data": 0.05, "forward": 0.15, "backward": 0.2, "optimizer": 0.05, "other": 0.05}
    usual = Step(
        step=number,
        seconds=_STEP_SECONDS,
        phases=phases,
        rows=4,
        padded_tokens=500,
        tokens=400,
        label_tokens=100,
        longest=125,
        rss_peak_bytes=GIB,
    )
    return replace(usual, **changes)


def add_sample(run: RunDir, *gpus: GpuUsage, rss_bytes: int = GIB) -> None:
    """Write one sample."""
    found = Usage(
        num_processes=1, rss_bytes=rss_bytes, cpu_seconds=1.0, host_free_bytes=GIB, gpus=gpus
    )
    Journal(run.samples, attempt=1).append(found)


def gpu(index: int = 0, used_gib: float = 60.0) -> GpuUsage:
    """Make one GPU of a sample."""
    return GpuUsage(
        index=index,
        used_bytes=int(used_gib * GIB),
        total_bytes=80 * GIB,
        utilization_percent=97,
        power_watts=642.0,
        temperature_celsius=71,
        sm_clock_mhz=None,
        sm_clock_max_mhz=None,
        throttle=(),
    )


def finish(run: RunDir, state: str, step: int) -> None:
    """Write the exit record."""
    content = {"attempt": 1, "state": state, "code": 0, "last_step": step, "what": f"it {state}"}
    content |= {"why": "because of a test", "do": "nothing"}
    run.exit.write_text(json.dumps(content))
