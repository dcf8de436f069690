"""A recommendation as JSON for scripts: a schema of its own, not a dump of our facts.

`KEYS` tells every key; a test holds it against what is written. Within a schema number keys are
only added. Bytes are whole numbers, unknown is null, every number is finite, and what may come
from several places says so in `origin`: measured, table, predicted, user or default.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from advisor.choice import words
from advisor.cost.speed import cost
from tui.pages import facts_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from advisor.choice.answers import Answer
    from advisor.choice.compare import Row
    from advisor.choice.duration import Duration
    from advisor.choice.fit import Fit
    from advisor.choice.recommend import Alternative, Choice, Recommendation
    from advisor.cost.memory import MemoryEstimate
    from advisor.cost.speed import SpeedEstimate
    from advisor.plan import Plan
    from advisor.registry.spec import Hyperparameter
    from profiles.facts import Machine, Model
    from runner.rehearsal.results import Rehearsed, Tried

SCHEMA = 2


def document(
    found: Recommendation, rehearsed: Rehearsed | None = None, *, price: float | None = None
) -> dict[str, Any]:
    """All of `advisor recommend --json`."""
    best = {
        "rung": found.rung,
        "name": words.title(found.rung) if found.rung else None,
        "fits": found.rung is not None,
        "runs": found.runs,
        "why": found.detour or found.leaf.reason,
        "why_not_above": found.above or None,
        "learning_rate": found.learning_rate,
        "epochs": found.epochs,
        "rows": _rows(found),
        **_choice(found.fit, found.hyperparameters),
        **_costs(found.duration, price, found.disk_bytes),
    }
    return {
        "schema": SCHEMA,
        "model": facts_json.model(found.model),
        "machine": facts_json.machine(found.machine),
        "data": facts_json.data(found.dataset) if found.dataset else None,
        "wishes": _answers(found),
        "recommended": best,
        "recipe": _recipe(found.runnable, found.epochs, price) if found.runnable else None,
        "rehearsal": _rehearsal(found.fit, rehearsed) if rehearsed else None,
        "path": [
            {"question": s.question, "answer": s.answer, "origin": s.origin, "evidence": s.evidence}
            for s in found.path
        ],
        "leaf": found.leaf.name,
        "alternatives": [_alternative(row, found.rung) for row in found.alternatives],
        "warnings": found.warnings,
    }


def _rows(found: Recommendation) -> dict[str, Any] | None:
    """What is read and learnt of the data's rows at the recommended length."""
    if found.dataset is None or found.dataset.tokens is None:
        return None
    counts = found.dataset.tokens.at(found.fit.plan.seq_len)
    return {
        "tokens": counts.num_tokens,
        "learnt_tokens": counts.num_learnt,
        "cut": counts.num_cut,
        "left_out": counts.num_dropped,
    }


def unmodelled(model: Model, machine: Machine, tried: Sequence[Tried]) -> dict[str, Any]:
    """All of `advisor recommend --rehearse --json` for a model that no formula holds for."""
    return {
        "schema": SCHEMA,
        "model": facts_json.model(model),
        "machine": facts_json.machine(machine),
        "unmodelled": model.unmodelled,
        "rehearsals": [_tried(one) for one in tried],
    }


def comparison(found: Sequence[Recommendation], rows: Sequence[Row]) -> dict[str, Any]:
    """All of `advisor recommend --compare ... --json`."""
    return {
        "schema": SCHEMA,
        "model": facts_json.model(found[0].model),
        "data": facts_json.data(found[0].dataset) if found[0].dataset else None,
        "machines": [_machine_row(one, row) for one, row in zip(found, rows, strict=True)],
    }


def _machine_row(found: Recommendation, row: Row) -> dict[str, Any]:
    return {
        "machine": row.machine,
        "num_nodes": found.machine.num_nodes,
        "rung": row.rung,
        "name": row.method,
        "fits": row.rung is not None,
        "runs": row.runs,
        "num_gpus": row.num_gpus,
        "strategy": found.fit.plan.engine.name,
        "peak_bytes": row.peak_bytes,
        "peak_high_bytes": found.fit.memory.high_bytes,
        "free_bytes": row.free_bytes,
        "tokens_per_second": row.tokens_per_second,
        "hours": row.hours,
        "price_per_hour": row.price_per_hour,
        "cost": row.cost,
        "why_not_above": (found.above if row.rung else found.detour) or None,
    }


def _answers(found: Recommendation) -> dict[str, Any]:
    answers = found.answers
    asked: dict[str, Answer[Any] | None] = {
        "task": answers.task,
        "complexity": answers.complexity,
        "critical": answers.critical,
        "value": answers.value,
        "quality": answers.quality,
        "seq_len": answers.seq_len,
        "effective_batch": answers.effective_batch,
        "domain": answers.domain,
    }
    return {
        name: {"value": answer.value, "origin": answer.origin} if answer else None
        for name, answer in asked.items()
    }


def _recipe(choice: Choice, epochs: float, price: float | None) -> dict[str, Any]:
    """What --save writes."""
    return {
        "rung": choice.rung,
        "name": words.title(choice.rung),
        "why": choice.why or None,
        "learning_rate": choice.learning_rate,
        "epochs": epochs,
        **_choice(choice.fit, choice.hyperparameters),
        **_costs(choice.duration, price, choice.disk_bytes),
    }


def _choice(fit: Fit, settings: Sequence[Hyperparameter]) -> dict[str, Any]:
    return {
        "plan": _plan(fit.plan),
        "settings": [{"name": s.name, "value": s.value, "reason": s.reason} for s in settings],
        "memory": _memory(fit.memory, fit.budget_bytes),
        "ram": {"need_bytes": fit.host_bytes, "free_bytes": fit.host_budget_bytes},
        "disk": {"need_bytes": fit.disk_bytes, "free_bytes": fit.disk_budget_bytes},
        "speed": _speed(fit.speed, fit.real_tokens_per_second) if fit.speed else None,
    }


