"""What a training step did, as records: phases, tokens, memory. Adds no device synchronisation.

Host times come from `perf_counter`. On a GPU, where the host only queues work, CUDA events mark the
same edges and are read once the device has passed them, so a step's record is written a little
late rather than the training waiting for it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from profiles.runs.journal import Journal
from profiles.runs.records.metrics import Step
from runner.training.batches import Batches, Counts

TOKEN_STATS = "token_stats"  # noqa: S105  # a batch key
COUNTS = ("rows", "padded_tokens", "tokens", "label_tokens")
_SYNC_SECONDS = 5.0
_MAX_UNREAD = 8
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class CountingCollator:
    """Puts what a batch holds beside it.

    Counted where the batch is still on the CPU, so that counting never waits for a device.
    """

    def __init__(self, inner: Any, batches: Batches) -> None:
        self.inner = inner
        self._batches = batches

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate, and count."""
        batch: dict[str, Any] = self.inner(rows)
        batch[TOKEN_STATS] = self._batches.counts(rows, batch)
        return batch


class StepRecorder:
    """Collects one optimizer step at a time and writes it to the metrics."""

    def __init__(self, metrics: Journal, device: torch.device) -> None:
        self._metrics = metrics
        self._on_cuda = device.type == "cuda"
        self._device = device
        self._unread: deque[tuple[Step, list[tuple[str, Any, Any]], Any, Any]] = deque()
        self._last_sync = time.monotonic()
        self.begin()

    def begin(self) -> None:
        """Forget what was collected; the next step starts now."""
        self._started = time.perf_counter()
        self._phases: defaultdict[str, float] = defaultdict(float)
        self._edges: list[tuple[str, Any, Any]] = []
        self._tokens: Counter[str] = Counter()
        self._longest = 0
        self._first_mark = self._mark()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time inside to `name`."""
        before = self._mark()
        started = time.perf_counter()
        try:
            yield
        finally:
            self._phases[name] += time.perf_counter() - started
            if before is not None:
                self._edges.append((name, before, self._mark()))

    def count(self, counts: Counts) -> None:
        """Add what a batch holds."""
        self._tokens.update({name: getattr(counts, name) for name in COUNTS})
        self._longest = max(self._longest, counts.longest)

    @property
    def counts(self) -> dict[str, int]:
        """Rows and tokens of this step so far, on this rank."""
        return {name: self._tokens[name] for name in COUNTS}

    @property
    def seconds(self) -> float:
        """How long this step has taken so far, as the host sees it."""
        return time.perf_counter() - self._started

    def finish(self, step: int, counts: dict[str, int]) -> None:
        """Close the step with the counts of all ranks; written when the device has passed it."""
        seconds = self.seconds
        phases = {name: round(value, 6) for name, value in self._phases.items()}
        phases["other"] = round(max(0.0, seconds - sum(self._phases.values())), 6)
        record = Step(
            step=step,
            seconds=round(seconds, 6),
            phases=phases,
            rows=counts["rows"],
            padded_tokens=counts["padded_tokens"],
            tokens=counts["tokens"],
            label_tokens=counts["label_tokens"],
            longest=self._longest,
            **self._memory(),
        )
        self._unread.append((record, self._edges, self._first_mark, self._mark()))
        self._write_passed(wait=len(self._unread) > _MAX_UNREAD)
        self.begin()

    def flush(self) -> None:
        """Write everything that is still unread."""
        while self._unread:
            self._write_passed(wait=True)
        self._metrics.sync()

    def _write_passed(self, *, wait: bool) -> None:
        while self._unread:
            record, edges, first, last = self._unread[0]
            if last is not None and not last.query():
                if not wait:
                    return
                last.synchronize()
            self._unread.popleft()
            wait = False
            if last is not None:
                # The host is done with a step while the device still works on it
                seconds = max(record.seconds, first.elapsed_time(last) / 1000)
                record = replace(record, seconds=round(seconds, 6), gpu_phases=_elapsed(edges))
            self._metrics.append(record, sync=False)
        if time.monotonic() - self._last_sync > _SYNC_SECONDS:
            self._last_sync = time.monotonic()
            self._metrics.sync()

    def _mark(self) -> Any:
        if not self._on_cuda:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _memory(self) -> dict[str, Any]:
        resident = {"rss_peak_bytes": peak_rss_bytes()}
        if not self._on_cuda:
            return resident
        stats = torch.cuda.memory_stats(self._device)
        return resident | {
            "allocated_bytes": stats["allocated_bytes.all.current"],
            "allocated_peak_bytes": stats["allocated_bytes.all.peak"],
            "reserved_peak_bytes": stats["reserved_bytes.all.peak"],
            "num_alloc_retries": stats["num_alloc_retries"],
        }


def _elapsed(edges: list[tuple[str, Any, Any]]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for name, before, after in edges:
        total[name] += before.elapsed_time(after) / 1000
    return {name: round(value, 6) for name, value in total.items()}


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
