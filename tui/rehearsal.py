"""Level 2 of the memory estimate: a plan rehearsed on the model's own code, in another process.

Decides which plans can be rehearsed and what a rehearsal says about the formula. torch lives in
`runner.rehearsal_main`, never here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from advisor.choice.devices import budget_bytes
from advisor.choice.recommend import precision
from advisor.choice.words import gib
from advisor.cost import memory
from advisor.cost.allocator import EXPANDABLE
from advisor.cost.memory import MemoryEstimate
from advisor.plan import Plan
from advisor.registry.engines import SINGLE
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model
from runner.supervision import engines

_NEEDED = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes")
_METHODS = frozenset(
    {
        *("full", "lora", "qlora", "bitfit", "ia3", "ln_tuning"),
        *("prompt_tuning", "prefix_tuning", "p_tuning"),
    }
)
_OPTIMIZERS = frozenset({"adamw", "adamw_8bit"})
_AMPERE = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What was alive, beside what the formula says of the same plan on one device."""

    plan: Plan
    """As it was rehearsed: whole, on one device."""
    peak_bytes: int
    """In torch's own count."""
    winner: str
    moments: dict[str, int]
    """Peaks of the passes, by the rehearsal's four names."""
    seconds: float
    formula: MemoryEstimate | None
    """None where no formula holds."""
    divided: bool
    """The plan itself divides weights over devices: the two numbers are of the undivided one."""

    @property
    def excess_bytes(self) -> int:
        """How far the formula is below; 0 without one."""
        return self.peak_bytes - self.formula.allocated_bytes if self.formula else 0

    def on_device(self, estimate: MemoryEstimate) -> tuple[int, int]:
        """The ends of a formula's interval, with the rehearsed peak in place of its own."""
        return estimate.low_bytes + self.excess_bytes, estimate.high_bytes + self.excess_bytes

    @property
    def formula_moments(self) -> dict[str, int]:
        """The formula's moments under the rehearsal's names."""
        found: dict[str, int] = {}
        for moment in self.formula.moments if self.formula else ():
            name = _SAME_MOMENT.get(moment.name, moment.name)
            found[name] = max(found.get(name, 0), moment.total_bytes)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One method of a model that no formula holds for, with the least memory it can have."""

    plan: Plan
    on_gpu: bool
    free_bytes: int
    rehearsed: Rehearsed | None
    """None where the weights alone are too many."""
    why: str = ""
    """Why it was not rehearsed."""

    @property
    def device_bytes(self) -> tuple[int, int, int]:
        """Low, expected and high use of the device, by the formula's rules; 0 without a peak."""
        allocated = self.rehearsed.peak_bytes if self.rehearsed else 0
        low, usual, high = memory.CONTEXT_BYTES if self.on_gpu else memory.PROCESS_BYTES
        some, most = EXPANDABLE[False]
        expected, worst = int((1 + some) * allocated), int((1 + most) * allocated)
        return allocated + low, expected + usual, worst + high

    @property
    def fits(self) -> bool:
        """The high end fits in what is free."""
        return self.rehearsed is not None and self.device_bytes[2] <= self.free_bytes


_LEAST_BYTES = {"full": 16.0, "lora": 2.0, "qlora": 0.5}
"""Of a weight, with gradients and optimizer states if it is trained: never more than it takes."""
_SAME_MOMENT = {
    "loss_forward": "forward",
    "first_layer_backward": "layer_backward",
    "last_layer_backward": "layer_backward",
    "embedding_backward": "layer_backward",
}


def can_rehearse(plan: Plan) -> bool:
    """The libraries build this method on one device."""
    return plan.method.name in _METHODS and plan.optimizer.name in _OPTIMIZERS and not plan.offload


def rehearse(model: Model, plan: Plan, machine: Machine) -> Rehearsed:
    """Rehearse a plan as it would be on one of the machine's devices; seconds to minutes.

    UserError where packages are missing or the libraries refuse the model.
    """
    _check_packages()
    whole = replace(plan, engine=SINGLE, num_gpus=1)
    backend = "cuda" if machine.gpus else "cpu"
    if not machine.gpus:
        whole = replace(whole, precision="fp32")
    found = _ask(
        {
            "model": model.path or model.id,
            "plan": whole.as_names(),
            "device": backend,
            "capability": _capability(machine),
        }
    )
    return Rehearsed(
        plan=whole,
        peak_bytes=int(found["peak_bytes"]),
        winner=str(found["winner"]),
        moments={str(name): int(value) for name, value in found["moments"].items()},
        seconds=float(found["seconds"]),
        formula=None if model.unmodelled else memory.estimate(model, whole, backend=backend),
        divided=plan.num_gpus > 1 and bool(plan.engine.divides),
    )


def try_all(model: Model, machine: Machine, seq_len: int) -> Iterator[Tried]:
    """Every method that the runner has, one row at a time, for a model without a formula."""
    free = budget_bytes(machine, 1)
    for method, least in _LEAST_BYTES.items():
        plan = Plan.of(
            method,
            seq_len=seq_len,
            checkpointing=True,
            precision=precision(machine),
        )
        needed = int(least * (model.num_params - model.vision_params))
        why = f"weights and states alone take {gib(needed)}" if needed > free else ""
        found = None if why else rehearse(model, plan, machine)
        yield Tried(plan=plan, on_gpu=bool(machine.gpus), free_bytes=free, rehearsed=found, why=why)


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
        env=engines.worker_environment(os.environ),
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
