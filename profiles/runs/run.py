"""A run directory as facts: steady steps, phases, tokens, peaks, stalls.

Steady state leaves out the first steps (at least 5, or 5 %), as the reports on bottlenecks do;
evaluation and saving are timed apart from the steps by the worker.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any

import psutil

from profiles.machines import gputable
from profiles.run_facts import Run, Sample
from profiles.runs.journal import Record, read_all
from profiles.runs.reading import whole
from profiles.runs.rundir import RunDir, read_json

PHASES = ("data", "forward", "backward", "optimizer", "other")
_WARMUP_STEPS = 5
_WARMUP_SHARE = 0.05


def from_run_dir(run: RunDir) -> Run | None:
    """Facts of a run, or None if not one step was recorded."""
    steps: dict[int, Record] = {}
    losses: dict[int, Record] = {}
    for record in read_all(run.metrics):
        # after a resume a step can be there twice: the later attempt is what counts
        kept = {"step": steps, "loss": losses}.get(record["kind"])
        if kept is not None and isinstance(record.get("step"), int):
            kept[record["step"]] = record
    if not steps:
        return None
    done = [steps[n] for n in sorted(steps)]
    steady = _steady(done)
    events = list(read_all(run.worker_events))
    totals = _token_totals(done)
    seconds = sum(_number(s, "seconds") for s in steady)
    wall = _wall_seconds(events, done)
    return Run(
        id=run.id,
        device=_last(events, "prepared").get("device", "cpu"),
        compute_capability=_capability(run, events),
        num_steps=done[-1]["step"],
        num_steady_steps=len(steady),
        step_seconds=median(_number(s, "seconds") for s in steady),
        phase_seconds=_phases(steady),
        longest_data_share=_tail(_numbers(s, "phases").get("data", 0.0) for s in steady),
        wall_seconds=wall,
        setup_seconds=sum(_number(e, "seconds") for e in _of(events, "prepared")),
        **_stalls(events),
        **totals,
        longest=max(whole(s, "longest") for s in done),
        tokens_per_second=sum(whole(s, "tokens") for s in steady) / seconds if seconds else 0.0,
        wall_tokens_per_second=totals["tokens"] / wall if wall else 0.0,
        **_memory(run, done),
        base_loss=next(
            (e.get("loss") for e in _of(events, "evaluated") if e.get("step") == 0), None
        ),
        eval_loss=_last(events, "evaluated").get("loss"),
        first_loss=losses[min(losses)].get("loss") if losses else None,
        last_loss=losses[max(losses)].get("loss") if losses else None,
        samples=_samples(events),
    )


def _capability(run: RunDir, events: list[Record]) -> str | None:
    """As the worker saw it, or as the table of GPUs has it for the name in the recipe's lock."""
    told = _last(events, "prepared").get("compute_capability")
    if isinstance(told, str):
        return told
    name = (read_json(run.recipe_lock) or {}).get("gpu")
    part = gputable.look_up(name) if isinstance(name, str) else None
    return part.compute_capability if part else None


def _number(record: Record, name: str) -> float:
    value = record.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _numbers(record: Record, name: str) -> dict[str, float]:
    """A field that should hold numbers by name, without what is none."""
    value = record.get(name)
    return {k: _number(value, k) for k in value} if isinstance(value, dict) else {}


def _steady(steps: list[Record]) -> list[Record]:
    skip = max(_WARMUP_STEPS, int(len(steps) * _WARMUP_SHARE))
    return steps[skip:] or steps[-1:]


def _of(events: Iterable[Record], kind: str) -> list[Record]:
    return [e for e in events if e["kind"] == kind]


def _last(events: Iterable[Record], kind: str) -> Record:
    found = _of(events, kind)
    return found[-1] if found else {}


