"""A start beside another run of one's own on the same device says so."""

from __future__ import annotations

import pytest

from profiles.runs import durable
from runner.checks import neighbours
from tests.canned_run import canned_run


def run_on(*devices, end=None):
    """A run that works there, or did."""
    run = canned_run(end=end)
    durable.write_json(run.devices, {"devices": list(devices)})
    return run


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ((), (), "trains on this CPU too"),
        (("GPU-a", "GPU-b"), ("GPU-b", "GPU-c"), "trains on GPU GPU-b too"),
        (("GPU-a",), ("GPU-b",), None),
        ((), ("GPU-a",), None),
        (("GPU-a",), (), None),
    ],
)
def test_a_run_at_work_on_the_same_device_is_named(home, theirs, ours, words):
    """A GPU, or the CPU where both have none."""
    run = run_on(*theirs)

    found = neighbours.warnings(ours)

    assert len(found) == (words is not None)
    assert all(text.startswith(f"{run.id} {words}") for text in found)


def test_a_run_that_is_over_disturbs_nobody(home):
    """However it ended."""
    run_on(end="failed")
    assert neighbours.warnings(()) == []
