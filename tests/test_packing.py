"""Rows are packed only where the documents in a row stay apart, as measured on the model."""

from __future__ import annotations

import contextlib
import json

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402

from profiles.runs import run as run_facts  # noqa: E402
from profiles.runs.records.packing import Packing  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training import isolation  # noqa: E402

FIRST, SECOND = range(5, 45), range(30, 54)
APART = ["llama", "gpt2", "gemma3_text", "mixtral", "qwen3_moe", "deepseek_v3"]
TOGETHER = ["falcon", "opt", "bloom", "mpt", "gpt_oss"]


@pytest.mark.parametrize("family", APART)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_documents_that_stay_apart_are_packed(family, dtype):
    """In 16 bits rounding is larger, and told from reading."""
    found = isolation.measure(tiny_families.make(family).to(dtype), FIRST, SECOND)

    assert found.apart
    assert found.what == ""
    if dtype == torch.float32:
        assert found.difference < 1e-5


@pytest.mark.parametrize("family", TOGETHER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_documents_that_read_each_other_are_not_packed(family, dtype):
    """However little: BLOOM's differ by a hundredth of the largest logit."""
    if (family, dtype) == ("bloom", torch.bfloat16):
        pytest.skip("what this untrained model reads is less than bfloat16 rounds")
    found = isolation.measure(tiny_families.make(family).to(dtype), FIRST, SECOND)

    assert not found.apart
    assert found.difference > 8 * found.rounding
    assert "a document would read the one before it" in found.what


def test_a_family_that_refuses_packed_rows_is_not_packed():
    """Its own words say why."""
    found = isolation.measure(tiny_families.make("lfm2"), FIRST, SECOND)

    assert not found.apart
    assert "can't keep packed sequences apart" in found.what


@pytest.mark.parametrize(
    ("difference", "rounding", "largest", "apart"),
    [
        (0.9e-5, 0.0, 1.0, True),
        (1.1e-5, 0.0, 1.0, False),
        (1.1e-5, 0.0, 2.0, True),
        (0.7, 0.1, 1.0, True),
        (0.9, 0.1, 1.0, False),
        (float("inf"), 0.1, 1.0, False),
    ],
)
def test_what_counts_as_rounding(difference, rounding, largest, apart):
    """A share of the largest logit, or what the model is seen to round."""
    assert isolation.judged(difference, rounding, largest).apart is apart


def test_logits_that_are_no_numbers_prove_nothing():
    """NaN is not less than anything."""
    model = tiny_families.make("llama")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))

    assert not isolation.measure(model, FIRST, SECOND).apart


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(training):
    """Mode and random numbers: a run that measures trains as one that does not."""
    model = tiny_families.make("llama", attention_dropout=0.5).train(training)
    before = torch.random.get_rng_state()

    isolation.measure(model, FIRST, SECOND)

    assert {module.training for module in model.modules()} == {training}
    assert torch.equal(torch.random.get_rng_state(), before)


class KilledError(Exception):
    """The process dies here."""


@pytest.mark.slow
def test_a_run_that_cannot_pack_trains_row_by_row_and_says_so(tmp_path, orders, monkeypatch):
    """In its events and the report; and when it goes on it does not measure anew."""
    base = tiny_families.save("falcon", tmp_path / "falcon")
    packed, unpacked = (
        real_runs.new_run(base, orders, packing=packing, steps=4, save_every=2)
        for packing in (True, False)
    )
    real_runs.attempt(unpacked)
    step = RunSft.training_step

    def until(trainer, *args, **kw):
        if trainer.state.global_step == 3:
            raise KilledError
        return step(trainer, *args, **kw)

    monkeypatch.setattr(RunSft, "training_step", until)
    with contextlib.suppress(KilledError):
        real_runs.attempt(packed)
    monkeypatch.undo()
    monkeypatch.setattr(isolation, "measure", None)
    real_runs.next_attempt(packed)

    (told,) = real_runs.events(packed, Packing.kind)
    assert not told["apart"]
    assert told["difference"] > 0.01
    assert real_runs.losses(packed) == real_runs.losses(unpacked)
    facts, _ = run_facts.from_run_dir(packed)
    assert facts.unpacked == told["what"]
    assert run_facts.from_run_dir(unpacked)[0].unpacked == ""


@pytest.mark.slow
def test_a_run_that_packs_says_that_it_may(tiny_model, orders):
    """And packs: fewer rows than there are."""
    orders.write_text(json.dumps([{"prompt": f"{n}:", "completion": "a b"} for n in range(40)]))
    run = real_runs.new_run(tiny_model, orders, packing=True, steps=1)

    real_runs.attempt(run)

    (told,) = real_runs.events(run, Packing.kind)
    assert told["apart"]
    assert real_runs.events(run, "prepared")[0]["num_train"] < 40
    assert not real_runs.events(real_runs.new_run(tiny_model, orders), Packing.kind)


def test_an_older_run_goes_on_packed(tiny_model, orders):
    """It was packed without being measured, and its position in the data depends on it."""
    run = real_runs.new_run(tiny_model, orders, packing=True)
    attempt = real_runs.quiet(run)
    from record_examples import example

    from profiles.runs.records.worker import Prepared

    attempt.events.append(example(Prepared))

    assert isolation._decide(attempt, None, None)


def test_the_report_and_the_events_tell_it():
    """For as long as the run lives."""
    record = Packing(apart=False, what="rows are not packed: x")

    assert record.notice == record.warning == "rows are not packed: x"
    assert Packing(apart=True, difference=2e-7).words.endswith("within 2e-07")
    assert Packing(apart=True, difference=2e-7).warning == ""
