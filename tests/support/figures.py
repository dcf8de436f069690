"""What the estimates and the recommendations say today, for many situations, as lines of JSON.

    python tests/support/figures.py

rewrites `tests/fixtures/figures` after a change that is meant to change them: the situations stay,
and those of a new method, optimizer or engine are added. `git diff` shows what changed, and
`tests/bench/memory_accuracy.py` and `speed_accuracy.py` whether that brings the figures nearer to
what was measured.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import astuple, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from known import HOST, dataset

from advisor.choice.alternatives import Alternative
from advisor.choice.answers import Answer, Answers
from advisor.choice.recommend import recommend
from advisor.cost import memory, speed
from advisor.cost.flops import flops_per_token
from advisor.cost.speed import SpeedEstimate
from advisor.framework import OURS, Framework
from advisor.plan import Plan
from advisor.registry.conflicts import conflict
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS
from advisor.registry.spec import Key, keys_of
from profiles.facts import Machine, Origin
from profiles.machines.planned import plan_machine
from profiles.models import catalog

FOLDER = Path(__file__).parent.parent / "fixtures" / "figures"
_DIGITS = 10
_FEWEST = 4
"""Situations of each method, optimizer and engine."""
_MODELS = (
    *("meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-0.5B", "mistralai/Mistral-7B-v0.1"),
    *("mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen1.5-MoE-A2.7B", "deepseek-ai/DeepSeek-V2-Lite"),
    *("google/gemma-2-2b", "microsoft/phi-2", "microsoft/Phi-3-mini-4k-instruct"),
    *("EleutherAI/pythia-70m", "EleutherAI/gpt-j-6b", "openai-community/gpt2"),
    *("tiiuae/falcon-7b", "mosaicml/mpt-7b", "bigscience/bloom-560m", "facebook/opt-125m"),
    *("allenai/OLMoE-1B-7B-0924", "bigcode/starcoder", "CohereForAI/aya-23-8B"),
    *("openai/gpt-oss-20b", "nvidia/Nemotron-Mini-4B-Instruct", "meta-llama/Llama-3.1-70B"),
    *("google/gemma-3-1b-pt", "zai-org/GLM-4-9B-0414", "Qwen/Qwen3-0.6B"),
)
_BOXES = ("T4", "RTX 4090", "A100 80GB", "8x H100", "2x RTX 3090", "V100-SXM2-32GB", "MI300X")
_VALUES: dict[str, tuple[Any, ...]] = {
    "seq_len": (128, 512, 2048, 4096),
    "micro_batch": (1, 2, 5),
    "accumulation": (1, 3),
    "checkpointing": (False, True),
    "loss": ("chunked", "full", "liger", "fused", "listed"),
    "precision": ("bf16", "bf16", "bf16_pure", "fp16", "fp32"),
    "attention": ("sdpa", "sdpa", "flash", "eager", "math"),
    "packing": (False, False, True),
}
_SETTINGS: dict[str, tuple[Any, ...]] = {
    "rank": (8, 64),
    "alpha": (16,),
    "frozen_layers": (1, 3),
    "dropout": (0.0, 0.05),
    "targets": ("all", "attention", ("q_proj", "v_proj")),
    "bits": (4, 8, 16),
    "reduction": (4, 16),
    "virtual_tokens": (10, 20),
}


def estimates(kept: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Memory and speed of plans of every kind, on machines that need not hold them.

    The situations stay; for a method, an optimizer or an engine that has none yet some are drawn.
    """
    cases = [_situation(case) for case in kept]
    names = {
        "method": METHODS.names(),
        "optimizer": OPTIMIZERS.names(),
        "strategy": ENGINES.names(),
    }
    for kind, known in names.items():
        for name in known:
            chance = random.Random(name)  # noqa: S311  # no secret
            while sum(_choice(case, kind) == name for case in cases) < _FEWEST:
                case = _case(chance, **{kind: name})
                cases += [case] if case is not None else []
    yield from (case | figures(case) for case in cases)


def _situation(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in ("model", "box", "method", "plan", "framework")}


def _choice(case: dict[str, Any], kind: str) -> str:
    return str(case[kind] if kind == "method" else case["plan"][kind])


def _case(
    chance: random.Random, *, method: str = "", optimizer: str = "", strategy: str = ""
) -> dict[str, Any] | None:
    """A situation, or None for one that cannot be."""
    method = method or chance.choice(METHODS.names())
    name, box = chance.choice(_MODELS), chance.choice(_BOXES)
    values = {key: chance.choice(choices) for key, choices in _VALUES.items()}
    for key, (_, bounds) in keys_of(METHODS[method].settings).items():
        if taken := [value for value in _SETTINGS.get(key, ()) if _takes(bounds, value)]:
            values[key] = chance.choice(taken)
    values["optimizer"] = optimizer or chance.choice(OPTIMIZERS.names())
    values["strategy"] = strategy or chance.choice(ENGINES.names())
    engine = ENGINES[values["strategy"]]
    values["num_gpus"] = chance.choice((2, 8)) if engine.several else 1
    if values["checkpointing"] and chance.random() < 0.2:
        values["checkpointed_layers"] = 3
    if engine.offload and chance.random() < 0.5:
        values["offload"] = chance.choice(engine.offload)
    changes = _changes(chance) if chance.random() < 0.5 else {}
    case = {"model": name, "box": box, "method": method, "plan": values, "framework": changes}
    plan, base = plan_of(case), catalog.find(name)
    assert base is not None
    refused = conflict(plan.method, plan.settings, plan.optimizer, plan.engine)
    return None if refused or plan.method.unsupported(base, plan.settings) else case


