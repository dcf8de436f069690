"""What the registry says can be started has its module in the runner, and each module its entry."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

pytest.importorskip("torch")

from transformers.training_args import OptimizerNames

import runner
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS
from runner import engines, methods, tasks
from runner.engines.engine import Engine
from runner.training.trainer import RunProtocol

HELPERS = {
    "engines": {"engine", "loading", "ranks", "together"},
    "methods": {"base"},
    "tasks": set(),
}
"""Modules of the rooms that several builders share."""


@pytest.mark.parametrize(
    ("room", "registry"),
    [("engines", ENGINES), ("methods", METHODS), ("tasks", TASKS)],
    ids=["engines", "methods", "tasks"],
)
def test_there_is_a_module_for_each_builder_and_a_builder_for_each_module(room, registry):
    """A file that nothing names is dead; a name without a file fails when it is started."""
    folder = Path(runner.__file__).parent / room
    modules = {file.stem for file in folder.glob("*.py")} - HELPERS[room] - {"__init__"}

    assert {spec.builder for spec in registry if spec.builder} == modules


@pytest.mark.parametrize("spec", [m for m in METHODS if m.builder], ids=repr)
def test_a_family_loads_and_adapts(spec):
    """By the same two functions."""
    family = methods.family_of(spec)

    assert list(inspect.signature(family.load_options).parameters) == ["plan"]
    assert len(inspect.signature(family.adapt).parameters) == 2


@pytest.mark.parametrize("spec", [e for e in ENGINES if e.builder], ids=repr)
def test_an_engine_answers_what_a_run_asks(spec):
    """On a CPU and on GPUs."""
    engine = engines.engine_of(spec)

    assert isinstance(engine, Engine)
    assert all(isinstance(engine.arguments(on_cpu=on_cpu), dict) for on_cpu in (True, False))


@pytest.mark.parametrize("spec", [t for t in TASKS if t.builder], ids=repr)
def test_a_tasks_trainer_follows_the_run_protocol_before_its_library(spec):
    """And its batches have as many sequences in a row as the estimate counts."""
    trainer = tasks.task_of(spec).TRAINER

    assert trainer.__mro__[1] is RunProtocol
    assert trainer.batches.blocks == spec.sequences_per_row


@pytest.mark.parametrize("spec", [o for o in OPTIMIZERS if o.builder], ids=repr)
def test_the_trainer_knows_each_optimizer(spec):
    """By the name that it is given."""
    assert spec.optim in {name.value for name in OptimizerNames}
