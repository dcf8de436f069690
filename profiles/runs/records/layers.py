"""Records of layers.jsonl: what the layers of the model do, every so many steps.

A record tells of the steps after `since` up to `step`. What an attempt writes again, because it
went on from an earlier checkpoint, counts in place of what was there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiles.layer_facts import ExpertUse, LinearNorms
from profiles.runs.records.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed(Record):
    """Which experts of one layer the tokens of some steps went to, on all ranks."""

    kind: ClassVar[str] = "routed"

    step: int
    since: int
    use: ExpertUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(Record):
    """How far the adapters of one linear have moved, layer by layer, after a step."""

    kind: ClassVar[str] = "moved"

    step: int
    since: int
    linear: LinearNorms
