"""Where the names of methods, optimizers and engines stand: in the registry and in its builders.

A name elsewhere is a branch that the next entry would miss, and its default would be wrong in
silence.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS

ROOT = Path(__file__).parent.parent
WITHOUT_NAMES = (
    "advisor/graph",
    "advisor/cost",
    "advisor/rules",
    "advisor/precision.py",
    "runner/training",
    "runner/tasks",
    "runner/checks",
    "runner/supervision",
    "tui/pages",
)
OTHER_MEANINGS = {
    "full": "whole logits (train.loss), a norm over all heads (qk_norm)",
}
"""Words that are the name of something else too, there."""


def literals(file: Path) -> set[str]:
    """The strings of a file, without docstrings and the text of f-strings."""
    tree = ast.parse(file.read_text())
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            prose |= {id(part) for part in node.values}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    }


@pytest.mark.parametrize("place", WITHOUT_NAMES)
def test_no_name_of_the_registry_stands_here(place):
    """What an entry means is asked of its spec."""
    names = {*METHODS.names(), *OPTIMIZERS.names(), *ENGINES.names()} - set(OTHER_MEANINGS)
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    assert files

    found = {
        str(file.relative_to(ROOT)): sorted(used)
        for file in files
        if (used := literals(file) & names)
    }

    assert not found


def test_the_search_sees_a_name():
    """In a comparison, a set, a dict; not in prose."""
    file = ROOT / "advisor/registry/low_rank.py"

    assert {"lora", "qlora"} <= literals(file)
    assert "documents: LoRA 1e-4 to 5e-4" in literals(file)
