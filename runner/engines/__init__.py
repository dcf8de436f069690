"""How the processes of a run share the work: one module an engine, found by its description.

Importing this package imports torch.
"""

from __future__ import annotations

from importlib import import_module

from advisor.registry.engine_spec import EngineSpec
from runner.engines.engine import Engine


def engine_of(spec: EngineSpec) -> Engine:
    """What runs this engine."""
    found: Engine = import_module(f"{__name__}.{spec.builder}").ENGINE
    return found