def _plan(plan: Plan) -> dict[str, Any]:
    """What is named, the batch, and the method's settings; adapters' ones are there for all."""
    settings: Any = plan.settings
    return {
        "method": plan.method.name,
        "seq_len": plan.seq_len,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "effective_batch": plan.effective_batch,
        "num_gpus": plan.num_gpus,
        "strategy": plan.engine.name,
        "offload": plan.offload,
        "rank": getattr(settings, "rank", 0),
        "alpha": getattr(settings, "alpha", 0),
        "dropout": getattr(settings, "dropout", 0.0),
        "targets": getattr(settings, "target_names", ()),
        "base_bits": plan.base_bits,
        "optimizer": plan.optimizer.name,
        "precision": plan.precision,
        "checkpointing": plan.checkpointing,
        "loss": plan.loss,
        "packing": plan.packing,
        "settings": asdict(settings),
    }


def _costs(took: Duration | None, price: float | None, disk_bytes: int) -> dict[str, Any]:
    hours = took.hours if took else None
    return {
        "hours": hours,
        "time": _time(took) if took else None,
        "price_per_hour": price,
        "cost": cost(hours, price) if hours is not None and price is not None else None,
        "disk_bytes": disk_bytes,
    }


def _time(took: Duration) -> dict[str, Any]:
    return {
        "start": [{"phase": phase, "seconds": seconds} for phase, seconds in took.start],
        "until_first_step_seconds": took.until_first_step,
        "training_seconds": took.training,
        "evaluating_seconds": took.evaluating,
        "answering_seconds": took.answering,
        "saving_seconds": took.saving,
    }


def _memory(estimate: MemoryEstimate, free: int) -> dict[str, Any]:
    """The peak with its interval, and what is alive at every moment."""
    return {
        "level": 1,
        "origin": "predicted",
        "free_bytes": free,
        "low_bytes": estimate.low_bytes,
        "expected_bytes": estimate.expected_bytes,
        "high_bytes": estimate.high_bytes,
        "allocated_bytes": estimate.allocated_bytes,
        "fragmentation_bytes": estimate.fragmentation_bytes,
        "context_bytes": estimate.context_bytes,
        "communication_bytes": estimate.communication_bytes,
        "peak": {"moment": estimate.winner, "place": estimate.peak.place},
        "moments": [
            {
                "moment": moment.name,
                "place": moment.place,
                "bytes": moment.total_bytes,
                "components": {term.component: term.num_bytes for term in moment.terms},
            }
            for moment in estimate.moments
        ],
    }


def _rehearsal(fit: Fit, found: Rehearsed) -> dict[str, Any]:
    """Level 2 beside level 1, of the same plan on one device."""
    formula = found.formula_moments
    use = found.on_device(fit)
    return {
        "level": 2,
        "method": found.plan.method.name,
        "allocated_bytes": found.peak_bytes,
        "formula_bytes": found.formula.allocated_bytes if found.formula else None,
        "difference": found.difference,
        "moments": [
            {"moment": name, "bytes": value, "formula_bytes": formula.get(name)}
            for name, value in found.moments.items()
        ],
        "low_bytes": use.low_bytes if use else None,
        "high_bytes": use.high_bytes if use else None,
        "fits": use.fits if use else None,
        "seconds": found.seconds,
    }


def _tried(one: Tried) -> dict[str, Any]:
    use = one.device
    return {
        "method": one.plan.method.name,
        "rank": getattr(one.plan.settings, "rank", 0),
        "seq_len": one.plan.seq_len,
        "fits": one.fits,
        "why_not_rehearsed": one.why or None,
        "allocated_bytes": one.rehearsed.peak_bytes if one.rehearsed else None,
        "low_bytes": use.low_bytes if use else None,
        "expected_bytes": use.expected_bytes if use else None,
        "high_bytes": use.high_bytes if use else None,
        "free_bytes": one.free_bytes,
    }


def _speed(speed: SpeedEstimate, real: float | None) -> dict[str, Any]:
    return {
        "origin": "predicted",
        "low_tokens_per_second": speed.low_tokens_per_second,
        "tokens_per_second": speed.tokens_per_second,
        "high_tokens_per_second": speed.high_tokens_per_second,
        "real_tokens_per_second": real,
        "step_seconds": speed.step_seconds,
        "rough": speed.rough,
    }


def _alternative(row: Alternative, chosen: str | None) -> dict[str, Any]:
    memory = row.fit.memory
    return {
        "rung": row.rung,
        "name": words.title(row.rung),
        "chosen": row.rung == chosen,
        "fits": row.fits,
        "possible": row.possible,
        "runs": row.runs,
        "low_bytes": memory.low_bytes,
        "expected_bytes": memory.expected_bytes,
        "high_bytes": memory.high_bytes,
        "least_high_bytes": row.least.memory.high_bytes,
        "micro_batch": row.fit.plan.micro_batch,
        "accumulation": row.fit.plan.accumulation,
        "checkpointing": row.fit.plan.checkpointing,
        "num_gpus": row.fit.plan.num_gpus,
        "strategy": row.fit.plan.engine.name,
        "tokens_per_second": row.fit.rates[1] if row.fit.rates else None,
        "hours": row.hours,
        "why_not": row.why_not or None,
        "unlocks": [{"kind": u.kind, "value": u.value, "words": u.words} for u in row.unlocks],
    }
