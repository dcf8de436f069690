"""B14: evaluation and checkpoints stop the training."""

from __future__ import annotations

from typing import Any

from advisor.rules.case import Case, Finding

_WARN, _CRITICAL = 0.05, 0.15
_AIM = 0.03
"""Share of the time that evaluation (or saving) may take after the change."""


def check(case: Case) -> Finding | None:
    """Fires from 5 % of the wall time; the gain of doing it less often is counted, not modelled."""
    run = case.run
    stalls = run.eval_seconds + run.checkpoint_seconds
    share = stalls / run.wall_seconds if run.wall_seconds else 0.0
    if share < _WARN:
        return None
    change: dict[str, tuple[Any, Any]] = {}
    saved = 0.0
    for key, seconds, times in (
        ("train.eval_every", run.eval_seconds, run.num_evals),
        ("train.save_every", run.checkpoint_seconds, run.num_checkpoints),
    ):
        steps = run.wall_seconds - stalls
        allowed = max(1, int(times * _AIM * steps / seconds)) if seconds else times
        if allowed < times:
            old = getattr(case.recipe.train, key.split(".")[1])
            change[key] = (old, max(1, -(-run.num_steps // allowed)))
            saved += seconds * (1 - allowed / times)
    if not change:
        return None
    factor = 1 - saved / run.wall_seconds
    return Finding(
        id="B14",
        title="evaluation and checkpoints",
        severity="critical" if share >= _CRITICAL else "warning",
        confidence="exact",
        sentence=f"{run.num_evals} evaluations took {run.eval_seconds:.1f} s and "
        f"{run.num_checkpoints} checkpoints {run.checkpoint_seconds:.1f} s, together {share:.0%} "
        f"of {run.wall_seconds:.1f} s",
        evidence={
            "eval_seconds": run.eval_seconds,
            "checkpoint_seconds": run.checkpoint_seconds,
            "share": share,
        },
        change=change,
        time_factor=(factor, factor, factor),
        side_effects="fewer points on the evaluation curve, more steps lost by a crash",
    )
