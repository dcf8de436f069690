"""A run directory as facts: steady steps, phases, tokens, peaks, stalls.

Steady state leaves out the first steps (at least 5, or 5 %), as the reports on bottlenecks do;
evaluation and saving are timed apart from the steps by the worker.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, TypeVar

import psutil

from profiles.machines import gputable
from profiles.run_facts import Curves, Run, Sample
from profiles.runs.journal import Tail
from profiles.runs.records import Record
from profiles.runs.records.evaluation import Answer, Evaluated
from profiles.runs.records.metrics import PHASES, Loss, Step
from profiles.runs.records.sampler import Usage
from profiles.runs.records.worker import Checkpoint, End, Paused, Prepared, TrainBegun, Unpaused
from profiles.runs.result import result_of
from profiles.runs.rundir import RunDir, read_json

_WARMUP_STEPS = 5
_WARMUP_SHARE = 0.05

Kind = TypeVar("Kind", bound=Record)


def from_run_dir(run: RunDir) -> tuple[Run | None, int]:
    """Facts of a run (None if not one step was recorded), and how many lines were passed over."""
    metrics, worker, sampler = (Tail(p) for p in (run.metrics, run.worker_events, run.samples))
    steps: dict[int, Step] = {}
    losses: dict[int, Loss] = {}
    for record in metrics.stream():
        # after a resume a step can be there twice: the later attempt is what counts
        if isinstance(record, Step):
            steps[record.step] = record
        elif isinstance(record, Loss):
            losses[record.step] = record
    events = list(worker.stream())
    devices = _devices(r for r in sampler.stream() if isinstance(r, Usage))
    num_damaged = metrics.num_damaged + worker.num_damaged + sampler.num_damaged
    if not steps:
        return None, num_damaged
    done = [steps[n] for n in sorted(steps)]
    logged = [losses[n].loss for n in sorted(losses)]
    found = Run(
        id=run.id,
        device=_last(e.device for e in _of(Prepared, events)) or "cpu",
        compute_capability=_capability(run, events),
        num_steps=done[-1].step,
        **_rates(done, events),
        **_stalls(events),
        longest=max(s.longest for s in done),
        **_memory(done, devices),
        **_eval_losses(events),
        first_loss=logged[0] if logged else None,
        last_loss=_last(logged),
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


def _steady(steps: list[Step]) -> list[Step]:
    skip = max(_WARMUP_STEPS, int(len(steps) * _WARMUP_SHARE))
    return steps[skip:] or steps[-1:]


def _rates(done: list[Step], events: list[Record]) -> dict[str, Any]:
    """Time and tokens, of the steady steps and of the whole training."""
    steady, wall = _steady(done), _wall_seconds(events, done)
    seconds = sum(s.seconds for s in steady)
    tokens = sum(s.tokens for s in done)
    return {
        "num_steady_steps": len(steady),
        "step_seconds": median(s.seconds for s in steady),
        "phase_seconds": _phases(steady),
        "longest_data_share": _tail(s.phases.get("data", 0.0) for s in steady),
        "wall_seconds": wall,
        "tokens": tokens,
        "padded_tokens": sum(s.padded_tokens for s in done),
        "label_tokens": sum(s.label_tokens for s in done),
        "tokens_per_second": sum(s.tokens for s in steady) / seconds if seconds else 0.0,
        "wall_tokens_per_second": tokens / wall if wall else 0.0,
    }


def _phases(steady: list[Step]) -> dict[str, float]:
    """Mean seconds a step."""
    totals: defaultdict[str, float] = defaultdict(float)
    for step in steady:
        for name, seconds in step.phase_seconds.items():
            totals[name] += seconds
    return {name: totals[name] / len(steady) for name in PHASES}


def _tail(waits: Iterable[float]) -> float:
    ordered = sorted(waits)
    middle = ordered[len(ordered) // 2]
    return ordered[int(len(ordered) * 0.99)] / middle if middle else 1.0


def _wall_seconds(events: list[Record], steps: list[Step]) -> float:
    """Training time of all attempts without pauses, each by its own monotonic clock."""
    total = 0.0
    for attempt in {s.attempt for s in steps}:
        mine = [e for e in events if e.attempt == attempt]
        began = [e.monotonic_seconds for e in _of(TrainBegun, mine)]
        ended = [s.monotonic_seconds for s in steps if s.attempt == attempt]
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


def _curves(losses: dict[int, Loss], events: list[Record]) -> Curves:
    newest = max((e.attempt for e in events), default=0)
    return Curves(
        training=tuple((n, loss) for n in sorted(losses) if (loss := losses[n].loss) is not None),
        num_steps=max((e.num_steps for e in _of(TrainBegun, events)), default=0),
        is_over=any(e.attempt == newest for e in _of(End, events)),
    )


def _devices(samples: Iterable[Usage]) -> dict[str, Any]:
    """The fullest GPU that was seen, and what held busy ones back."""
    used, total, busy = 0, 0, 0
    reasons: Counter[str] = Counter()
    for gpu in (gpu for sample in samples for gpu in sample.gpus):
        if (gpu.used_bytes or 0) > used:
            used, total = gpu.used_bytes or 0, gpu.total_bytes or 0
        if (gpu.utilization_percent or 0) > 0:
            busy += 1
            reasons.update(gpu.throttle)
    return {
        "device_peak_bytes": used or None,
        "capacity_bytes": total,
        "throttle_shares": {name: count / busy for name, count in reasons.items()},
    }


def _memory(steps: Sequence[Step], devices: dict[str, Any]) -> dict[str, Any]:
    newest = steps[-1]
    on_gpu = newest.allocated_peak_bytes is not None
    host_bytes = 0 if on_gpu else psutil.virtual_memory().total
    peaks = [(s.allocated_peak_bytes or 0) if on_gpu else s.rss_peak_bytes for s in steps]
    return devices | {
        "peak_bytes": max(peaks),
        "reserved_peak_bytes": max(s.reserved_peak_bytes or 0 for s in steps) if on_gpu else None,
        "capacity_bytes": devices["capacity_bytes"] or host_bytes,
        "num_alloc_retries": newest.num_alloc_retries or 0,
    }


def _answers(events: list[Record]) -> tuple[Sample, ...]:
    answers: dict[str, dict[str, str]] = {}
    for event in _of(Answer, events):
        known = answers.setdefault(event.prompt, {"wanted": event.wanted})
        known[event.moment] = event.answer
    return tuple(
        Sample(prompt=p, wanted=k["wanted"], before=k.get("before"), after=k.get("after"))
        for p, k in answers.items()
    )
