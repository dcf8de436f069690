"""A rehearsal in a process of its own: a plan comes in as JSON, what was alive goes out as JSON.

For programs that must not load torch themselves: `python -P -m runner.rehearsal_main`. Input, on
stdin: {"model": folder or id, "plan": fields of advisor.plan.Plan, "device": "cuda" or "cpu",
"capability": [major, minor]}. Output, the only line on stdout: {"rehearsal": fields of
runner.rehearse.Rehearsal}, or {"error": the four parts of a UserError} with its exit code.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from advisor.plan import Plan
from profiles.errors import ExitCode, UserError
from profiles.models import catalog

_MOST_MICRO_BATCHES: Final = 2
"""Gradients are there from the first on; further ones change nothing."""
_OF_MANY_STEPS: Final = 10**6
"""The rehearsed step is the first of them."""


def main() -> int:
    """Answer one request; returns the exit code."""
    answer, code = {}, 0
    try:
        request = json.load(sys.stdin)
        with contextlib.redirect_stdout(sys.stderr):  # libraries print as they load
            answer["rehearsal"] = rehearsed(request)
    except UserError as error:
        answer, code = {"error": error.as_dict()}, int(error.code)
    print(json.dumps(answer))  # noqa: T201  # the answer
    return code


def rehearsed(request: dict[str, Any]) -> dict[str, Any]:
    """Run the plan of a request; UserError if the libraries cannot build it."""
    from runner.rehearse import rehearse  # noqa: PLC0415  # torch, after the request was read

    name, plan = str(request["model"]), plan_of(request["plan"])
    try:
        found = rehearse(
            config_of(name),
            settings_of(plan),
            seq_len=plan.seq_len,
            micro_batch=plan.sequences,
            device=request["device"],
            capability=tuple(request["capability"]),
        )
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, ImportError) as error:
        raise _refused(name, plan, error) from error
    return asdict(found)


def plan_of(content: dict[str, Any]) -> Plan:
    """A plan from its names."""
    return Plan.of(**{name: _hashable(value) for name, value in content.items()})


def _hashable(value: Any) -> Any:
    """JSON has lists where settings have tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def settings_of(plan: Plan) -> Any:
    """The plan on one device, as a rehearsal takes it."""
    from runner.rehearsal.setup import Setup  # noqa: PLC0415  # torch

    return Setup(
        method=plan.method.name,
        **(_as_the_worker(plan) if plan.method.builder else {}),
        num_virtual_tokens=plan.settings.num_virtual_tokens,
        precision=plan.precision,
        bits=plan.base_bits,
        checkpointing=plan.checkpointing,
        loss=plan.loss,
        label_smoothing=plan.label_smoothing,
        attention=plan.attention,
        optimizer=plan.optimizer.name,
        accumulation=min(plan.accumulation, _MOST_MICRO_BATCHES),
        packing=plan.packing,
        head=plan.task.head,
        reference=plan.task.reference,
    )


def _as_the_worker(plan: Plan) -> dict[str, Any]:
    """What the method's builder loads and puts on the model."""
    from runner import methods  # noqa: PLC0415  # torch
    from runner.methods import new_tokens, shifted  # noqa: PLC0415  # torch

    family = methods.family_of(plan.method)
    options = family.load_options(plan)
    quantized = options.get("quantization_config")
    nested = {"double_quant": quantized.bnb_4bit_use_double_quant} if quantized else {}
    plan = replace(plan, settings=plan.settings.without_numbers())

    def adapted(model: Any) -> Any:
        new_tokens.pretend(model, plan.num_new_tokens)
        if plan.shifted_attention:
            shifted.use(model)
        ready = family.adapt(model, plan)
        methods.begin(ready, plan, _OF_MANY_STEPS)
        return ready

    after = partial(methods.after_step, plan=plan, step=1, was_skipped=False)
    nested["quantized_experts"] = plan.quantizes_experts
    return {"adapted": adapted, "after_step": after, "loaded": options["dtype"], **nested}


def config_of(name: str) -> Any:
    """What transformers builds it from: of a folder, the catalog, or the hub."""
    from transformers import AutoConfig  # noqa: PLC0415

    if not Path(name).is_dir():
        known = catalog.config_of(name)
        if known is not None:
            return known
    return AutoConfig.from_pretrained(name, trust_remote_code=False)


def _refused(name: str, plan: Plan, error: Exception) -> UserError:
    """What transformers or PEFT said, on one line."""
    said = " ".join(str(error).split())
    return UserError(
        f"{name} cannot be rehearsed with {plan.method.name}",
        why=f"{type(error).__name__}: {said[:400]}",
        do="a newer transformers or peft may know it; the formula needs neither",
        where=name,
        code=ExitCode.DRIVER,
    )


if __name__ == "__main__":
    sys.exit(main())
