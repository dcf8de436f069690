"""Asks for a rehearsal of a plan: level 2 of the memory estimate, made by another process.

Decides which plans can be rehearsed, which one is rehearsed for a recommendation, and what is tried
where no formula holds. torch is loaded by `runner.rehearsal_main`, never here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any, Final

from advisor.choice import checks, defaults
from advisor.choice.answers import Answers
from advisor.choice.devices import budget_bytes, framework_on
from advisor.choice.recommend import Recommendation, precision
from advisor.choice.words import gib
from advisor.cost import memory
from advisor.plan import Plan
from advisor.registry.engines import SINGLE
from advisor.registry.lookup import METHODS, preset_of
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model
from runner.rehearsal.results import Rehearsed, Tried
from runner.supervision import worker_command

_NEEDED: Final = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes")
_AMPERE: Final = (8, 0)
_TRAINED_BYTES: Final = 16
"""Of a weight that trains, in fp32: itself, its gradient and AdamW's states."""


def choose(found: Recommendation) -> Plan:
    """The recommended plan, or the recipe's where that has no rehearsal.

    UserError (USAGE) where neither has one.
    """
    tried = [(found.rung, found.fit)]
    tried += [(found.runnable.rung, found.runnable.fit)] if found.runnable else []
    made = [fit for rung, fit in tried if not (rung and preset_of(rung).upcycles)]
    for fit in made:
        if can_rehearse(fit.plan):
            return fit.plan
    if not made:
        raise UserError(
            "the mixture cannot be rehearsed before it is made",
            why="the rehearsal reads the configuration of a model that there is",
            do="make it as the page without --rehearse says, then rehearse with it as --model",
            where="--rehearse",
            code=ExitCode.USAGE,
        )
    raise UserError(
        f"{found.fit.plan.method.title} cannot be rehearsed",
        why="it keeps something in RAM, or no library builds it on one device",
        do="leave --rehearse out: the formula knows it",
        where="--rehearse",
        code=ExitCode.USAGE,
    )


def can_rehearse(plan: Plan) -> bool:
    """The libraries build this method on one device."""
    return plan.method.rehearsed and plan.optimizer.rehearsed and not plan.offload


def rehearse(model: Model, plan: Plan, machine: Machine) -> Rehearsed:
    """Rehearse a plan as it would be on one of the machine's devices; seconds to minutes.

    UserError where packages are missing or the libraries refuse the model.
    """
    _check_packages()
    whole = replace(plan, engine=SINGLE, num_gpus=1)
    backend = "cuda" if machine.gpus else "cpu"
    if not machine.gpus:
        whole = replace(whole, precision="fp32", framework=framework_on(machine))
    found = _ask(
        {
            "model": model.path or model.id,
            "plan": whole.as_names(),
            "device": backend,
            "capability": _capability(machine),
        }
    )
    return Rehearsed(
        asked=plan,
        plan=whole,
        peak_bytes=int(found["peak_bytes"]),
        winner=str(found["winner"]),
        moments={str(name): int(value) for name, value in found["moments"].items()},
        seconds=float(found["seconds"]),
        formula=None if model.unmodelled else memory.estimate(model, whole),
    )


def least_plans(model: Model, machine: Machine, answers: Answers) -> tuple[Plan, ...]:
    """Every method that is offered and runs, one row at a time, for a model without a formula.

    Those that cannot be rehearsed are left out. UserError (USAGE) for answers that cannot be.
    """
    checks.check(replace(model, unmodelled=""), machine, None, answers)
    seq_len, width = defaults.seq_len(model, None, answers), precision(machine)
    return tuple(
        Plan.of(method, seq_len=seq_len, checkpointing=METHODS[method].recomputes, precision=width)
        for method in METHODS.ready
        if METHODS[method].offered and METHODS[method].rehearsed
    )


def attempt(model: Model, plan: Plan, machine: Machine) -> Tried:
    """Rehearse one of the `least_plans`, unless its weights and states alone are too many."""
    free, needed = budget_bytes(machine, 1), _least_bytes(model, plan)
    why = plan.method.unsupported(model, plan.settings)
    if needed > free:
        why = f"weights and states alone take {gib(needed)}"
    found = None if why else rehearse(model, plan, machine)
    return Tried(plan=plan, on_gpu=bool(machine.gpus), free_bytes=free, rehearsed=found, why=why)


def _least_bytes(model: Model, plan: Plan) -> int:
    """Never more than a plan takes, whatever the model is made of."""
    whole = plan.method.trains_base and plan.method.trains_embedding
    each = _TRAINED_BYTES if whole else plan.base_bits / 8
    return int(each * (model.num_params - model.vision_params))


def _capability(machine: Machine) -> tuple[int, int]:
    """CUDA's, of the first GPU; flash attention needs Ampere."""
    text = machine.gpus[0].compute_capability if machine.gpus else None
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor or 0)) if major.isdigit() else _AMPERE


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """One request to a process that may load torch."""
    done = subprocess.run(  # argv list of our own, no shell
        [sys.executable, "-P", "-m", "runner.rehearsal_main"],
        input=json.dumps(request),
        env=worker_command.worker_environment(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if error := answer.get("error"):
        parts = {name: str(error[name]) for name in ("why", "do", "where")}
        raise UserError(str(error["what"]), **parts, code=ExitCode(error["code"]))
    if "rehearsal" not in answer:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(
            "the rehearsal ended before it was done",
            why=f"its process left with {done.returncode}: {last}",
            do="`advisor doctor` says which packages are missing; the formula needs none",
            where="--rehearse",
            code=ExitCode.INTERNAL,
        )
    found: dict[str, Any] = answer["rehearsal"]
    return found


def _check_packages() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"a rehearsal needs packages that are not installed: {', '.join(missing)}",
            why="it runs the model's own code, on tensors without memory",
            do="pip install 'tunedeck[train]', or leave --rehearse out: the formula needs none",
            where="--rehearse",
            code=ExitCode.DRIVER,
        )
