"""SIGKILL in every phase of real training: each run ends with the weights of an undisturbed one.

Run as `python tests/bench/phase_kills.py`: 6 phases x LoRA, QLoRA and full x one and two processes
x 5 kills on a tiny model, about an hour on two cores; `--kills 1` takes a fifth. What a kill hit is
read from the records afterwards; one that missed its phase is counted where it fell and made again.
Exit code 1 if a run ended with other weights, or a phase was not hit as often as asked.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

import torch
from safetensors.torch import load_file

from profiles.runs import processes
from profiles.runs.journal import read_all
from profiles.runs.records import Record
from profiles.runs.records.worker import Checkpoint, Phase, SaveBegun, TrainBegun
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, status
from runner.demo_base import make_model, make_tokenizer
from runner.demo_text import base_lines, instruction_rows
from runner.supervision import launch, leftovers

PHASES = ("loading", "base evaluation", "first step", "saving", "evaluating", "publishing")
METHODS = ("lora", "qlora", "full")
_STEPS, _EVERY = 4, 2
_LIMIT_SECONDS = 180.0
_POLL_SECONDS = 0.004
_WITHIN_SECONDS = {
    "base evaluation": 0.15,
    "first step": 0.03,
    "saving": 0.012,
    "evaluating": 0.1,
    "publishing": 0.02,
}
"""Of its beginning, a phase is killed; unnamed ones last longer. Each miss narrows it."""
_TRIES = 6
"""Misses for each kill that is wanted in a phase."""


def recipe(method: str, num_processes: int) -> bytes:
    """Four steps, saved and evaluated after the second and the last."""
    adapter = "rank = 4\nalpha = 8\n" if method != "full" else ""
    hardware = '[hardware]\nstrategy = "ddp"\ngpus = 2\n' if num_processes == 2 else ""
    return (
        f'schema = 1\nname = "{method} {num_processes}"\n[model]\nid = "model"\n'
        f'[data]\ntrain = "rows.json"\nmax_length = 96\nsplit = "1:1:0"\n'
        f'[method]\nname = "{method}"\n{adapter}'
        f"[train]\nlearning_rate = 1e-3\nmax_steps = {_STEPS}\nsave_every = {_EVERY}\n"
        f'eval_every = {_EVERY}\nmicro_batch = 2\naccumulation = 2\nprecision = "fp32"\n'
        f"samples = 0\n{hardware}"
    ).encode()


def phase_of(events: list[Record], step: int) -> str:
    """What was going on after the newest record, in the words of PHASES; else what it says."""
    last = events[-1] if events else None
    if isinstance(last, SaveBegun):
        return "saving"
    if isinstance(last, Phase):
        return {"evaluating": "base evaluation"}.get(last.phase, last.phase)
    if not any(isinstance(event, TrainBegun) for event in events):
        return "starting"
    saved = {event.step for event in events if isinstance(event, Checkpoint)}
    if _STEPS in saved:
        return "publishing"
    if step == 0:
        return "first step"
    return "evaluating" if step % _EVERY == 0 and step not in saved else "a step"


def events_of(run: RunDir, attempt: int) -> list[Record]:
    """The worker's records of an attempt."""
    return [event for event in read_all(run.worker_events) if event.attempt == attempt]


def step_of(run: RunDir, attempt: int) -> int:
    """The last one whose record was written."""
    steps = (getattr(e, "step", 0) for e in read_all(run.metrics) if e.attempt == attempt)
    return max(steps, default=0)


def kill_in(run: RunDir, phase: str, within_seconds: float, draw: random.Random) -> str:
    """Kill a training process once the phase has begun; returns the phase that it fell into.

    The processes are looked up as soon as the first record is there: some phases are over sooner
    than a look through all processes.
    """
    end = time.monotonic() + _LIMIT_SECONDS
    ranks: list[processes.Identity] = []
    while time.monotonic() < end and not run.exit.exists():
        events = events_of(run, 1)
        if phase_of(events, step_of(run, 1)) == phase:
            time.sleep(draw.random() * within_seconds)
            for who in draw.sample(ranks or _ranks(run), 1):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(who.pid, signal.SIGKILL)
            break
        if events and not ranks:
            ranks = _ranks(run)
        time.sleep(_POLL_SECONDS)
    wait_until_over(run)
    if status(run).state is State.FINISHED:
        return "too late"
    return phase_of(events_of(run, 1), step_of(run, 1))


