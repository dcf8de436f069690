"""A run directory as facts, whatever its records lack."""

from __future__ import annotations

import pytest

from profiles.runs import run as runs
from profiles.runs import rundir
from profiles.runs.journal import Journal

STEP = {
    "seconds": 0.5,
    "tokens": 100,
    "longest": 64,
    "phases": {"data": 0.1, "forward": 0.2},
    "rss_peak_bytes": 1 << 20,
}


def facts(**changes):
    """Facts of a run of thirty steps whose records are changed so; None leaves a field out."""
    run = rundir.create("a run")
    fields = {k: v for k, v in (STEP | changes).items() if v is not None}
    with_gaps = Journal(run.metrics, attempt=1)
    for step in range(1, 31):
        with_gaps.append("step", step=step, sync=False, **fields)
    with_gaps.close()
    return runs.from_run_dir(run)


@pytest.mark.parametrize("name", STEP)
@pytest.mark.parametrize("value", [None, "x", []])
def test_a_step_that_lacks_a_field_is_still_a_step(name, value):
    """Another version may not have written it, or not so."""
    found = facts(**{name: value})

    assert (found.num_steps, len(found.phase_seconds)) == (30, len(runs.PHASES))


def test_a_record_without_its_step_is_no_step():
    """It cannot be told which one it was."""
    run = rundir.create("a run")
    Journal(run.metrics, attempt=1).append("step", **STEP)

    assert runs.from_run_dir(run) is None
