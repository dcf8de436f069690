"""The table of faults is whole, and what it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from profiles.errors import ExitCode
from tests.faults import FAULTS

TESTS = Path(__file__).parent
NUM_FAULTS = 95
_LEAST_REASON = 20


@cache
def functions_of(name: str) -> frozenset[str]:
    """Names of the test functions of tests/test_NAME.py."""
    path = TESTS / f"test_{name}.py"
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_bytes()))
    functions = (n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(f.name for f in functions if f.name.startswith("test_"))


def test_every_fault_of_the_catalogue_has_one_row():
    """Numbers 1 to 95, in order; no two rows are called the same."""
    assert list(FAULTS) == list(range(1, NUM_FAULTS + 1))
    assert len({row.what for row in FAULTS.values()}) == NUM_FAULTS


@pytest.mark.parametrize("number", FAULTS)
def test_a_fault_has_tests_that_exist_or_a_reason(number):
    """Either, not both; "TODO" is no reason."""
    row = FAULTS[number]
    named = [test.partition("::") for test in row.tests]

    assert bool(row.tests) != bool(row.reason), row.what
    assert row.tests or len(row.reason) >= _LEAST_REASON, row.what
    assert [] == [
        f"{file}::{name}" for file, _, name in named if f"test_{name}" not in functions_of(file)
    ]


def test_a_name_that_is_no_test_is_found_out():
    """The walk above can fail."""
    assert "test_every_fault_of_the_catalogue_has_one_row" in functions_of("fault_catalogue")
    assert "test_that_nobody_wrote" not in functions_of("fault_catalogue")
    assert not functions_of("no_such_file")


def test_every_exit_code_but_success_answers_a_fault():
    """A code that no fault ends with would be dead."""
    used = {row.code for row in FAULTS.values() if row.code is not None}

    assert set(ExitCode) - used == {ExitCode.FINISHED}


def test_the_readme_lists_exactly_the_exit_codes():
    """Scripts rely on them."""
    readme = (TESTS.parent / "README.md").read_text("utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}

    assert set(map(int, ExitCode)) == listed