def _takes(bounds: Key, value: Any) -> bool:
    is_named = bounds.names and isinstance(value, tuple)
    return not bounds.choices or value in bounds.choices or is_named


def _changes(chance: random.Random) -> dict[str, Any]:
    """Some of another framework's ways."""
    found = {}
    for field in chance.sample(fields(Framework), 3):
        kind = type(field.default)
        if kind is bool:
            found[field.name] = not field.default
        elif field.name == "gptq_group":
            found[field.name] = 128
    return found


def plan_of(case: dict[str, Any]) -> Plan:
    """The plan of a situation, read from JSON or not."""
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in case["plan"].items()}
    framework = replace(OURS, **case["framework"])
    return Plan.of(case["method"], framework=framework, **values)


@cache
def _machine(box: str) -> Machine:
    return plan_machine(box)


def figures(case: dict[str, Any]) -> dict[str, Any]:
    """What the formulas say of a situation: bytes and seconds."""
    base, plan = catalog.find(case["model"]), plan_of(case)
    assert base is not None
    found = memory.estimate(base, plan)
    machine = _machine(case["box"])
    few = replace(machine, gpus=(machine.gpus * plan.num_gpus)[: plan.num_gpus])
    timed = speed.estimate(base, plan, few)
    return {
        "moments": {m.name: m.total_bytes for m in found.moments},
        "terms": {term.component: term.num_bytes for term in found.terms},
        "counted": list(found.counted_bytes),
        "reserved": [found.reserved_bytes, found.reserved_high_bytes],
        "device": [found.low_bytes, found.expected_bytes, found.high_bytes],
        "flops": list(astuple(flops_per_token(base, plan))),
        "seconds": timed and [_short(value) for value in _seconds(timed)],
        "causes": timed and {name: _short(value) for name, value in timed.terms},
    }


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _seconds(timed: SpeedEstimate) -> tuple[float, float, float, float]:
    """Of a step, low, expected and high, and the share of the data sheet's rate."""
    return (
        timed.low_step_seconds,
        timed.step_seconds,
        timed.high_step_seconds,
        timed.model_flops_share or 0.0,
    )


def recommendations(_kept: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is recommended for every 17th combination of model, machine, data and answers."""
    models = ("Qwen/Qwen2.5-0.5B", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B")
    models += ("mistralai/Mixtral-8x7B-v0.1", "allenai/OLMoE-1B-7B-0924", "google/gemma-2-2b")
    boxes = (None, "RTX 3070", "T4", "RTX 4090", "2x RTX 4090", "A100 80GB", "8x H100")
    rows = ((0, 1), (300, 1), (50_000, 1), (1000, 5))
    asked: tuple[dict[str, Any], ...] = (
        {},
        {"critical": True},
        {"complexity": "high", "effective_batch": 12},
        {"complexity": "low", "seq_len": 4096},
        {"quality": False, "task": "classify"},
        {"value": False},
    )
    every = itertools.product(models, boxes, rows, asked)
    for name, box, (num_rows, tasks), answers in itertools.islice(every, 0, None, 17):
        case = {"model": name, "box": box, "rows": num_rows, "tasks": tasks, "answers": answers}
        yield case | advice(case)


def advice(case: dict[str, Any]) -> dict[str, Any]:
    """What is said about a situation, in short."""
    base = catalog.find(case["model"])
    assert base is not None
    machine = _machine(case["box"]) if case["box"] else HOST
    data = dataset(rows=case["rows"], tasks=case["tasks"]) if case["rows"] else None
    given = {name: Answer(value, Origin.USER) for name, value in case["answers"].items()}
    found = recommend(base, machine, data, Answers(**given))
    runs = found.runnable
    return {
        "leaf": found.leaf.name,
        "path": [str(step) for step in found.path],
        "rung": found.rung,
        "plan": _plan(found.fit.plan),
        "why": [found.detour, found.above, *found.warnings],
        "hyperparameters": [" | ".join(one) for one in found.hyperparameters],
        "epochs": found.epochs,
        "disk": found.disk_bytes,
        "runs": runs and [runs.rung, runs.why, _plan(runs.fit.plan), runs.warmup, runs.disk_bytes],
        "table": [_row(other) for other in found.alternatives],
    }


def _plan(plan: Plan) -> str:
    """What differs from a plan of the method that says nothing."""
    plain = Plan.of(plan.method.name, seq_len=0).as_names()
    told = {k: v for k, v in plan.as_names().items() if v != plain[k]}
    return json.dumps({"method": plan.method.name} | told)


def _row(other: Alternative) -> list[Any]:
    """One alternative: its need, its least, its time, and why it was not taken."""
    ways = [way.words for way in other.unlocks]
    hours = other.hours and _short(other.hours)
    marks = [other.fits, other.possible, other.runs, other.is_above]
    peaks = [other.fit.memory.high_bytes, other.least.memory.high_bytes]
    return [other.rung, *peaks, hours, marks, other.why_not, ways]


def write() -> None:
    """Replace both files."""
    for name, lines_of in (("estimates", estimates), ("recommendations", recommendations)):
        path = FOLDER / f"{name}.jsonl"
        lines = list(lines_of(kept(name)))
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        print(f"{path}: {path.stat().st_size} bytes")  # noqa: T201  # to whoever ran it


def kept(name: str) -> list[dict[str, Any]]:
    """The lines of one file."""
    path = FOLDER / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    write()


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
