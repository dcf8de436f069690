"""What the panes of the live screen say, as rows: GPUs and where the time goes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from profiles.quantities import bytes_text, count_text, duration_text, percent_text
from profiles.runs.records.metrics import beside_text
from tui.plain_bars import meter
from tui.terminal import Symbols, clean

if TYPE_CHECKING:
    from profiles.runs.records.sampler import GpuUsage
    from tui.live import LiveRun

_WORDS = {"data": "data wait"}
_LABEL_WIDTH = 10


def gpu_rows(live: LiveRun, width: int, height: int, symbols: Symbols) -> list[str]:
    """Draw a meter a GPU; where there is room, what it does below."""
    gpus = gpus_of(live)
    rows: list[str] = []
    two_rows = 2 * len(gpus) <= height
    for gpu in gpus:
        rows.append(_meter_row(gpu, width, symbols))
        if two_rows:
            rows.append(_live_row(gpu)[:width])
    if len(rows) > height:
        rows = [*rows[: height - 1], f"{len(gpus) - height + 1} more GPUs"]
    return rows


def gpus_of(live: LiveRun) -> tuple[GpuUsage, ...]:
    """Of the newest sample; empty on a CPU."""
    return live.sample.gpus if live.sample is not None else ()


def _meter_row(gpu: GpuUsage, width: int, symbols: Symbols) -> str:
    used, total = gpu.used_bytes, gpu.total_bytes
    amount = "unknown"
    if used is not None and total is not None:
        amount = f"{used / 2**30:.1f}/{total / 2**30:.0f} GiB"
    label = f"{gpu.index} {amount} "
    return label + meter(used, total, max(0, width - len(label)), symbols)


def _live_row(gpu: GpuUsage) -> str:
    values = (
        (gpu.utilization_percent, "% busy"),
        (gpu.power_watts, "W"),
        (gpu.temperature_celsius, "C"),
    )
    parts = [f"{value:.0f} {unit}" for value, unit in values if value is not None]
    if gpu.throttle:
        parts.append("throttled: " + ", ".join(clean(reason, 20) for reason in gpu.throttle))
    return "  " + "  ".join(parts)


def memory_caption(live: LiveRun) -> str:
    """Process memory against the RAM of this host."""
    used = live.memory.last
    if used is None:
        return ""
    total = psutil.virtual_memory().total
    return f"of {bytes_text(total)} RAM, {percent_text(used * 2**30 / total)}"


def loss_caption(live: LiveRun) -> str:
    """Tell the newest evaluation in words, and what is minimised beside the loss."""
    beside = beside_text(live.router_loss, live.penalty_loss, live.smoothing_loss)
    return "; ".join(filter(None, [live.evaluation(), beside]))


def rate_caption(live: LiveRun) -> str:
    """Against the plan."""
    recent, planned = live.rate.mean_of_last(live.num_recent or 1), live.planned_tokens_per_second
    if recent is None or not planned:
        return "by step"
    return f"{percent_text(recent / planned)} of planned {count_text(planned)}"


def time_rows(live: LiveRun, width: int, height: int, symbols: Symbols) -> list[str]:
    """Draw a bar a phase, each with its word."""
    shares = live.shares()
    if not shares:
        return ["no step yet"]
    seconds = duration_text(_rounded(live.step_seconds))
    head = f"{seconds} a step, mean of the last {live.num_recent}"
    bars = [
        f"{_WORDS.get(name, name):<{_LABEL_WIDTH}}"
        + meter(share, 1.0, max(0, width - _LABEL_WIDTH), symbols)
        for name, share in shares
    ]
    blank = [""] if height > len(bars) + 1 else []
    return [head[:width], *blank, *bars]


def _rounded(seconds: float | None) -> float | None:
    """Two figures: the third changes with every step and says nothing."""
    with suppress(TypeError, ValueError):
        return float(f"{seconds:.2g}")
    return None
