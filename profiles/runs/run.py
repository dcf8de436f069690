"""A run directory as facts: steady steps, phases, tokens, peaks, stalls.

Steady state leaves out the first steps (at least 5, or 5 %), as the reports on bottlenecks do;
evaluation and saving are timed apart from the steps by the worker.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from statistics import fmean, median
from typing import Any, TypeVar

import psutil

from profiles.machines import gputable
from profiles.run_facts import Curves, Run, Sample
from profiles.runs import columns, parents, samples
from profiles.runs.columns import NONE, Losses, Steps
from profiles.runs.journal import Tail
from profiles.runs.layers import LayerLog
from profiles.runs.records import Record
from profiles.runs.records.evaluation import Answer, Evaluated
from profiles.runs.records.metrics import PHASES
from profiles.runs.records.packing import Packing
from profiles.runs.records.ranks import Ranks
from profiles.runs.records.worker import Checkpoint, End, Paused, Prepared, TrainBegun, Unpaused
from profiles.runs.result import result_of
from profiles.runs.rundir import RunDir, read_json
from profiles.runs.samples import DeviceUse

_WARMUP_STEPS = 5
_WARMUP_SHARE = 0.05
_MOST_POINTS = 10_000
"""Of a curve: more than any screen or rule can use."""

Kind = TypeVar("Kind", bound=Record)


def from_run_dir(run: RunDir) -> tuple[Run | None, int]:
    """Facts of a run (None if not one step was recorded), and how many lines were passed over."""
    metrics, worker, sampler, of_layers = (
        Tail(p) for p in (run.metrics, run.worker_events, run.samples, run.layers)
    )
    steps, losses = columns.read(metrics)
    events = list(worker.stream())
    devices = _of_devices(samples.read(sampler))
    found_layers = LayerLog().add(of_layers.stream())
    num_damaged = sum(tail.num_damaged for tail in (metrics, worker, sampler, of_layers))
    if not len(steps):
        return None, num_damaged
    found = Run(
        id=run.id,
        device=_last(e.device for e in _of(Prepared, events)) or "cpu",
        compute_capability=_capability(run, events),
        num_steps=steps["step"][-1],
        **_rates(steps, events),
        **_stalls(events),
        longest=max(steps["longest"]),
        **_memory(steps, devices),
        **_eval_losses(events),
        first_loss=_finite(losses["loss"][:1]),
        last_loss=_finite(losses["loss"][-1:]),
        router_loss=_finite(losses["router_loss"][-1:]),
        penalty_loss=_finite(losses["penalty_loss"][-1:]),
        smoothing_loss=_finite(losses["smoothing_loss"][-1:]),
        ranks=_last(e.adapters for e in _of(Ranks, events)),
        layers=found_layers,
        unpacked=_last(e.what for e in _of(Packing, events)) or "",
        rows=_last(e.file for e in _of(Prepared, events)),
        of_template=_last(e.of_template or () for e in _of(Prepared, events)) or (),
        parents=parents.of_run(run),
        result=result_of(events),
        curves=_curves(losses, events),
        samples=_answers(events),
    )
    return found, num_damaged


def _capability(run: RunDir, events: list[Record]) -> str | None:
    """As the worker saw it, or as the table of GPUs has it for the name in the recipe's lock."""
    told = _last(e.compute_capability for e in _of(Prepared, events))
    if told is not None:
        return told
    name = (read_json(run.recipe_lock) or {}).get("gpu")
    part = gputable.look_up(name) if isinstance(name, str) else None
    return part.compute_capability if part else None


def _of(kind: type[Kind], records: Iterable[Record]) -> list[Kind]:
    return [r for r in records if isinstance(r, kind)]


Value = TypeVar("Value")


def _last(values: Iterable[Value]) -> Value | None:
    return ([None, *values])[-1]


def _finite(values: Sequence[float]) -> float | None:
    """The only value, if there is one and it is a number."""
    return next((value for value in values if not math.isnan(value)), None)


def _num_warmup(num_steps: int) -> int:
    skip = max(_WARMUP_STEPS, int(num_steps * _WARMUP_SHARE))
    return skip if skip < num_steps else num_steps - 1


def _rates(done: Steps, events: list[Record]) -> dict[str, Any]:
    """Time and tokens, of the steady steps and of the whole training."""
    warmup, wall = _num_warmup(len(done)), _wall_seconds(events, done)
    steady_seconds = done["seconds"][warmup:]
    num_steady, seconds = len(steady_seconds), sum(steady_seconds)
    tokens = sum(done["tokens"])
    return {
        "num_steady_steps": num_steady,
        "step_seconds": median(steady_seconds),
        "phase_seconds": {name: sum(done[name][warmup:]) / num_steady for name in PHASES},
        "longest_data_share": _tail(done["data_wait"][warmup:]),
        "wall_seconds": wall,
        "tokens": tokens,
        "padded_tokens": sum(done["padded_tokens"]),
        "label_tokens": sum(done["label_tokens"]),
        "tokens_per_second": sum(done["tokens"][warmup:]) / seconds if seconds else 0.0,
        "wall_tokens_per_second": tokens / wall if wall else 0.0,
    }


