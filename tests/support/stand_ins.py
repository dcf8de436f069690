"""Small objects in the place of a trainer, its processes and its clock."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from plans import made
from transformers import TrainerControl, TrainerState

from profiles.runs.records.worker import Changed
from profiles.runs.rundir import read_json
from runner.training.selection import Selection


class Clock:
    """Time that passes only where somebody sleeps; `on_sleep` is told each time how late it is."""

    def __init__(self, now=1000.0):
        self.now = now
        self.on_sleep = lambda _now: None

    def monotonic(self):
        return self.now

    perf_counter = time = monotonic

    def sleep(self, seconds):
        self.now += max(seconds, 1e-3)
        self.on_sleep(self.now)


class Notes:
    """A journal in memory: the records, and which of them waited for the device."""

    def __init__(self):
        self.records = []
        self.synced = []

    def append(self, record, *, sync=True):
        self.records.append(record)
        self.synced.append(sync)

    def sync(self):
        self.synced = [True] * len(self.synced)


class OneOfTwo:
    """A rank of two; `others` is what the other one adds to every sum, `main` what rank 0 says."""

    def __init__(self, *, is_main, others=0, main=()):
        self.world_size = 2
        self.is_main = is_main
        self.others = others
        self.main = list(main)

    def totals(self, numbers):
        return [number + self.others for number in numbers]

    def from_main(self, value):
        if self.is_main:
            return value
        return self.main.pop(0) if self.main else type(value)()


class Recorder:
    """What is told of the time of steps."""

    def __init__(self):
        self.counts = {"rows": 3, "tokens": 40}
        self.seconds = 1.5
        self.finished = []
        self.times_begun = 0
        self.open = []
        self.closed = []

    @contextlib.contextmanager
    def phase(self, name):
        self.open.append(name)
        yield
        self.closed.append(self.open.pop())

    def finish(self, step, counts):
        self.finished.append((step, counts))

    def begin(self):
        self.times_begun += 1


class Trainer:
    """What the protocol's callback needs of a trainer; `done` is what it was told to do."""

    def __init__(self, attempt, ranks, *, fp16=False):
        self.plan = made("lora", seq_len=8)
        self.args = SimpleNamespace(fp16=fp16, logging_steps=1, eval_steps=5, save_steps=500)
        self.control = TrainerControl()
        self.attempt = attempt
        self.ranks = ranks
        self.recorder = Recorder()
        self.selection = Selection()
        self.eval_dataset = None
        self.changes: list[Changed] = []
        self.done = []
        self.lacking = []

    def before_steps(self):
        self.done.append("before steps")

    def try_longest_batch(self):
        self.done.append(f"longest batch, {self.attempt.progress.phase}")

    def compare_ranks(self):
        self.done.append("ranks compared")

    def shortfall(self, needed_bytes):
        self.done.append(f"looked for {needed_bytes} bytes")
        return self.lacking.pop(0) if self.lacking else None


def at(step, *, last=10, log_every=1, eval_every=5):
    """The state of a Trainer that has made so many steps."""
    state = TrainerState(global_step=step, max_steps=last)
    state.logging_steps, state.eval_steps = log_every, eval_every
    return state


def ends_step(callback, step=4, state=None):
    """End a step; what the Trainer is told to do."""
    flow = TrainerControl()
    callback.on_step_end(None, state or at(step), flow)
    return flow


def orders(flow):
    """(stop, save) of what the Trainer is told."""
    return flow.should_training_stop, flow.should_save


def answers(run):
    """What became of the requests, in the order of their names."""
    return [(read_json(p)["verb"], read_json(p)["result"]) for p in sorted(run.answers.iterdir())]
