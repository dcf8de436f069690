"""The JSON for scripts, from made-up answers: every key holds its own value."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from known import HOST, model
from made_up import alternative, estimate, fit, pick, plan, recommendation, unlock

from profiles.facts import GIB
from runner.rehearsal.results import DeviceUse
from tui.pages import facts_json
from tui.pages import recommendation_json as page
from tui.plain import jsonable

PLAN = {
    "method": "lora",
    "seq_len": 2048,
    "micro_batch": 2,
    "accumulation": 8,
    "effective_batch": 16,
    "num_gpus": 1,
    "strategy": "single",
    "offload": "",
    "rank": 8,
    "alpha": 16,
    "dropout": 0.05,
    "targets": ["q_proj", "v_proj"],
    "base_bits": 16,
    "optimizer": "adamw",
    "precision": "bf16",
    "checkpointing": True,
    "loss": "chunked",
    "packing": False,
    "settings": {
        "rank": 8,
        "alpha": 16,
        "dropout": 0.05,
        "targets": ["q_proj", "v_proj"],
        "exclude": [],
        "layers": "all",
        "ranks": [],
        "rslora": False,
        "init": "kaiming",
        "freeze_a": False,
        "b_rate": 1.0,
        "dora": False,
        "router": "frozen",
        "modules_to_save": [],
        "bias": "none",
    },
}
MEMORY = {
    "level": 1,
    "origin": "predicted",
    "free_bytes": 24 * GIB,
    "low_bytes": 10 * GIB,
    "expected_bytes": 12 * GIB,
    "high_bytes": 16 * GIB,
    "allocated_bytes": 11 * GIB,
    "fragmentation_bytes": 101,
    "context_bytes": 102,
    "communication_bytes": 103,
    "peak": {"moment": "optimizer_step", "place": "adam"},
    "moments": [
        {
            "moment": "forward",
            "place": "loss",
            "bytes": 3 * GIB,
            "components": {"weights": 2 * GIB, "activations": GIB},
        },
        {
            "moment": "optimizer_step",
            "place": "adam",
            "bytes": 11 * GIB,
            "components": {"weights": 7 * GIB, "optimizer": 4 * GIB},
        },
    ],
}
SPEED = {
    "origin": "predicted",
    "low_tokens_per_second": 800.0,
    "tokens_per_second": 1000.0,
    "high_tokens_per_second": 1300.0,
    "real_tokens_per_second": 700.0,
    "step_seconds": 1.5,
    "rough": False,
}


def of(found, rehearsed=None, price=None):
    """The document as a script reads it."""
    return jsonable(page.document(found, rehearsed, price=price))


def test_what_is_recommended():
    """The plan, where it comes from, what it takes and what it costs."""
    assert of(recommendation(), price=2.0)["recommended"] == {
        "rung": "lora",
        "name": "LoRA",
        "fits": True,
        "runs": True,
        "why": "the tree ends at: the leaf",
        "why_not_above": None,
        "learning_rate": 2e-4,
        "epochs": 3.0,
        "rows": {"tokens": 250_000, "learnt_tokens": 150_000, "cut": 0, "left_out": 0},
        "plan": PLAN,
        "settings": [{"name": "epochs", "value": "3", "reason": "usual"}],
        "memory": MEMORY,
        "ram": {"need_bytes": 201, "free_bytes": 202},
        "disk": {"need_bytes": 203, "free_bytes": 204},
        "speed": SPEED,
        "hours": 2.5,
        "time": {
            "start": [
                {"phase": "importing", "seconds": 10.0},
                {"phase": "loading", "seconds": 60.0},
            ],
            "until_first_step_seconds": 70.0,
            "training_seconds": 8923.0,
            "evaluating_seconds": 3.0,
            "answering_seconds": 0.0,
            "saving_seconds": 4.0,
        },
        "price_per_hour": 2.0,
        "cost": 5.0,
        "disk_bytes": 301,
    }


def test_the_recipe_that_is_saved():
    """Its own plan, rate and time; the data's epochs."""
    found = of(recommendation(runnable=pick(fit=fit(plan=plan(rank=4), speed=None))), price=2.0)
    assert found["recipe"].pop("time")["training_seconds"] == 5 * 3600 - 77

    assert found["recipe"] == {
        "rung": "qlora",
        "name": "QLoRA 4-bit",
        "why": "no builder",
        "learning_rate": 1e-4,
        "epochs": 3.0,
        "plan": PLAN | {"rank": 4, "settings": PLAN["settings"] | {"rank": 4}},
        "settings": [{"name": "rank", "value": "4", "reason": "small"}],
        "memory": MEMORY,
        "ram": {"need_bytes": 201, "free_bytes": 202},
        "disk": {"need_bytes": 203, "free_bytes": 204},
        "speed": None,
        "hours": 5.0,
        "price_per_hour": 2.0,
        "cost": 10.0,
        "disk_bytes": 302,
    }
    assert of(recommendation())["recipe"]["why"] is None


