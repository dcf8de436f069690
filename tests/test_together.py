"""Several processes train one model: the same on every rank, and the same as one process would."""

from __future__ import annotations

import itertools
import json
import os
from functools import cache
from typing import NamedTuple
from unittest import mock

import pytest

torch = pytest.importorskip("torch")

import ranks  # noqa: E402
import real_runs  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from profiles.errors import UserError  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.layers import LayerLog  # noqa: E402
from profiles.runs.rundir import RunDir  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402
from runner.engines import fsdp, together  # noqa: E402
from runner.engines.ranks import Ranks  # noqa: E402

pytestmark = pytest.mark.slow
NO_DROPOUT = "rank = 8\nalpha = 16"
DROPOUT = f"{NO_DROPOUT}\ndropout = 0.1"
STEPS, BEST = 5, 2
CASES = list(itertools.product(("lora", "full"), ("8:1:1", "1:0:0")))
"""With an evaluation of the base before training, and without one."""
QUICK = (("lora", "8:1:1"), ("full", "1:0:0"))
REST = tuple(case for case in CASES if case not in QUICK)


def quick(cases):
    """Those of QUICK, and the others as `long`."""
    marks = {True: (), False: pytest.mark.long}
    named = [pytest.param(case, marks=marks[case in QUICK], id="-".join(case)) for case in cases]
    return pytest.mark.parametrize("case", named)


class Pair(NamedTuple):
    """What two processes made of a case."""

    strategy: str
    undisturbed: object
    killed: object
    ranks: list
    """The steps of each."""


