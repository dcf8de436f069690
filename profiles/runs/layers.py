"""The records of layers as facts: the newest of them, and the first for comparison.

However long a run is, few of its records are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce

from profiles.layer_facts import AdapterNorms, ExpertUse, Layers, LinearNorms, Routing, together
from profiles.runs.records.layers import Moved, Routed
from profiles.runs.records.record import Record

_MOST_PERIODS = 8
_ENOUGH = 64
"""Tokens for each expert: as few periods of routing are added up as have so many, and not more than
those above. One may be of a single step, and older ones hide what the newest shows."""
_MOST_LAYERS = 1000
_MOST_LINEARS = 200


class _Period:
    """What was written of the same steps."""

    def __init__(self, since: int, step: int) -> None:
        self.since, self.step = since, step
        self.uses: dict[int, ExpertUse] = {}


class LayerLog:
    """What the records of layers say, read one after the other."""

    def __init__(self) -> None:
        self._first: _Period | None = None
        self._newest: list[_Period] = []
        self._moved_at = 0
        self._moved: dict[str, LinearNorms] = {}

    def add(self, records: Iterable[Record]) -> Layers:
        """Take in what is new, in the order of the file; returns what is known then."""
        for record in records:
            if isinstance(record, Routed) and _is_sound(record.use):
                self._period(record).uses[record.use.layer] = record.use
            elif isinstance(record, Moved) and _is_whole(record.linear):
                self._move(record)
        return self.facts

    def _move(self, record: Moved) -> None:
        """Of another step than the newest all are new."""
        if record.step != self._moved_at:
            self._moved_at, self._moved = record.step, {}
        if len(self._moved) < _MOST_LINEARS:
            self._moved[record.linear.name] = record.linear

    def _period(self, record: Routed) -> _Period:
        """The one that it belongs to; those that it stands in place of are gone."""
        kept = [
            one
            for one in self._newest
            if one.step <= record.since or (one.since, one.step) == (record.since, record.step)
        ]
        if not kept or kept[-1].step != record.step:
            kept.append(_Period(record.since, record.step))
        self._newest = kept[-_MOST_PERIODS:]
        if self._first is None or self._first.step > record.since:
            self._first = kept[0]
        return kept[-1]

    @property
    def facts(self) -> Layers:
        """What is known by now."""
        moved = tuple(self._moved.values())
        norms = AdapterNorms(step=self._moved_at, linears=moved) if moved else None
        if self._first is None:
            return Layers(norms=norms)
        newest, first = _routing(_enough(self._newest)), _routing([self._first])
        return Layers(routing=newest, first_routing=first, norms=norms)


def _is_sound(use: ExpertUse) -> bool:
    """As only a router's counts can be."""
    is_known = 0 <= use.layer < _MOST_LAYERS and use.tokens > 0
    return is_known and bool(use.counts) and min(use.counts) >= 0


def _is_whole(linear: LinearNorms) -> bool:
    """As many numbers as adapters, and none that is no norm."""
    number = len(linear.layers)
    is_long = len(linear.norms) == number and len(linear.relative) in (0, number)
    sound = (norm is None or norm >= 0 for norm in (*linear.norms, *linear.relative))
    return number > 0 and is_long and min(linear.layers) >= -1 and all(sound)


def _enough(periods: list[_Period]) -> list[_Period]:
    """As few of the newest ones as say something of each layer."""
    for number in range(1, len(periods)):
        layers = _routing(periods[-number:]).layers
        if all(sum(use.counts) >= _ENOUGH * len(use.counts) for use in layers):
            return periods[-number:]
    return periods


def _routing(periods: list[_Period]) -> Routing:
    layers = sorted({layer for one in periods for layer in one.uses})
    return Routing(
        since=periods[0].since,
        step=periods[-1].step,
        layers=tuple(reduce(_sum, _of_layer(layer, periods)) for layer in layers),
    )


def _of_layer(layer: int, periods: list[_Period]) -> Iterator[ExpertUse]:
    return (one.uses[layer] for one in periods if layer in one.uses)


def _sum(first: ExpertUse, second: ExpertUse) -> ExpertUse:
    """Of another model, as no sound run has it, the newer one."""
    return together(first, second) if len(first.counts) == len(second.counts) else second
