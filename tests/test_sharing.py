"""Tests that share a fixture of their file run in one process, or each would make it anew."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="module")
def shared():
    """Made once in each process that runs a test of this file."""
    return os.getpid()


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one process alone")
def test_a_test_that_shares_a_fixture_is_in_its_file_s_group(request, shared):
    """As pytest-xdist tells the process that divides the tests: at the end of its id."""
    assert shared == os.getpid()
    assert request.node.nodeid.endswith("@test_sharing")
