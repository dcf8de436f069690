"""Registry and runner meet: each spec that runs has its module, and each module its spec."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch")
from transformers import Trainer
from transformers.training_args import OptimizerNames

from advisor.plan import Plan
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS, is_ready
from advisor.registry.results import EXPORTS, METRICS
from runner import engines, methods, optimizers, tasks
from runner.training.trainer import RunProtocol

SHARED = {
    "methods": {
        *("base", "beside", "bottleneck_layers", "expert_targets", "four_bit_experts"),
        *("lora_experts_layers", "new_tokens", "own_file"),
        "positions",
        "products",
        "shifted",
    },
    "engines": {"engine", "loading", "ranks", "together"},
    "tasks": set(),
    "optimizers": {"weights"},
}
"""Modules beside the builders that these use."""


@pytest.mark.parametrize("spec", list(filter(is_ready, METHODS)), ids=str)
def test_a_method_that_runs_loads_and_adapts(spec):
    """By the module that its spec names; the weights' type is among what it loads with."""
    family = methods.family_of(spec)

    assert "dtype" in family.load_options(Plan.of(spec.name, seq_len=64))
    assert callable(family.adapt)


@pytest.mark.parametrize("spec", list(filter(is_ready, ENGINES)), ids=str)
def test_an_engine_that_runs_is_an_engine(spec):
    """With the whole interface."""
    assert isinstance(engines.engine_of(spec), engines.Engine)


@pytest.mark.parametrize("spec", list(filter(is_ready, TASKS)), ids=str)
def test_a_task_that_runs_has_columns_arguments_and_a_trainer(spec):
    """As a session asks for them."""
    task = tasks.task_of(spec)

    assert callable(task.columns)
    assert callable(task.arguments)
    kinds = task.TRAINER.__mro__
    assert kinds.index(RunProtocol) < kinds.index(Trainer)  # before the library's own trainer
    assert (task.TRAINER.head is RunProtocol.head) == (spec.head == "lm")
    assert task.TRAINER.batches.blocks >= spec.sequences_per_row


@pytest.mark.parametrize("spec", list(filter(is_ready, OPTIMIZERS)), ids=str)
def test_an_optimizer_that_runs_is_known_to_the_trainer(spec):
    """By the name that its spec hands over, or it has a module that makes it."""
    if spec.module:
        assert callable(optimizers.module_of(spec).make)
        return
    assert spec.optim in {name.value for name in OptimizerNames}


@pytest.mark.parametrize(
    ("room", "registry"),
    [("methods", METHODS), ("engines", ENGINES), ("tasks", TASKS), ("optimizers", OPTIMIZERS)],
)
def test_no_module_builds_what_the_registry_does_not_know(room, registry):
    """And none that a spec names is missing."""
    folder = Path(methods.__file__).parent.parent / room
    modules = {file.stem for file in folder.glob("*.py")} - {"__init__"} - SHARED[room]

    built = {getattr(spec, "module", spec.builder) for spec in registry}
    assert modules == built - {""}


@pytest.mark.parametrize(("room", "registry"), [("evaluate", METRICS), ("export", EXPORTS)])
def test_a_metric_or_an_export_that_runs_has_its_module(room, registry):
    """Else the list would call it ready."""
    for spec in filter(is_ready, registry):
        assert find_spec(f"runner.{room}.{spec.builder}") is not None