def new(model, data, case, strategy="", accumulation=3, adapter=NO_DROPOUT):
    """A run of six rows a step, by one process or by two; no gradient is clipped."""
    method, split = case
    hardware = f'[hardware]\nstrategy = "{strategy}"\ngpus = 2\n' if strategy else ""
    return real_runs.new_run(
        model,
        data,
        method=method,
        adapter=adapter,
        split=split,
        steps=STEPS,
        save_every=2,
        eval_every=2,
        micro_batch=6 // accumulation // (2 if strategy else 1),
        accumulation=accumulation,
        more="max_grad_norm = 1e3\nsamples = 1\n" + hardware,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With forty rows of data; runs are made here."""
    place = tmp_path_factory.mktemp("together")
    (place / "rows.json").write_text(json.dumps(instruction_rows(40, seed=1)))
    with mock.patch.dict(os.environ, {"TUNEDECK_HOME": str(place / "home")}):
        yield place


@pytest.fixture(scope="module")
def alone(folder, tiny_model):
    """A case -> its run by one process, and the steps of it."""

    @cache
    def train(cases):
        runs = {case: new(tiny_model, folder / "rows.json", case) for case in cases}
        (notes,) = ranks.together([(run, None) for run in runs.values()], folder, processes=1)
        return runs, notes

    def of(case):
        runs, notes = train(QUICK if case in QUICK else REST)
        return runs[case], notes

    return of


def pair_plan(folder, tiny_model, cases, strategy):
    """The runs of each case, and their attempts.

    The undisturbed ones come again when there is nothing left to train. Step 2 evaluates best.
    """
    rows, runs, plan = folder / "rows.json", {}, []
    for case in cases:
        undisturbed, killed = (new(tiny_model, rows, case, strategy) for _ in range(2))
        runs[case] = (undisturbed, killed)
        attempts = ((undisturbed, None), (undisturbed, None), (killed, 3), (killed, None))
        plan += [ranks.Attempt(*attempt, worse=True) for attempt in attempts]
    return runs, plan


@pytest.fixture(scope="module")
def under_ddp(folder, tiny_model):
    """Of QUICK the runs, others by name, and the notes of each rank; one launch for all.

    A model that FSDP leaves whole comes last, for Accelerate keeps what was asked for.
    """
    runs, plan = pair_plan(folder, tiny_model, QUICK, "ddp")
    rows, case = folder / "rows.json", QUICK[0]
    others = {
        "dropout": new(tiny_model, rows, case, "ddp", adapter=DROPOUT),
        "dropout, killed": new(tiny_model, rows, case, "ddp", adapter=DROPOUT),
        "apart": new(tiny_model, rows, case, "ddp"),
        "short": new(tiny_model, rows, case, "ddp", accumulation=1),
        "whole": new(tiny_model, rows, case, "fsdp"),
    }
    plan += [
        ranks.Attempt(others["dropout"]),
        ranks.Attempt(others["dropout, killed"], kill=3),
        ranks.Attempt(others["dropout, killed"]),
        ranks.Attempt(others["apart"], apart=True),
        ranks.Attempt(others["short"], short=True),
        ranks.Attempt(others["whole"]),
    ]
    return runs, others, ranks.together(plan, folder)


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def pair(request, folder, tiny_model):
    """A case -> its undisturbed and killed runs by two processes."""
    strategy = request.param

    @cache
    def train(cases):
        if (strategy, cases) == ("ddp", QUICK):
            runs, _, notes = request.getfixturevalue("under_ddp")
            return runs, notes
        runs, plan = pair_plan(folder, tiny_model, cases, strategy)
        return runs, ranks.together(plan, folder, shards=strategy == "fsdp")

    def of(case):
        runs, notes = train(QUICK if case in QUICK else REST)
        return Pair(strategy, *runs[case], notes)

    return of


def ended(run, notes):
    """What ended it, in a rank."""
    (found,) = (note for note in notes if note["run"] == run.id and "what" in note)
    return found


def steps_of(run, notes):
    """(attempt, step) -> what was noted of it."""
    return {(n["attempt"], n["step"]): n for n in notes if n["run"] == run.id and "step" in n}


def norms_of(run):
    """(layer, linear, which) -> how far an adapter has moved in the end, and as a share."""
    newest = LayerLog().add(read_all(run.layers)).norms
    assert newest is None or newest.step == STEPS
    return {
        (layer, one.name, kind): value
        for one in (newest.linears if newest else ())
        for kind, values in (("norm", one.norms), ("share", one.relative))
        for layer, value in zip(one.layers, values, strict=True)
    }


@quick(CASES)
def test_every_rank_holds_the_same_weights_and_gradients_after_each_step(pair, case):
    """And the model is wrapped by the engine that was asked for."""
    made = pair(case)
    first, second = made.ranks
    wrapper = {"ddp": "DistributedDataParallel", "fsdp": "FSDP"}[made.strategy]

    for run in (made.undisturbed, made.killed):
        mine, theirs = steps_of(run, first), steps_of(run, second)
        assert mine == theirs
        assert all(note["kind"].startswith(wrapper) for note in mine.values())


@quick(CASES)
def test_two_processes_train_as_one_does_on_the_same_rows(alone, pair, case):
    """Losses and gradient norms, before and after a resume from step 2."""
    made, (single, notes) = pair(case), alone(case)
    wanted = steps_of(single, notes)

    for run in (made.undisturbed, made.killed):
        found = steps_of(run, made.ranks[0])
        norms = [wanted[1, step]["norm"] for _, step in found]
        assert [note["norm"] for note in found.values()] == pytest.approx(norms, rel=1e-4)
        assert real_runs.losses(run) == pytest.approx(real_runs.losses(single), rel=1e-5)
        assert norms_of(run) == pytest.approx(norms_of(single), rel=1e-2)
        assert bool(norms_of(run)) == (case[0] == "lora")


@quick(CASES)
def test_a_resume_and_a_late_kill_make_each_step_once(pair, case):
    """The killed run repeats step 3; the finished one that is started again makes no step."""
    _, undisturbed, killed, (notes, _) = pair(case)

    assert list(steps_of(undisturbed, notes)) == [(1, step) for step in range(1, STEPS + 1)]
    assert list(steps_of(killed, notes)) == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]
    wanted, found = real_runs.weights(undisturbed), real_runs.weights(killed)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


@quick([case for case in CASES if case[1] == "8:1:1"])
def test_the_best_step_s_weights_are_published(pair, case):
    """Gathered from all ranks, as its checkpoint has them; by a run that was killed later too."""
    for run in pair(case)[1:3]:
        published = real_runs.events(run, "published")[0]
        (saved,) = checkpoints.of_step(RunDir(run.path), BEST).path.glob("*model.safetensors")
        wanted, found = load_file(saved), real_runs.weights(run)

        assert (published["step"], published["last_step"], published["what"]) == (BEST, STEPS, "")
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_two_processes_resume_to_the_same_weights_bit_for_bit(under_ddp):
    """Killed mid-epoch, shuffled, with dropout: each rank goes on with its own random numbers."""
    _, others, _ = under_ddp
    undisturbed, killed = others["dropout"], others["dropout, killed"]

    wanted, found = real_runs.weights(undisturbed), real_runs.weights(killed)
    assert [e["from_step"] for e in real_runs.events(killed, "resumed")] == [2]
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_processes_that_train_apart_are_stopped_at_the_first_step(under_ddp):
    """Though it has a learning rate of 0, so that all weights are still the same."""
    _, others, notes = under_ddp

    for rank in notes:
        told = ended(others["apart"], rank)
        assert "train apart: after step 1" in told["what"]
        assert "hardware.gpus = 1" in told["do"]
    assert not others["apart"].model.exists()


def test_a_rank_that_runs_out_of_memory_at_first_takes_the_others_along(under_ddp, alone):
    """The trial of the longest batch waits for nobody; then both make as many pieces."""
    _, others, (first, second) = under_ddp
    run = others["short"]

    assert steps_of(run, first) == steps_of(run, second)
    assert [step for _, step in steps_of(run, first)] == [1, 2, 3, 4, 5]
    assert [e["pieces"] for e in real_runs.events(run, "oom")] == [4]
    assert real_runs.losses(run) == pytest.approx(real_runs.losses(alone(QUICK[0])[0]), rel=1e-5)


def test_a_model_that_fsdp_would_leave_whole_is_not_trained(under_ddp):
    """As Accelerate does on CPUs, without a word."""
    _, others, notes = under_ddp

    for rank in notes:
        told = ended(others["whole"], rank)
        assert "FSDP left weights whole" in told["what"]
        assert "hardware.strategy = ddp" in told["do"]


def test_weights_that_are_not_divided_are_named(folder, tiny_model):
    """Whatever left them so."""
    layer = torch.nn.Linear(2, 2)

    with pytest.raises(UserError, match="FSDP left weights whole") as caught:
        fsdp.ENGINE.refuse_apart(layer, Ranks(1, is_main=True), 1, None)

    assert caught.value.why == "after step 1: 2 weights, weight among them"


def test_a_checksum_tells_tensors_apart_by_their_bits():
    """One bit of one number, in any type, in more numbers than are added up at a time."""
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        tensor = torch.zeros(together._CHUNK + 3, dtype=dtype)
        other = tensor.clone()
        assert together.checksum(tensor) == together.checksum(other) == 0
        other[-1] = 1
        assert together.checksum(tensor) != together.checksum(other)
