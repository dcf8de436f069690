"""Attempts of real training in this process, on a tiny random model: faults can be put in."""

from __future__ import annotations

import contextlib
import os
import time
from functools import cache
from pathlib import Path
from unittest import mock

from on_disk import num_damaged, read_all

from advisor import recipe as recipes
from profiles.runs import durable, rundir
from profiles.runs.journal import Journal, SilentJournal
from runner.checks import chat_templates
from runner.training.attempt import Attempt
from runner.training.stopping import StopFlag


class StillHeart:
    """A heartbeat that does not beat: phases and steps are kept for the test to look at."""

    def __init__(self):
        self.phase = "starting"
        self.step = 0

    def end_step(self, step, _seconds):
        self.step = step

    def tick(self, _number=1):
        pass

    def expect(self, _total):
        pass

    @contextlib.contextmanager
    def during(self, phase, _total=0):
        before, self.phase = self.phase, phase
        yield
        self.phase = before


RECIPE = """schema = 1
name = "tiny"
[model]
id = "{model}"
[data]
train = "{data}"
max_length = 96
packing = {packing}
split = "{split}"
[method]
name = "{method}"
{adapter}
[train]
learning_rate = 5e-3
micro_batch = {micro_batch}
accumulation = {accumulation}
precision = "{precision}"
"""
TRIED = cache(chat_templates._try)
"""A template needs no second trial, which is a process, in the same process."""
ADAPTER = "rank = 8\nalpha = 16\ndropout = 0.1"


def new_run(  # noqa: PLR0913  # as many as a test may want to set
    model,
    data,
    *,
    method="lora",
    adapter=ADAPTER,
    packing=False,
    steps=7,
    micro_batch=2,
    accumulation=3,
    save_every=4,
    eval_every=1000,
    split="1:0:0",
    precision="fp32",
    more="",
):
    """A run directory, ready for its first attempt; without evaluation unless `split` asks.

    It answers no prompts unless `more` has samples: that would take most of its time.
    """
    periods = {"max_steps": steps, "save_every": save_every, "eval_every": eval_every}
    given = "".join(f"{key} = {value}\n" for key, value in periods.items() if value)
    given += "" if "samples = " in more else "samples = 0\n"
    text = RECIPE.format(
        model=model,
        data=data,
        method=method,
        adapter=adapter if method != "full" else "",
        packing=str(packing).lower(),
        micro_batch=micro_batch,
        accumulation=accumulation,
        split=split,
        precision=precision,
    )
    run = rundir.create("tiny")
    durable.write_json(run.manifest, {"schema": 1, "created": time.time(), "base_dir": "/"})
    durable.write_atomic(run.recipe, (text + given + more).encode())
    durable.write_atomic(run.attempt_file, b"1\n")
    return run


def attempt(run):
    """Train the run's current attempt to its end, here; returns the exit code."""
    from runner.training.session import Session

    number = run.attempt()
    is_main = os.environ.get("RANK", "0") == "0"
    paths = (run.worker_events, run.metrics, run.evaluations, run.layers)
    journals = [Journal(p, attempt=number) if is_main else SilentJournal() for p in paths]
    us = Attempt(
        run=run,
        events=journals[0],
        metrics=journals[1],
        evaluations=journals[2],
        layers=journals[3],
        progress=StillHeart(),
        stop=StopFlag(),
    )
    recipe = recipes.parse(run.recipe.read_text(), where="test")
    with mock.patch.object(chat_templates, "_try", TRIED):
        code = Session(us, recipe, Path("/")).run_to_end()
    assert num_damaged(run) == 0  # what it has written can be read
    return code


def next_attempt(run):
    """Begin the next attempt, as the launcher does."""
    durable.write_atomic(run.attempt_file, f"{run.attempt() + 1}\n".encode())
    return attempt(run)


def losses(run):
    """Step -> loss; of a step that was made again, the last."""
    return {r["step"]: r["loss"] for r in read_all(run.metrics) if r["kind"] == "loss"}


def events(run, kind):
    """The worker's events of one kind, in order."""
    return [e for e in read_all(run.worker_events) if e["kind"] == kind]


def weights(run):
    """The final artefact's tensors."""
    from safetensors.torch import load_file

    (path,) = run.model.glob("*.safetensors")
    return load_file(path)


def steps(run):
    """Every step record, in order."""
    return [r for r in read_all(run.metrics) if r["kind"] == "step"]


def record(run, error):
    """Write down why an attempt ended, as the worker does."""
    durable.write_json(run.error, {"attempt": run.attempt(), **error.as_dict()})


def quiet(run):
    """An attempt that nobody trains."""
    journal = Journal(run.worker_events, attempt=1)
    return Attempt(
        run=run,
        events=journal,
        metrics=journal,
        evaluations=journal,
        layers=journal,
        progress=StillHeart(),
        stop=StopFlag(),
    )


def wait_for(condition, seconds=20):
    """Poll until it holds; AssertionError if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
