"""What a description of an engine consists of: how devices share the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from advisor.registry.spec import Named, Offload

Division = Literal["weights", "gradients", "states"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class EngineSpec(Named):
    """How devices share the work."""

    name: str
    title: str
    builder: str = ""
    """Module of `runner.engines`; empty: not yet."""
    needs: tuple[str, ...] = ()
    several: bool = True
    """Of devices; the others are for one alone."""
    needs_gpu: bool = False
    divides: frozenset[Division] = frozenset()
    """What each device keeps a part of."""
    offload: tuple[Offload, ...] = ()
    """What may be kept in host memory."""
    float_shards: bool = False
    """Only tensors of floating-point numbers can be divided."""
    reads_once: bool = False
    """One process reads the weights, and the others are given their parts."""
    unit_seconds: float = 0.0
    """Host time to gather one unit and let it go, in each pass."""