def _ranks(run: RunDir) -> list[processes.Identity]:
    """The training processes, without the one that starts and watches them."""
    return [who for who in processes.marked(run) if "torch.distributed" not in _line(who)]


def _line(who: processes.Identity) -> str:
    return Path(f"/proc/{who.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def wait_until_over(run: RunDir) -> None:
    """Of the attempt; RuntimeError if it takes too long."""
    end = time.monotonic() + _LIMIT_SECONDS
    while not status(run).state.is_over:
        if time.monotonic() > end:
            leftovers.end(run)
            raise RuntimeError(f"{run.id} does not end: {status(run)}")
        time.sleep(0.05)


def weights(run: RunDir) -> dict[str, torch.Tensor]:
    """Of the published result."""
    (path,) = run.model.glob("*.safetensors")
    return load_file(path)


def finish(run: RunDir) -> State:
    """Resume until it ends by itself."""
    for _ in range(3):
        if status(run).state is State.FINISHED:
            break
        launch.resume(run)
        wait_until_over(run)
    return status(run).state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trials(folder: Path, num_kills: int, seed: int, only: str) -> Iterator[tuple[str, str, str]]:
    """(case, phase that was hit, what is wrong or "") of each kill."""
    draw = random.Random(seed)  # noqa: S311  # moments, no secrets
    for method, number in itertools.product(METHODS, (1, 2)):
        text, case = recipe(method, number), f"{method} x{number}"
        if only not in ("", case):
            continue

        def start(text: bytes = text, case: str = case) -> RunDir:
            return launch.start(text, name=case, base_dir=folder, devices=())

        undisturbed = start()
        wait_until_over(undisturbed)
        wanted = weights(undisturbed)
        for phase in PHASES:
            hits = misses = 0
            while hits < num_kills and misses < _TRIES * num_kills:
                run = start()
                within = _WITHIN_SECONDS.get(phase, 0.3) / (1 + misses)
                hit = kill_in(run, phase, within, draw)
                hits += hit == phase
                misses += hit != phase
                state = finish(run)
                right = state is State.FINISHED and same(wanted, weights(run))
                yield case, hit, "" if right else f"{run.path}: {state}, other weights"


def main() -> int:
    """Kill, resume, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=5, help="in each phase of each case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help='one case, such as "full x1"')
    asked = parser.parse_args()
    found: Counter[tuple[str, str]] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ |= {"TUNEDECK_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
        torch.manual_seed(0)
        make_model().save_pretrained(folder / "model")
        make_tokenizer(list(base_lines(300, 0))).save_pretrained(folder / "model")
        (folder / "rows.json").write_text(json.dumps(instruction_rows(40, seed=1)))
        for case, hit, fault in trials(folder, asked.kills, asked.seed, asked.only):
            found[case, hit] += 1
            wrong += [fault] if fault else []
            print(f"{case}: {hit}{': ' + fault if fault else ''}", flush=True)
    names = list(dict.fromkeys(case for case, _ in found))
    print(f"\n{'':<12}" + "".join(f"{phase:>17}" for phase in (*PHASES, "elsewhere")))
    for case in names:
        counts = [found[case, phase] for phase in PHASES]
        rest = sum(number for (one, _), number in found.items() if one == case) - sum(counts)
        print(f"{case:<12}" + "".join(f"{number:>17}" for number in (*counts, rest)))
    missed = [1 for case in names for phase in PHASES if found[case, phase] < asked.kills]
    print(f"{sum(found.values())} kills, {len(wrong)} ended otherwise than the undisturbed run")
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
