"""Metrics that judge a model, and the forms in which one leaves.

Apart from what a recommendation asks for, which is loaded at each start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from advisor.registry.lookup import Registry
from advisor.registry.spec import Named


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MetricSpec(Named):
    """A number that says how good a model is."""

    name: str
    title: str
    builder: str = ""
    """Module of `runner.evaluate`; empty: not yet."""
    needs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """Tasks whose models it can judge."""
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExportSpec(Named):
    """A form in which a trained model leaves."""

    name: str
    title: str
    builder: str = ""
    """Module of `runner.export`; empty: not yet."""
    needs: tuple[str, ...] = ()
    suffix: str = ""
    """Of the file; empty for a folder."""


METRICS: Final[Registry[MetricSpec]] = Registry("metric", ())
EXPORTS: Final[Registry[ExportSpec]] = Registry("export format", ())
