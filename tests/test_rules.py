"""The report's rules: when each speaks, what it proposes, and what it promises."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from known import model
from measured import GIB, measured

from advisor import findings, recipe
from advisor.cost import memory
from advisor.framework import BEFORE_AMPERE, ON_CPU, OURS
from advisor.plan import Plan
from advisor.rules import headroom, inputs, logits, padding, stalls
from advisor.rules.case import Case, NotMeasured

RECIPE = """\
schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
max_length = 2048
[method]
name = "lora"
"""


def case(run=None, **changes):
    """A run of an 8B with LoRA, its recipe changed by `--set`."""
    run = run or measured()
    made = recipe.with_changes(
        RECIPE, {k.replace("__", "."): v for k, v in changes.items()}, where="r"
    )
    plan = made.to_plan(OURS, run.longest)
    return Case(
        run=run, recipe=made, model=model(), plan=plan, memory=memory.estimate(model(), plan)
    )


def test_nothing_is_said_of_a_run_in_which_nothing_stands_out():
    """Of a device that is used, with little padding, short waits and rare stalls."""
    found = findings.report(measured(), recipe.parse(RECIPE, where="r"), model())

    assert [one.id for one in found.findings] == []
    assert (
        found.verdict
        == "steps are healthy: computing took 90% of a step, the backward pass took 60% of a step"
    )


# Padding


@pytest.mark.parametrize(
    ("tokens", "severity"), [(90_001, None), (89_999, "warning"), (70_000, "critical")]
)
def test_padding_is_told_from_a_tenth_on(tokens, severity):
    """And is grave from three tenths."""
    found = padding.check(case(measured(tokens=tokens)))

    assert (found.severity if found else None) == severity


def test_packing_is_proposed_against_padding_and_nothing_where_it_is_on():
    """The gain is the share of padding, at most."""
    found = padding.check(case(measured(tokens=80_000)))

    assert found.change == {"data.packing": (False, True)}
    assert found.time_factor == pytest.approx((0.9, 0.85, 0.8))
    assert "20% of the processed tokens are padding (20000 of 100000)" in found.sentence
    assert padding.check(case(measured(tokens=80_000), data__packing="true")) is None


@pytest.mark.parametrize("family", ["opt", "gpt_oss"])
def test_packing_is_not_proposed_where_documents_would_read_each_other(family):
    """The run would not pack them; no gain is promised. On a CPU rows go one by one as ever."""
    mixed = case(measured(tokens=80_000))
    found = padding.check(replace(mixed, model=replace(mixed.model, model_type=family)))

    assert found.change == {}
    assert found.best_gain == 0
    assert f"{family} cannot be packed" in found.sentence
    alone = case(measured(device="cpu", tokens=80_000), train__micro_batch="4")
    of_family = replace(alone, model=replace(alone.model, model_type=family))
    assert padding.check(of_family).change == padding.check(alone).change != {}


def test_on_a_cpu_rows_go_one_by_one_instead():
    """With the same rows in a step; on several devices or one row at a time packing is left."""
    run = measured(device="cpu", tokens=80_000)

    alone = padding.check(case(run, train__micro_batch="4", train__accumulation="2"))
    assert alone.change == {"train.micro_batch": (4, 1), "train.accumulation": (2, 8)}
    assert padding.check(case(run)).change == {"data.packing": (False, True)}
    several = {"hardware__gpus": "2", "hardware__strategy": "ddp", "train__micro_batch": "4"}
    assert padding.check(case(run, **several)).change == {"data.packing": (False, True)}


# Waiting for data


@pytest.mark.parametrize(
    ("wait", "severity"), [(0.049, None), (0.05, "warning"), (0.2, "critical")]
)
def test_waiting_for_data_is_told_from_a_twentieth_of_a_step(wait, severity):
    """And is grave from a fifth."""
    phases = measured().phase_seconds | {"data": wait}

    found = inputs.check(case(measured(phase_seconds=phases)))

    assert (found.severity if found else None) == severity


@pytest.mark.parametrize(
    ("workers", "tail", "cause", "more"),
    [
        ("0", 1.0, "in the training process", 2),
        ("3", 1.0, "the workers are too slow", 6),
        ("3", 5.0, "a few batches are much slower", 6),
    ],
)
def test_more_workers_are_proposed_with_the_cause(workers, tail, cause, more):
    """Twice as many, and at least two."""
    run = measured(phase_seconds=measured().phase_seconds | {"data": 0.1}, longest_data_share=tail)

    found = inputs.check(case(run, train__workers=workers))

    assert cause in found.sentence
    assert found.change == {"train.workers": (int(workers), more)}
    assert found.time_factor == pytest.approx((0.95, 0.925, 0.9))


def test_a_run_without_steps_waits_for_nothing():
    """Instead of dividing by nothing."""
    assert inputs.check(case(measured(step_seconds=0.0))) is None


# Logits and loss


def test_whole_logits_that_make_the_peak_are_told_with_what_tiles_save():
    """The saving is the estimate of the same plan with the chunked loss."""
    found = logits.check(case(train__loss="full", data__max_length="2048"))

    plan = Plan.of("lora", seq_len=512, loss="full")
    tiled = memory.estimate(model(), replace(plan, loss="chunked"))
    whole = memory.estimate(model(), plan)
    assert found is None or found.change == {"train.loss": ("full", "chunked")}
    long = logits.check(
        case(
            measured(longest=8192),
            train__loss="full",
            data__max_length="8192",
            train__checkpointing="true",
        )
    )
    assert long.severity == "critical"
    assert long.peak_delta_bytes < 0
    assert whole.allocated_bytes > tiled.allocated_bytes
    assert long.change == {"train.loss": ("full", "chunked")}


def test_tiles_are_not_proposed_to_tiles():
    """The chunked loss holds no whole logits."""
    assert logits.check(case(measured(longest=8192), data__max_length="8192")) is None


# Evaluation and checkpoints


@pytest.mark.parametrize(
    ("seconds", "severity"), [(5.4, None), (5.5, "warning"), (16.5, "critical")]
)
def test_stalls_are_told_from_a_twentieth_of_the_time(seconds, severity):
    """Evaluation and checkpoints together."""
    run = measured(eval_seconds=seconds - 0.5, checkpoint_seconds=0.5, num_evals=50)

    found = stalls.check(case(run))

    assert (found.severity if found else None) == severity


def test_stalls_are_made_rarer_until_they_take_three_hundredths():
    """Each on its own; what is rare enough stays as it is."""
    run = measured(eval_seconds=20.0, num_evals=20, checkpoint_seconds=1.0, num_checkpoints=2)

    found = stalls.check(case(run, train__eval_every="5"))

    # 89 s of steps allow 2.67 s of evaluation: 2 of the 20, one every 50 of the 100 steps
    assert found.change == {"train.eval_every": (5, 50)}
    assert found.time_factor == pytest.approx((1 - 18 / 110,) * 3)


# Unused memory


def test_headroom_is_not_measured_without_a_device_or_a_sample():
    """Never taken for "all is well"."""
    assert isinstance(headroom.check(case(measured(device="cpu"))), NotMeasured)
    assert isinstance(headroom.check(case(measured(capacity_bytes=0))), NotMeasured)


def test_a_device_that_is_used_has_no_headroom():
    """By the driver's number before torch's."""
    full = measured(device_peak_bytes=int(14.41 * GIB), reserved_peak_bytes=GIB)

    assert headroom.check(case(full, train__checkpointing="true")) is None


def test_recomputation_is_the_first_thing_that_memory_buys_off():
    """Where the plan without it would fit."""
    roomy = measured(device_peak_bytes=20 * GIB, capacity_bytes=80 * GIB)

    found = headroom.check(case(roomy, train__checkpointing="true", train__accumulation="4"))

    kept = Plan.of("lora", seq_len=512, accumulation=4)
    again = replace(kept, checkpointing=True)
    assert found.change == {"train.checkpointing": (True, False)}
    expected = [memory.estimate(model(), plan).expected_bytes for plan in (kept, again)]
    assert found.peak_delta_bytes == expected[0] - expected[1]
    low, likely, best = found.time_factor
    assert 1 > low > likely > best > 0.6


def test_a_larger_micro_batch_comes_next_with_the_same_rows_a_step():
    """From accumulation, where there is an even number of micro-batches to trade in."""
    roomy = measured(device_peak_bytes=20 * GIB, capacity_bytes=80 * GIB)

    found = headroom.check(case(roomy, train__micro_batch="2", train__accumulation="4"))

    assert found.change == {"train.micro_batch": (2, 4), "train.accumulation": (4, 2)}
    assert headroom.check(case(roomy, train__accumulation="3")) is None
    assert headroom.check(case(roomy, train__accumulation="1")) is None


# The plan that rules and report share


@pytest.mark.parametrize(
    ("device", "capability", "framework"),
    [
        ("cuda:0", "8.0", OURS),
        ("cuda:0", "7.5", BEFORE_AMPERE),
        ("cuda:0", None, OURS),
        ("cpu", None, ON_CPU),
    ],
)
def test_the_report_estimates_for_the_device_that_the_run_had(device, capability, framework):
    """As preflight does: before Ampere keys are repeated, on a CPU all is fp32."""
    run = measured(device=device, compute_capability=capability, longest=2048)
    made = recipe.with_changes(
        RECIPE, {"method.name": "qlora", "train.precision": "fp16"}, where="r"
    )

    found = findings.report(run, made, model())

    assert found.memory == memory.estimate(model(), made.to_plan(framework, 2048))


def test_a_longer_cap_than_the_rows_does_not_make_the_plan_longer():
    """The longest row that was seen decides, and never more than the cap."""
    made = recipe.parse(RECIPE, where="r")

    assert made.to_plan(OURS, 512).seq_len == 512
    assert made.to_plan(OURS, 9999).seq_len == 2048
    assert made.to_plan(OURS).seq_len == 2048


def test_what_is_not_explained_is_the_measured_peak_less_the_predicted():
    """By component, with what is left named so."""
    predicted = findings.report(measured(), recipe.parse(RECIPE, where="r"), model()).memory
    run = measured(peak_bytes=predicted.allocated_bytes + GIB)

    found = findings.report(run, recipe.parse(RECIPE, where="r"), model())

    terms = findings.terms_of_peak(found)
    assert found.unexplained_bytes == GIB
    assert (terms[-1].component, terms[-1].num_bytes) == ("not explained", GIB)
    less = findings.report(measured(peak_bytes=GIB), recipe.parse(RECIPE, where="r"), model())
    assert "not explained" not in [term.component for term in findings.terms_of_peak(less)]


@pytest.mark.parametrize(("steady", "low"), [(19, True), (20, False)])
def test_rates_of_few_steps_are_called_uncertain(steady, low):
    """Fewer than twenty."""
    run = measured(num_steady_steps=steady)

    found = findings.report(run, recipe.parse(RECIPE, where="r"), model())

    assert found.low_confidence is low


def test_the_gravest_finding_comes_first_and_leads_the_verdict():
    """Then the one that gains most."""
    run = measured(tokens=60_000, phase_seconds=measured().phase_seconds | {"data": 0.06})

    found = findings.report(run, recipe.parse(RECIPE, where="r"), model())

    assert [one.id for one in found.findings] == ["B02", "B01"]
    assert found.verdict.startswith("padding; in the steps, the backward pass took")


def test_a_change_is_put_into_the_recipe_and_the_prediction_is_dropped():
    """That was for the old settings."""
    made = recipe.with_changes(RECIPE, {"plan.peak_bytes": "1"}, where="r")
    found = findings.report(measured(tokens=60_000), made, model())

    content = findings.patched(made, list(found.findings))

    assert content["data"]["packing"] is True
    assert "plan" not in content


def test_no_two_rules_have_one_id():
    """`--apply` would take one of them."""
    folder = Path(padding.__file__).parent
    by_id = defaultdict(set)
    for path in folder.rglob("*.py"):
        for one in re.findall(r'id="([A-Z]\d+)"', path.read_text()):
            by_id[one].add(path.name)

    assert len(by_id) >= 5
    assert {one: files for one, files in by_id.items() if len(files) > 1} == {}
