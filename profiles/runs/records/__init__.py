"""One class a kind of record, by who writes them; here is what all have in common.

Importing any of these modules makes all kinds known: a reader does not know what it will find.
"""

from profiles.runs.records import (
    evaluation,
    inputs,
    layers,
    metrics,
    packing,
    ranks,
    sampler,
    supervisor,
    worker,
)
from profiles.runs.records.record import Dropped, Record, parse

__all__ = [
    "Dropped",
    "Record",
    "evaluation",
    "inputs",
    "layers",
    "metrics",
    "packing",
    "parse",
    "ranks",
    "sampler",
    "supervisor",
    "worker",
]
