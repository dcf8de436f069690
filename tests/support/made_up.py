"""A recommendation that nobody computed: every value its own, so that a page cannot mix them up.

The pages read attributes and decide nothing, so plain namespaces stand in for the advisor's types.
"""

from __future__ import annotations

from types import SimpleNamespace

from known import HOST, dataset, model
from plans import made

from advisor.choice.duration import Duration
from advisor.choice.tree import Leaf
from profiles.facts import GIB, Origin


def plan(**changes):
    """LoRA of rank 8 on one GPU."""
    values = {
        "method": "lora",
        "seq_len": 2048,
        "micro_batch": 2,
        "accumulation": 8,
        "num_gpus": 1,
        "strategy": "single",
        "offload": "",
        "rank": 8,
        "alpha": 16,
        "dropout": 0.05,
        "targets": ("q_proj", "v_proj"),
        "optimizer": "adamw",
        "precision": "bf16",
        "checkpointing": True,
        "loss": "chunked",
        "packing": False,
    }
    return made(**(values | changes))


def moment(name, place, total_bytes, **terms):
    """One instant of a step."""
    shares = tuple(SimpleNamespace(component=k, num_bytes=v) for k, v in terms.items())
    return SimpleNamespace(name=name, place=place, total_bytes=total_bytes, terms=shares)


def estimate(**changes):
    """Peak memory: 10, 12 or 16 GiB."""
    moments = (
        moment("forward", "loss", 3 * GIB, weights=2 * GIB, activations=GIB),
        moment("optimizer_step", "adam", 11 * GIB, weights=7 * GIB, optimizer=4 * GIB),
    )
    parts = {"weights": 7, "optimizer": 4, "context": 1}
    terms = tuple(SimpleNamespace(component=k, num_bytes=v * GIB) for k, v in parts.items())
    values = {
        "moments": moments,
        "winner": "optimizer_step",
        "peak": moments[1],
        "terms": terms,
        "low_bytes": 10 * GIB,
        "expected_bytes": 12 * GIB,
        "high_bytes": 16 * GIB,
        "allocated_bytes": 11 * GIB,
        "fragmentation_bytes": 101,
        "context_bytes": 102,
        "communication_bytes": 103,
        "counted_bytes": (9 * GIB, 11 * GIB, 13 * GIB),
        "reserved_high_bytes": 14 * GIB,
        "reasons": ("blocks", "kernels"),
    }
    return SimpleNamespace(**(values | changes))


def speed(**changes):
    """About 1 000 tokens a second."""
    values = {
        "low_tokens_per_second": 800.0,
        "tokens_per_second": 1000.0,
        "high_tokens_per_second": 1300.0,
        "step_seconds": 1.5,
        "rough": False,
    }
    return SimpleNamespace(**(values | changes))


def fit(**changes):
    """It fits into 24 GiB."""
    values = {
        "plan": plan(),
        "memory": estimate(),
        "speed": speed(),
        "real_tokens_per_second": 700.0,
        "budget_bytes": 24 * GIB,
        "host_bytes": 201,
        "host_budget_bytes": 202,
        "disk_bytes": 203,
        "disk_budget_bytes": 204,
    } | changes
    values |= {
        "short_bytes": max(0, values["memory"].high_bytes - values["budget_bytes"]),
        "short_ram_bytes": max(0, values["host_bytes"] - values["host_budget_bytes"]),
        "short_disk_bytes": max(0, values["disk_bytes"] - values["disk_budget_bytes"]),
    }
    known = values["speed"]
    if known and "rates" not in values:
        share = (
            values["real_tokens_per_second"] or known.tokens_per_second
        ) / known.tokens_per_second
        values["rates"] = tuple(
            share * rate
            for rate in (
                known.low_tokens_per_second,
                known.tokens_per_second,
                known.high_tokens_per_second,
            )
        )
    return SimpleNamespace(**({"rates": None} | values))


def alternative(rung, **changes):
    """A row of the table."""
    values = {
        "rung": rung,
        "fit": fit(),
        "least": fit(),
        "fits": True,
        "possible": True,
        "runs": True,
        "hours": 2.5,
        "why_not": "",
        "unlocks": (),
        "is_above": False,
    }
    return SimpleNamespace(**(values | changes))


def unlock(kind="gpus", value=3, words="3 more GPUs"):
    """A way to make a plan fit."""
    return SimpleNamespace(kind=kind, value=value, words=words)


def answer(value, origin=Origin.DEFAULT):
    """An answer."""
    return SimpleNamespace(value=value, origin=origin)


def duration(hours=2.5):
    """A run of so many hours, 70 s of them before the first step and 4 s after the last."""
    return Duration(
        start=(("importing", 10.0), ("loading", 60.0)),
        training=hours * 3600 - 77,
        evaluating=3.0,
        answering=0.0,
        saving=4.0,
    )


def pick(rung="qlora", *, hours=5.0, **changes):
    """What can be run in place of what is recommended."""
    values = {
        "rung": rung,
        "fit": fit(),
        "why": "no builder",
        "hyperparameters": (SimpleNamespace(name="rank", value="4", reason="small"),),
        "learning_rate": 1e-4,
        "duration": hours and duration(hours),
        "disk_bytes": 302,
    }
    return SimpleNamespace(**(values | changes))


def recommendation(*, hours=2.5, **changes):
    """LoRA on the host, with three rows of alternatives."""
    values = {
        "model": model(),
        "machine": HOST,
        "dataset": dataset(),
        "answers": SimpleNamespace(
            task=answer("sft"),
            complexity=answer("high", Origin.USER),
            critical=answer(False),
            value=answer(True),
            quality=answer(True, Origin.USER),
            seq_len=answer(512, Origin.USER),
            effective_batch=None,
            domain=None,
        ),
        "path": (
            SimpleNamespace(question="one?", answer="yes", origin="user", evidence="you said so"),
            SimpleNamespace(question="two?", answer="no", origin="measured", evidence="a probe"),
        ),
        "leaf": Leaf(name="the leaf", methods=("lora",)),
        "rung": "lora",
        "fit": fit(),
        "detour": "",
        "above": "",
        "runnable": pick(rung="lora", why=""),
        "runs": True,
        "alternatives": (
            alternative(
                "full",
                possible=False,
                fits=False,
                hours=None,
                why_not="too large",
                is_above=bool(changes.get("above")),
            ),
            alternative("lora"),
            alternative("qlora", why_not="not needed", runs=False),
        ),
        "hyperparameters": (SimpleNamespace(name="epochs", value="3", reason="usual"),),
        "learning_rate": 2e-4,
        "epochs": 3.0,
        "hours": hours,
        "duration": hours and duration(hours),
        "disk_bytes": 301,
        "warnings": ("look out",),
    }
    return SimpleNamespace(**(values | changes))
