"""Metrics that judge a model, and the forms in which one leaves."""

from __future__ import annotations

from typing import Final

from advisor.registry.spec import ExportSpec, MetricSpec

METRICS: Final[tuple[MetricSpec, ...]] = ()
EXPORTS: Final[tuple[ExportSpec, ...]] = ()
