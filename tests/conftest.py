"""No test may touch the user's home; real training uses a tiny random model made once."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

# Threads that spin while they wait slow a shared machine down by a factor
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # the line above must come before torch

ADVISOR = Path(sys.executable).parent / "advisor"
_SETTLED = set()
"""Modules of tests that have begun in this process."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests that share a fixture of their file stay in one process: each would make it anew."""
    for item in items:
        found = [made for every in item._fixtureinfo.name2fixturedefs.values() for made in every]
        if any(made.scope != "function" and made.baseid.endswith(".py") for made in found):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_runtest_setup(item):
    """What is loaded stays: each training run has all garbage collected, and would look at it."""
    if item.module not in _SETTLED:
        _SETTLED.add(item.module)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A fresh home for runs."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TUNEDECK_HOME", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


@pytest.fixture(autouse=True)
def journals(monkeypatch):
    """A process that trains closes its files by its end; a test closes them by its own."""
    from profiles.runs.journal import Journal

    opened, begin = [], Journal.__init__

    def remembered(journal, *args, **kwargs):
        begin(journal, *args, **kwargs)
        opened.append(journal)

    monkeypatch.setattr(Journal, "__init__", remembered)
    yield
    for journal in opened:
        with contextlib.suppress(OSError, AttributeError):  # closed, silent, or on a broken disk
            journal.close()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with a tiny random Llama, its tokenizer and a chat template."""
    torch = pytest.importorskip("torch")
    from runner.demo_base import make_model, make_tokenizer
    from runner.demo_text import base_lines

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    make_model().save_pretrained(folder)
    make_tokenizer(list(base_lines(300, 0))).save_pretrained(folder)
    return folder


@pytest.fixture
def orders(tmp_path):
    """Forty rows of instruction data."""
    from runner.demo_text import instruction_rows

    path = tmp_path / "orders.json"
    path.write_text(json.dumps(instruction_rows(40, seed=1)))
    return path


@pytest.fixture
def advisor(tmp_path):
    """Run the installed command in a subprocess, as a user does."""

    def call(*arguments: object, cwd: Path = tmp_path, timeout: float = 240, **environment: str):
        return subprocess.run(
            [str(ADVISOR), *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return call
