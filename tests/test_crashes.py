"""A run on a disk that crashes, refuses or loses power at every operation: nothing told is lost.

What must hold, and after which faults, is in support/workload.py.
"""

from __future__ import annotations

import sys

import pytest
import workload
from workload import violations

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faulty disk reads /proc")


def test_there_are_many_operations_to_fail():
    """An empty life would prove nothing."""
    num_operations, writes = workload.operations()

    assert num_operations > 100
    assert len(writes) > 20


def test_a_crash_before_any_operation_loses_nothing():
    """The next attempt finds every acknowledged checkpoint and comes to the end."""
    assert [] == list(violations(workload.crashes()))


def test_a_write_torn_by_a_crash_loses_nothing():
    """Half of a record or of a file never counts."""
    assert [] == list(violations(workload.torn_writes()))


def test_a_second_crash_during_the_recovery_loses_nothing():
    """Recovering is as safe as training."""
    assert [] == list(violations(workload.repeated_crashes()))


def test_an_error_of_the_disk_loses_nothing():
    """Full, over quota, read-only or broken: only OSError comes out, and no trust in a half."""
    assert [] == list(violations(workload.errors(last=False)))


def test_a_disk_that_refuses_until_it_is_replaced_loses_nothing():
    """The attempt fails; the next one, with room again, goes on."""
    assert [] == list(violations(workload.errors(last=True, every=4)))


def test_a_power_loss_takes_nothing_that_was_told():
    """Unsynced bytes are cut or zeros, unsynced names undone, kept, or some of each."""
    assert [] == list(violations(workload.power_losses()))
