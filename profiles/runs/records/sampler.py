"""Records of samples.jsonl: what processes and devices use, once a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiles.runs.records.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUsage:
    """The live numbers of one GPU; None where the driver does not say."""

    index: int
    used_bytes: int | None
    """By whomever."""
    total_bytes: int | None
    utilization_percent: float | None
    power_watts: float | None
    temperature_celsius: float | None
    sm_clock_mhz: float | None
    sm_clock_max_mhz: float | None
    throttle: tuple[str, ...]
    """Reasons; empty if none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Record):
    """The worker with its descendants, summed, and what the host has."""

    kind: ClassVar[str] = "sample"

    num_processes: int
    rss_bytes: int
    cpu_seconds: float
    host_free_bytes: int
    gpus: tuple[GpuUsage, ...]