def _tail(waits: Iterable[float]) -> float:
    ordered = sorted(waits)
    middle = ordered[len(ordered) // 2]
    return ordered[int(len(ordered) * 0.99)] / middle if middle else 1.0


def _wall_seconds(events: list[Record], steps: Steps) -> float:
    """Training time of all attempts without pauses, each by its own monotonic clock."""
    ends: defaultdict[int, list[float]] = defaultdict(list)
    for attempt, at in zip(steps["attempt"], steps["monotonic_seconds"], strict=True):
        ends[attempt].append(at)
    total = 0.0
    for attempt, ended in ends.items():
        mine = [e for e in events if e.attempt == attempt]
        began = [e.monotonic_seconds for e in _of(TrainBegun, mine)]
        ended += [e.monotonic_seconds for e in (*_of(Evaluated, mine), *_of(Checkpoint, mine))]
        total += max(ended) - min(began or ended) - _paused_seconds(mine)
    return total


def _paused_seconds(events: list[Record]) -> float:
    """Time that an attempt waited for people or for room on the disk."""
    paused, total = None, 0.0
    for event in events:
        if isinstance(event, Paused):
            paused = event.monotonic_seconds
        elif isinstance(event, Unpaused) and paused is not None:
            total += event.monotonic_seconds - paused
            paused = None
    return total


def _stalls(events: list[Record]) -> dict[str, Any]:
    evals = [e for e in _of(Evaluated, events) if e.step > 0]
    saves = _of(Checkpoint, events)
    return {
        "setup_seconds": sum(e.seconds for e in _of(Prepared, events)),
        "eval_seconds": sum(e.seconds for e in evals),
        "num_evals": len(evals),
        "checkpoint_seconds": sum(e.seconds for e in saves),
        "num_checkpoints": len(saves),
        "checkpoint_bytes": saves[-1].bytes if saves else 0,
    }


def _eval_losses(events: list[Record]) -> dict[str, Any]:
    found = _of(Evaluated, events)
    return {
        "base_loss": next((e.loss for e in found if e.step == 0), None),
        "eval_loss": _last(e.loss for e in found),
    }


def _curves(losses: Losses, events: list[Record]) -> Curves:
    newest = max((e.attempt for e in events), default=0)
    return Curves(
        training=tuple(_points(losses)),
        num_steps=max((e.num_steps for e in _of(TrainBegun, events)), default=0),
        is_over=any(e.attempt == newest for e in _of(End, events)),
    )


def _points(losses: Losses) -> Iterator[tuple[int, float]]:
    """Of more than a curve holds, the first step and the mean of as many neighbours each."""
    finite = [not math.isnan(loss) for loss in losses["loss"]]
    at, values = (array(c.typecode, compress(c, finite)) for c in (losses["step"], losses["loss"]))
    size = -(-len(at) // _MOST_POINTS) or 1
    for first in range(0, len(at), size):
        yield at[first], fmean(values[first : first + size])


def _of_devices(use: DeviceUse) -> dict[str, Any]:
    return {
        "device_peak_bytes": use.used_bytes or None,
        "capacity_bytes": use.total_bytes,
        "throttle_shares": {name: count / use.num_busy for name, count in use.reasons.items()},
    }


def _memory(steps: Steps, devices: dict[str, Any]) -> dict[str, Any]:
    on_gpu = steps["allocated_peak_bytes"][-1] != NONE
    host_bytes = 0 if on_gpu else psutil.virtual_memory().total
    peaks = steps["allocated_peak_bytes" if on_gpu else "rss_peak_bytes"]
    return devices | {
        "peak_bytes": _peak(peaks),
        "reserved_peak_bytes": _peak(steps["reserved_peak_bytes"]) if on_gpu else None,
        "capacity_bytes": devices["capacity_bytes"] or host_bytes,
        "num_alloc_retries": _peak(steps["num_alloc_retries"][-1:]),
    }


def _peak(numbers: Sequence[int]) -> int:
    """The largest; what was not written counts as zero."""
    most = max(numbers)
    return max(most, 0) if NONE in numbers else most


def _answers(events: list[Record]) -> tuple[Sample, ...]:
    answers: dict[str, dict[str, str]] = {}
    for event in _of(Answer, events):
        known = answers.setdefault(event.prompt, {"wanted": event.wanted})
        known[event.moment] = event.answer
    return tuple(
        Sample(prompt=p, wanted=k["wanted"], before=k.get("before"), after=k.get("after"))
        for p, k in answers.items()
    )
