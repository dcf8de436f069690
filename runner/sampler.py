"""Once a second, outside the training process: devices, host and the worker's memory.

Run as `python -P -m runner.sampler RUN_DIR WORKER_PID`. Ends when the worker ends. A
driver that hangs here cannot hang the training.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import psutil

from profiles.facts import Gpu, Machine
from profiles.machines import machine
from profiles.runs.journal import Journal
from profiles.runs.records.sampler import GpuUsage, Usage
from profiles.runs.rundir import RunDir

_INTERVAL_SECONDS = 1.0


def usage(worker: psutil.Process, host: Machine) -> Usage:
    """What the worker and its descendants use, summed, and what is left of the host."""
    family = [worker, *worker.children(recursive=True)]
    resident_bytes, cpu_seconds = 0, 0.0
    for process in family:
        with contextlib.suppress(psutil.Error):
            resident_bytes += process.memory_info().rss
            times = process.cpu_times()
            cpu_seconds += times.user + times.system
    return Usage(
        num_processes=len(family),
        rss_bytes=resident_bytes,
        cpu_seconds=round(cpu_seconds, 2),
        host_free_bytes=host.ram_free_bytes,
        gpus=tuple(_of_gpu(gpu) for gpu in host.gpus),
    )


def _of_gpu(gpu: Gpu) -> GpuUsage:
    return GpuUsage(
        index=gpu.index,
        used_bytes=gpu.held_bytes,
        total_bytes=gpu.vram_bytes,
        utilization_percent=gpu.utilization_percent,
        power_watts=gpu.power_watts,
        temperature_celsius=gpu.temperature_celsius,
        sm_clock_mhz=gpu.sm_clock_mhz,
        sm_clock_max_mhz=gpu.sm_clock_max_mhz,
        throttle=gpu.throttle_reasons,
    )


def _keep_driver_open() -> None:
    """NVML counts its users: with one open here, each sample's own opening costs nothing."""
    import pynvml  # noqa: PLC0415  # where there is no driver, this is all there is to do

    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()


def main(argv: list[str]) -> int:
    """Sample until the worker is gone."""
    run = RunDir(Path(argv[1]))
    journal = Journal(run.samples, attempt=run.attempt())
    try:
        worker = psutil.Process(int(argv[2]))
    except psutil.NoSuchProcess:
        return 0
    _keep_driver_open()
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        began = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            journal.append(usage(worker, machine.probe(run.path)), sync=False)
        time.sleep(max(0.0, _INTERVAL_SECONDS - (time.monotonic() - began)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