def test_everything_beside_what_is_recommended():
    """The facts it was made from, the answers with their origins, the path."""
    given = recommendation()
    found = of(given)
    del found["recommended"], found["recipe"], found["alternatives"]

    assert found == {
        "schema": 2,
        "model": jsonable(facts_json.model(given.model)),
        "machine": jsonable(facts_json.machine(given.machine)),
        "data": jsonable(facts_json.data(given.dataset)),
        "wishes": {
            "task": {"value": "sft", "origin": "default"},
            "complexity": {"value": "high", "origin": "user"},
            "critical": {"value": False, "origin": "default"},
            "value": {"value": True, "origin": "default"},
            "quality": {"value": True, "origin": "user"},
            "seq_len": {"value": 512, "origin": "user"},
            "effective_batch": None,
            "domain": None,
        },
        "rehearsal": None,
        "path": [
            {"question": "one?", "answer": "yes", "origin": "user", "evidence": "you said so"},
            {"question": "two?", "answer": "no", "origin": "measured", "evidence": "a probe"},
        ],
        "leaf": "the leaf",
        "warnings": ["look out"],
    }


def test_the_alternatives():
    """Each with what would unlock it; the chosen one is marked."""
    rows = (
        alternative(
            "full",
            fit=fit(plan=plan(num_gpus=4, strategy="fsdp"), speed=None),
            fits=False,
            possible=False,
            runs=False,
            hours=None,
            why_not="too large",
            unlocks=(unlock(),),
        ),
        alternative("lora"),
    )
    first, second = of(recommendation(alternatives=rows))["alternatives"]

    assert first == {
        "rung": "full",
        "name": "full fine-tuning",
        "chosen": False,
        "fits": False,
        "possible": False,
        "runs": False,
        "low_bytes": 10 * GIB,
        "expected_bytes": 12 * GIB,
        "high_bytes": 16 * GIB,
        "least_high_bytes": 16 * GIB,
        "micro_batch": 2,
        "accumulation": 8,
        "checkpointing": True,
        "num_gpus": 4,
        "strategy": "fsdp",
        "tokens_per_second": None,
        "hours": None,
        "why_not": "too large",
        "unlocks": [{"kind": "gpus", "value": 3, "words": "3 more GPUs"}],
    }
    assert {k: second[k] for k in ("chosen", "fits", "tokens_per_second", "hours", "why_not")} == {
        "chosen": True,
        "fits": True,
        "tokens_per_second": 700.0,
        "hours": 2.5,
        "why_not": None,
    }


def test_where_nothing_fits():
    """What comes nearest, and why; no recipe, no data."""
    found = of(
        recommendation(
            rung=None, runnable=None, runs=False, dataset=None, detour="too large", above="above"
        )
    )
    best = found["recommended"]

    assert (best["rung"], best["name"], best["fits"], best["runs"]) == (None, None, False, False)
    assert (best["why"], best["why_not_above"], best["cost"]) == ("too large", "above", None)
    assert (found["recipe"], found["data"]) == (None, None)


@pytest.mark.parametrize("price", [None, 2.0])
@pytest.mark.parametrize("hours", [None, 2.5])
def test_a_cost_needs_a_price_and_a_time(price, hours):
    """Without one of them it is unknown, not nothing."""
    best = of(recommendation(hours=hours), price=price)["recommended"]

    assert (best["cost"] is None) == (price is None or hours is None)


def rehearsed(use):
    """A rehearsal of the plan, a quarter above the formula."""
    return SimpleNamespace(
        plan=plan(),
        formula=SimpleNamespace(allocated_bytes=1000),
        difference=0.25,
        formula_moments={"forward": 400},
        moments={"forward": 410, "optimizer_step": 900},
        peak_bytes=1250,
        seconds=7.5,
        on_device=lambda _fit: use,
    )


