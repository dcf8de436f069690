"""What is learnt from which rows: one module a task, found by its description.

A module has `TRAINER`, a class of the run protocol and a library's trainer; `arguments`, a
configuration of that trainer; and `columns`, a row as the trainer takes it. Importing this package
imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from advisor.registry.task_spec import TaskSpec


def task_of(spec: TaskSpec) -> Any:
    """The module that runs this task."""
    return import_module(f"{__name__}.{spec.builder}")
