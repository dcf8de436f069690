"""The bottleneck report: what a run's facts say, and which recipe change would gain how much.

A rule fires only if every signal it needs was measured; a missing signal is told as "not measured",
never as "fine". Gains are computed one by one and do not add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from advisor import rules
from advisor.choice.devices import framework_with
from advisor.cost.memory import MemoryEstimate, estimate
from advisor.cost.moments import Term
from advisor.framework import ON_CPU
from advisor.recipe import Recipe
from advisor.rules import quality
from advisor.rules.case import SEVERITIES, Case, Finding
from advisor.rules.quality.training import Training
from profiles.facts import Model
from profiles.run_facts import Run

MIN_STEADY_STEPS = 20
_DOMINANT = 0.5
_WORDS = {
    "data": "waiting for data",
    "forward": "the forward pass",
    "backward": "the backward pass",
    "optimizer": "the optimizer",
    "other": "work between the phases",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything the report says about a run."""

    run: Run
    verdict: str
    """One sentence: what took the time."""
    quality: tuple[Finding, ...]
    """What the curves say of the model, the worst first."""
    phase_shares: tuple[tuple[str, float], ...]
    """Of the steady step time; sums to 1."""
    wall_shares: tuple[tuple[str, float], ...]
    """Of the whole training time: steps, evaluation, checkpoints."""
    memory: MemoryEstimate
    """Predicted for the longest row seen; its terms name the parts of the measured peak."""
    unexplained_bytes: int
    """Measured peak less predicted; negative if the prediction was too high."""
    findings: tuple[Finding, ...]
    not_measured: tuple[str, ...]
    low_confidence: bool
    """Fewer steady steps than rates need."""


def report(run: Run, recipe: Recipe, model: Model) -> Report:
    """Apply every rule to the facts of a run."""
    framework = ON_CPU if run.device == "cpu" else framework_with([run.compute_capability])
    plan = recipe.to_plan(framework, run.longest)
    memory = estimate(model, plan)
    case = Case(run=run, recipe=recipe, model=model, plan=plan, memory=memory)
    found: list[Finding] = []
    missing: list[str] = []
    for rule in rules.RULES:
        result = rule(case)
        if isinstance(result, Finding):
            found.append(result)
        elif result is not None:
            missing.append(result.text)
    if model.experts is not None and run.layers.routing is None:
        missing.append("Q06 routing: where the tokens of its experts went is not recorded")
    found.sort(key=lambda f: (SEVERITIES.index(f.severity), -f.best_gain))
    expected = memory.allocated_bytes if run.device != "cpu" else memory.expected_bytes
    phases = _shares(run.phase_seconds)
    return Report(
        run=run,
        verdict=_verdict(run, phases, found),
        quality=quality.findings(
            Training(curves=run.curves, result=run.result, recipe=recipe, layers=run.layers)
        ),
        phase_shares=phases,
        wall_shares=_wall(run),
        memory=memory,
        unexplained_bytes=run.peak_bytes - expected,
        findings=tuple(found),
        not_measured=tuple(missing),
        low_confidence=run.num_steady_steps < MIN_STEADY_STEPS,
    )


def terms_of_peak(found: Report) -> tuple[Term, ...]:
    """The measured peak by component: predicted terms, and what they do not explain."""
    inside = found.memory.terms if found.run.device == "cpu" else found.memory.peak.terms
    if found.unexplained_bytes <= 0:
        return inside
    return (*inside, Term(component="not explained", num_bytes=found.unexplained_bytes))


def patched(recipe: Recipe, findings: list[Finding]) -> dict[str, Any]:
    """The recipe's content with the findings' changes; a later one wins where two meet."""
    content = recipe.model_dump(by_alias=True, exclude_none=True, mode="json")
    content.pop("plan", None)  # the prediction was for the old settings
    for finding in findings:
        for key, (_, new) in finding.change.items():
            section, name = key.split(".")
            content.setdefault(section, {})[name] = new
    return content


def _shares(seconds: dict[str, float]) -> tuple[tuple[str, float], ...]:
    total = sum(seconds.values()) or 1.0
    return tuple((name, value / total) for name, value in seconds.items())


def _wall(run: Run) -> tuple[tuple[str, float], ...]:
    stalls = {"evaluation": run.eval_seconds, "checkpoints": run.checkpoint_seconds}
    steps = max(0.0, run.wall_seconds - sum(stalls.values()))
    return _shares({"training steps": steps, **stalls})


def _verdict(run: Run, phases: tuple[tuple[str, float], ...], found: list[Finding]) -> str:
    name, share = max(phases, key=lambda item: item[1])
    mostly = f"{_WORDS[name]} took {share:.0%} of a step"
    stalls = 1 - _wall(run)[0][1]
    if found and found[0].severity == "critical":
        return f"{found[0].title}; in the steps, {mostly}"
    if stalls > _DOMINANT:
        return f"evaluation and checkpoints took {stalls:.0%} of the time; in the steps, {mostly}"
    compute = sum(s for n, s in phases if n in ("forward", "backward"))
    if compute > _DOMINANT and not found:
        return f"steps are healthy: computing took {compute:.0%} of a step, {mostly}"
    return mostly
