"""A run directory as facts, whatever its records lack."""

from __future__ import annotations

import on_disk
import pytest

from profiles.runs import run as runs
from profiles.runs import rundir
from profiles.runs.records.metrics import PHASES
from tests.canned_run import step

ON_GPU = {"allocated_peak_bytes": 3, "reserved_peak_bytes": 5, "gpu_phases": {"forward": 0.4}}


def facts(*steps):
    """Facts of a run whose metrics say this, and how many lines were passed over."""
    run = rundir.create("a run")
    for content in steps:
        on_disk.write(run.metrics, "step", **content)
    return runs.from_run_dir(run)


def without(content, name):
    return {k: v for k, v in content.items() if k != name}


def test_a_step_that_lacks_a_field_is_no_step_and_counted():
    """Half a step would be taken for one of no time, or of no tokens."""
    whole = [step(n).content() for n in range(1, 31)]
    for name in whole[0]:
        found, num_damaged = facts(*whole[:-1], without(whole[-1], name))

        assert (found.num_steps, num_damaged) == (29, 1), name


@pytest.mark.parametrize("name", step(1).content())
@pytest.mark.parametrize("value", [None, "x", [], True])
def test_a_step_whose_field_is_something_else_is_no_step_and_counted(name, value):
    """Whatever stands there, the report comes without it."""
    found, num_damaged = facts(step(1).content(), step(2).content() | {name: value})

    assert (found.num_steps, num_damaged) == (1, 1)


def test_without_one_step_there_are_no_facts():
    """It cannot be told which step this was."""
    assert facts(without(step(1).content(), "step")) == (None, 1)


def test_on_a_gpu_the_devices_times_count_and_its_memory():
    """The host only queues work: what it waits for tells nothing."""
    found, _ = facts(*(step(n, seconds=1.0, **ON_GPU).content() for n in range(1, 31)))

    expected = dict.fromkeys(PHASES, 0.0) | {"forward": 0.4, "other": 0.6}
    assert found.phase_seconds == pytest.approx(expected)
    assert (found.peak_bytes, found.reserved_peak_bytes) == (3, 5)


def test_on_a_cpu_the_hosts_times_count_and_the_processes_memory():
    """There is nothing else."""
    found, _ = facts(*(step(n).content() for n in range(1, 31)))

    assert found.phase_seconds == pytest.approx(step(1).phases)
    assert (found.peak_bytes, found.reserved_peak_bytes) == (step(1).rss_peak_bytes, None)
