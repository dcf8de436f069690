"""B01: the step waits for its data."""

from __future__ import annotations

from advisor.rules.case import Case, Finding

_WARN, _CRITICAL = 0.05, 0.20
_LONG_TAIL = 5.0


def check(case: Case) -> Finding | None:
    """Fires from 5 % of the step; with workers the wait overlaps the computing."""
    run = case.run
    wait = run.phase_seconds.get("data", 0.0)
    share = wait / run.step_seconds if run.step_seconds else 0.0
    if share < _WARN:
        return None
    workers = case.recipe.train.workers
    tail = run.longest_data_share
    cause = (
        "a few batches are much slower than the rest"
        if tail >= _LONG_TAIL
        else (
            "batches are prepared in the training process"
            if workers == 0
            else "the workers are too slow"
        )
    )
    return Finding(
        id="B01",
        title="waiting for data",
        severity="critical" if share >= _CRITICAL else "warning",
        confidence="bound",
        sentence=f"{share:.0%} of a step waits for data: {cause}",
        evidence={"data_seconds": wait, "share": share, "p99_over_median": tail},
        change={"train.workers": (workers, max(2, 2 * workers))},
        time_factor=(1 - 0.5 * share, 1 - 0.75 * share, 1 - share),
    )
