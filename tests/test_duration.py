"""How long a run takes, by hand, and that a recommendation, its recipe and the run mean the same.

Against real runs: tests/bench/durations.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import HOST, dataset, model
from plans import made

from advisor import draft
from advisor.choice import duration as durations
from advisor.choice import fit, recommend, storage
from advisor.choice.answers import Answers
from advisor.choice.duration import Rows, Wanted, schedule
from advisor.choice.lengths import Lengths
from advisor.cost.flops import flops_per_token
from profiles.machines import planned
from profiles.runs.records.worker import Phase

LENGTHS = Lengths(mean=200.0, median=180.0, p95=400.0, max=500)
ROWS = Rows(trained=800, evaluated=100, held_out=100)
MACHINE = planned.plan_machine("rtx4090")
TWO = planned.plan_machine("2x rtx4090")
MODEL = model()


def plan(**changes):
    """LoRA, 16 rows a step, 2 at a time."""
    return made("lora", **({"seq_len": 512, "micro_batch": 2, "accumulation": 8} | changes))


def through(rows=ROWS, wanted=Wanted(epochs=3.0), **changes):  # noqa: B008  # a tuple
    """The schedule of such a run."""
    return schedule(plan(**changes), LENGTHS, rows, wanted)


def took(rows=ROWS, wanted=Wanted(epochs=3.0), machine=MACHINE, base=MODEL, **changes):  # noqa: B008
    """The duration, and the tokens per second that it was predicted with."""
    judged = fit.judge(base, machine, plan(**changes), LENGTHS)
    found = durations.duration(judged, base, machine, schedule(judged.plan, LENGTHS, rows, wanted))
    assert found is not None
    return found, judged.rates[1]


def test_a_run_has_as_many_steps_as_its_rows_fill_in_its_epochs():
    """50 an epoch; the steps of evaluations and checkpoints are a fifth of them."""
    found = through()
    assert found.trained_tokens == pytest.approx(3 * 800 * 200)
    assert (found.num_evaluations, found.num_checkpoints, found.num_answers) == (5, 5, 3)


def test_a_batch_that_is_not_full_trains_the_rows_that_there_are():
    """20 rows make two steps of an epoch, not 32 rows."""
    assert through(Rows(20, 2, 2)).trained_tokens == pytest.approx(3 * 20 * 200)
    assert through(Rows(20, 2, 2)).num_answers == 2
    assert through(Rows(20, 2, 0)).num_answers == 2


def test_the_recipe_may_say_how_often():
    """The last step is evaluated whatever the interval; a checkpoint comes at its steps alone."""
    found = through(wanted=Wanted(3.0, max_steps=70, eval_every=30, save_every=30, samples=1))
    assert found.trained_tokens == pytest.approx(70 * 16 * 200)
    assert (found.num_evaluations, found.num_checkpoints, found.num_answers) == (3, 2, 1)


def test_what_is_begun_with_an_adapter_takes_longer():
    """Merged, the whole model is read, written and hashed; trained on, evaluated without it too."""
    judged = fit.judge(MODEL, MACHINE, plan(), LENGTHS)
    whole = schedule(judged.plan, LENGTHS, ROWS, Wanted(epochs=3.0))
    plain, merged, going_on = (
        durations.duration(judged, MODEL, MACHINE, whole, **first)
        for first in ({}, {"merges": True}, {"continues": True})
    )
    names = [name for name, _ in merged.start]
    weights = storage.weight_bytes(MODEL)

    assert names.index("tokenising") > names.index("merging")
    assert names.index("loading") == names.index("merging") + 1
    assert dict(merged.start)["merging"] == pytest.approx(weights * (1e-9 + 2e-9 + 1 / 1.3e9))
    assert "merging" not in dict(plain.start)
    assert dict(going_on.start)["evaluating"] == 2 * dict(plain.start)["evaluating"]
    assert going_on.evaluating == plain.evaluating


def test_packed_rows_are_full():
    """800 x 200 tokens fill 312.5 rows of 512: 20 steps an epoch."""
    found = through(packing=True)
    assert found.trained_tokens == pytest.approx(3 * 800 * 200)
    assert through(packing=True, wanted=Wanted(1, max_steps=20)).trained_tokens == pytest.approx(
        800 * 200
    )


def test_several_gpus_answer_no_prompts():
    """As the runner does."""
    assert through(num_gpus=2, strategy="ddp").num_answers == 0


def test_the_steps_take_what_the_speed_estimate_says():
    """And evaluations the share of it that the forward pass is."""
    found, rate = took()
    flops = flops_per_token(MODEL, plan())
    share = flops.forward_flops / flops.hardware_flops

    assert found.training == pytest.approx(3 * 800 * 200 / rate)
    assert dict(found.start)["evaluating"] == pytest.approx(100 * 200 * share / rate)
    assert found.evaluating == pytest.approx(5 * 100 * 200 * share / rate)
    assert dict(found.start)["longest"] == pytest.approx(2 * 500 / rate)


def test_answers_read_all_weights_for_each_token():
    """Three of 64 tokens, before training, at five evaluations and after it."""
    found, _ = took()
    slower, _ = took(base=replace(MODEL, num_layers=2 * MODEL.num_layers))
    seconds = dict(found.start)["answering"]
    reading = 2 * MODEL.num_params / (0.75 * MACHINE.gpus[0].memory_bytes_per_second)

    assert seconds == pytest.approx(3 * 64 * (MODEL.num_layers * 0.5e-3 + reading), rel=1e-3)
    assert found.answering == pytest.approx(6 * seconds)
    assert dict(slower.start)["answering"] > 1.2 * seconds
    assert took(Rows(800, 0, 100))[0].answering == pytest.approx(seconds)


def test_loading_reads_the_weights_and_wakes_the_gpu():
    """16 GB at 1 GB/s, then looked through."""
    found = dict(took()[0].start)
    size = storage.weight_bytes(MODEL)
    assert found["loading"] == pytest.approx(0.4 + 4.0 + size / 1e9)
    assert found["checking"] == pytest.approx(size / 4e9)
    assert found["hashing"] == pytest.approx(size / 1.3e9)
    on_cpu = took(machine=replace(HOST, gpus=()), precision="fp32")[0]
    assert dict(on_cpu.start)["loading"] == pytest.approx(0.4 + size / 1e9)


def test_rows_are_read_and_tokenised_once():
    """All of them; and those to train on and to evaluate with."""
    assert dict(took()[0].start)["reading"] == pytest.approx(0.1 + 1000 * 30e-6)
    assert dict(took()[0].start)["tokenising"] == pytest.approx(900 * (0.6e-3 + 200 * 0.6e-6))


def test_a_launcher_takes_time():
    """Torchrun imports torch before its processes do."""
    alone, both = took()[0], took(num_gpus=2, strategy="ddp", machine=TWO)[0]
    assert dict(both.start)["importing"] - dict(alone.start)["importing"] == pytest.approx(4.0)


def test_checkpoints_and_the_result_are_written():
    """At 500 MB/s."""
    found, _ = took(wanted=Wanted(3.0, save_every=10))
    disk = storage.disk(MODEL, plan())
    assert found.saving == pytest.approx((15 * disk.checkpoint_bytes + disk.artefact_bytes) / 5e8)


def test_the_whole_is_the_sum_of_its_parts():
    """The start, the steps, and what goes on beside them."""
    found, _ = took()
    assert found.until_first_step == pytest.approx(sum(s for _, s in found.start))
    assert found.seconds == pytest.approx(
        found.until_first_step + found.training + found.evaluating + found.answering + found.saving
    )
    assert found.hours == pytest.approx(found.seconds / 3600)


def test_without_a_rate_there_is_no_time():
    """Nor without the tokens of the data."""
    gpu = replace(MACHINE.gpus[0], bf16_flops=None, fp16_flops=None)
    unknown = replace(MACHINE, gpus=(gpu,))
    found = recommend.recommend(MODEL, unknown, dataset(), Answers())
    assert (found.duration, found.hours) == (None, None)
    no_tokens = replace(dataset(), tokens=None)
    assert recommend.recommend(MODEL, MACHINE, no_tokens, Answers()).hours is None


def test_the_parts_of_the_start_are_phases_that_a_run_tells():
    """In words of their own."""
    names = [name for name, _ in took()[0].start]
    assert all(Phase(phase=name, total=0).words != name for name in names if name != "tokenising")
    assert names == [
        "importing",
        "reading",
        "loading",
        "checking",
        "tokenising",
        "hashing",
        "preparing",
        "evaluating",
        "answering",
        "longest",
    ]


def test_the_time_that_is_recommended_is_that_of_the_recipe():
    """With the split, the samples and the intervals that a recipe has if nobody says otherwise."""
    given = dataset(rows=1000)
    found = recommend.recommend(MODEL, MACHINE, given, Answers())
    recipe = draft.recipe_of(found, model="m", data="d.jsonl", version="1")
    train = recipe.train
    assert recipe.data.shares == (8, 1, 1)
    wanted = Wanted(
        train.epochs, train.max_steps, train.eval_every, train.save_every, train.samples
    )
    judged, lengths = found.fit, Lengths.of(given.tokens, recipe.data.max_length)
    own = durations.duration(
        judged, MODEL, MACHINE, schedule(judged.plan, lengths, Rows(800, 100, 100), wanted)
    )
    assert own == found.duration