def _phases(steady: list[Record]) -> dict[str, float]:
    """Mean seconds a step: device times where there are some, for the host only queues work."""
    totals: defaultdict[str, float] = defaultdict(float)
    for step in steady:
        seconds, device = _numbers(step, "phases"), _numbers(step, "gpu_phases")
        if device:
            other = max(0.0, _number(step, "seconds") - sum(device.values()))
            seconds = {**device, "other": other}
        for name, value in seconds.items():
            totals[name] += value
    return {name: totals[name] / len(steady) for name in PHASES}


def _tail(waits: Iterable[float]) -> float:
    ordered = sorted(waits)
    middle = ordered[len(ordered) // 2]
    return ordered[int(len(ordered) * 0.99)] / middle if middle else 1.0


def _token_totals(steps: list[Record]) -> dict[str, Any]:
    names = ("tokens", "padded_tokens", "label_tokens")
    return {name: sum(whole(s, name) for s in steps) for name in names}


def _wall_seconds(events: list[Record], steps: list[Record]) -> float:
    """Training time of all attempts without pauses, each by its own monotonic clock."""
    total = 0.0
    for attempt in {s["a"] for s in steps}:
        began = [e["m"] for e in events if e["a"] == attempt and e["kind"] == "train_begun"]
        ended = [s["m"] for s in steps if s["a"] == attempt]
        ended += [
            e["m"]
            for e in events
            if e["a"] == attempt
            and e["kind"] in ("evaluated", "checkpoint")
            and whole(e, "step") > 0
        ]
        total += max(ended) - min(began or ended) - _paused_seconds(events, attempt)
    return total


def _paused_seconds(events: list[Record], attempt: int) -> float:
    """Time that an attempt waited for people or for room on the disk."""
    paused, total = None, 0.0
    for event in events:
        if event["a"] != attempt:
            continue
        if event["kind"] == "paused":
            paused = event["m"]
        elif event["kind"] == "unpaused" and paused is not None:
            total += event["m"] - paused
            paused = None
    return total


def _stalls(events: list[Record]) -> dict[str, Any]:
    evals = [e for e in _of(events, "evaluated") if whole(e, "step") > 0]
    saves = _of(events, "checkpoint")
    return {
        "eval_seconds": sum(_number(e, "seconds") for e in evals),
        "num_evals": len(evals),
        "checkpoint_seconds": sum(_number(e, "seconds") for e in saves),
        "num_checkpoints": len(saves),
        "checkpoint_bytes": whole(saves[-1], "bytes") if saves else 0,
    }


def _memory(run: RunDir, steps: list[Record]) -> dict[str, Any]:
    on_gpu = "allocated_peak_bytes" in steps[-1]
    peak_name = "allocated_peak_bytes" if on_gpu else "rss_peak_bytes"
    used, total, busy = 0, 0, 0
    reasons: Counter[str] = Counter()
    for record in read_all(run.samples):
        for gpu in record.get("gpus") or []:
            if (gpu.get("used_bytes") or 0) > used:
                used, total = gpu["used_bytes"], whole(gpu, "total_bytes")
            if (gpu.get("utilization_percent") or 0) > 0:
                busy += 1
                reasons.update(gpu.get("throttle", []))
    return {
        "peak_bytes": max(whole(s, peak_name) for s in steps),
        "reserved_peak_bytes": max(whole(s, "reserved_peak_bytes") for s in steps)
        if on_gpu
        else None,
        "device_peak_bytes": used or None,
        "capacity_bytes": total or (0 if on_gpu else psutil.virtual_memory().total),
        "num_alloc_retries": whole(steps[-1], "num_alloc_retries"),
        "throttle_shares": {name: count / busy for name, count in reasons.items()},
    }


def _samples(events: list[Record]) -> tuple[Sample, ...]:
    answers: dict[str, dict[str, Any]] = {}
    for event in _of(events, "sample"):
        sample = answers.setdefault(str(event.get("prompt")), {"wanted": event.get("wanted")})
        sample[str(event.get("moment"))] = event.get("answer")
    return tuple(
        Sample(prompt=p, wanted=s["wanted"], before=s.get("before"), after=s.get("after"))
        for p, s in answers.items()
    )