USE = DeviceUse(low_bytes=1, expected_bytes=2, high_bytes=3, free_bytes=3)


@pytest.mark.parametrize(
    ("use", "of_the_device"),
    [
        (USE, {"low_bytes": 1, "high_bytes": 3, "fits": True}),
        (replace(USE, free_bytes=2), {"low_bytes": 1, "high_bytes": 3, "fits": False}),
        (None, {"low_bytes": None, "high_bytes": None, "fits": None}),
    ],
)
def test_a_rehearsal_beside_the_formula(use, of_the_device):
    """Of the device only where both are of the same plan."""
    assert of(recommendation(), rehearsed(use))["rehearsal"] == {
        "level": 2,
        "method": "lora",
        "allocated_bytes": 1250,
        "formula_bytes": 1000,
        "difference": 0.25,
        "moments": [
            {"moment": "forward", "bytes": 410, "formula_bytes": 400},
            {"moment": "optimizer_step", "bytes": 900, "formula_bytes": None},
        ],
        "seconds": 7.5,
        **of_the_device,
    }


def test_a_model_without_a_formula_has_its_rehearsals():
    """What was not rehearsed has a reason in place of bytes."""
    seen = SimpleNamespace(peak_bytes=1250)
    values = {"plan": plan(), "rehearsed": seen, "device": USE, "free_bytes": 3, "fits": True}
    none = {"rehearsed": None, "device": None, "fits": False, "why": "too large"}
    tried = [
        SimpleNamespace(**values, why=""),
        SimpleNamespace(**(values | none | {"plan": plan(method="full")})),
    ]
    base = model(unmodelled="it is odd")

    found = jsonable(page.unmodelled(base, HOST, tried))

    first = {
        "method": "lora",
        "rank": 8,
        "seq_len": 2048,
        "fits": True,
        "why_not_rehearsed": None,
        "allocated_bytes": 1250,
        "low_bytes": 1,
        "expected_bytes": 2,
        "high_bytes": 3,
        "free_bytes": 3,
    }
    unknown = ("allocated_bytes", "low_bytes", "expected_bytes", "high_bytes")
    second = first | dict.fromkeys(unknown) | {"method": "full", "rank": 0, "fits": False}
    assert found == {
        "schema": 2,
        "model": jsonable(facts_json.model(base)),
        "machine": jsonable(facts_json.machine(HOST)),
        "unmodelled": "it is odd",
        "rehearsals": [first, second | {"why_not_rehearsed": "too large"}],
    }


def test_machines_beside_each_other():
    """A row for each, of its own numbers; why not more, or why nothing."""
    row = SimpleNamespace(
        machine="8x H100",
        rung="lora",
        method="LoRA",
        runs=True,
        num_gpus=8,
        peak_bytes=1,
        free_bytes=2,
        tokens_per_second=3.0,
        hours=4.0,
        price_per_hour=5.0,
        cost=20.0,
    )
    none = SimpleNamespace(**(vars(row) | {"rung": None, "runs": False}))
    first = recommendation(
        above="not more",
        detour="left",
        machine=replace(HOST, num_nodes=2),
        fit=fit(plan=plan(strategy="fsdp"), memory=estimate(high_bytes=77)),
    )
    found = jsonable(page.comparison([first, recommendation(detour="too large")], [row, none]))

    assert found["schema"] == 2
    assert found["model"] == jsonable(facts_json.model(first.model))
    assert found["data"] == jsonable(facts_json.data(first.dataset))
    assert found["machines"][0] == {
        "machine": "8x H100",
        "num_nodes": 2,
        "rung": "lora",
        "name": "LoRA",
        "fits": True,
        "runs": True,
        "num_gpus": 8,
        "strategy": "fsdp",
        "peak_bytes": 1,
        "peak_high_bytes": 77,
        "free_bytes": 2,
        "tokens_per_second": 3.0,
        "hours": 4.0,
        "price_per_hour": 5.0,
        "cost": 20.0,
        "why_not_above": "not more",
    }
    second = found["machines"][1]
    assert (second["fits"], second["runs"], second["why_not_above"]) == (False, False, "too large")
    unread = jsonable(page.comparison([recommendation(dataset=None)], [row]))
    assert (unread["data"], unread["machines"][0]["why_not_above"]) == (None, None)
