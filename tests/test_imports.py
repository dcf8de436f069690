"""Dependencies: what each room may load, proven in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "numpy", "datasets", "trl", "peft")
SCREEN = ("textual", "rich", "click")


def loaded_by(*modules):
    """Top-level names in `sys.modules` after importing these."""
    imports = "\n".join(f"import {m}" for m in modules)
    code = f"import sys\n{imports}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def modules_of(package):
    """Every module of a package, by its files."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [n.removesuffix(".__init__") for n in names]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("profiles", (*HEAVY, *SCREEN, "advisor", "runner", "tui", "pydantic")),
        ("advisor", (*HEAVY, *SCREEN, "runner", "tui", "psutil", "pynvml")),
        ("tui", HEAVY),
    ],
)
def test_a_room_loads_nothing_that_is_not_its_business(package, forbidden):
    """All modules of the room together."""
    assert loaded_by(*modules_of(package)).isdisjoint(forbidden)


def test_the_supervisor_loads_the_standard_library_and_profiles_alone():
    """It has almost nothing to fail with."""
    others = loaded_by("runner.supervision.supervisor") - set(sys.stdlib_module_names)

    assert {m for m in others if not m.startswith("_")} <= {"runner", "profiles"}


def test_a_recommendation_needs_neither_pydantic_nor_a_screen():
    """What makes the cold start slow stays out until a recipe is written."""
    assert loaded_by("tui.commands.recommend").isdisjoint((*HEAVY, "textual", "pydantic", "rich"))


def test_the_import_contracts_hold():
    """Layers and forbidden imports, over the whole static graph."""
    lint = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["cli.py", "app.py"])
def test_wiring_stays_small(name):
    """The two files that always grow."""
    assert len((ROOT / "tui" / name).read_text().splitlines()) <= 200
