"""One model on several machines: what each would do with it, how fast, and for how much.

Decides nothing that recommend.py has not decided; it puts the answers beside each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from advisor.choice import words
from advisor.choice.answers import Answers
from advisor.choice.recommend import Recommendation, recommend
from advisor.cost import speed
from profiles.facts import Dataset, Machine, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A machine's line in the table."""

    machine: str
    method: str
    """The recommended rung, in words."""
    rung: str | None
    """None if nothing fits."""
    num_gpus: int
    """Of the plan; 0 for a machine without GPUs."""
    peak_bytes: int
    """Expected, of one device."""
    free_bytes: int
    tokens_per_second: float | None
    hours: float | None
    price_per_hour: float | None
    cost: float | None
    """For all hours, in the price's currency; None where price or hours are not known."""
    runs: bool
    """Our runner can run it today."""


def compare(
    model: Model, machines: Sequence[Machine], dataset: Dataset | None, answers: Answers
) -> tuple[Recommendation, ...]:
    """The recommendation for each machine, in their order; UserError as `recommend` has it."""
    return tuple(recommend(model, machine, dataset, answers) for machine in machines)


def rows(found: Sequence[Recommendation], prices: Sequence[float | None] = ()) -> tuple[Row, ...]:
    """The table; `prices` per hour of a whole machine, in the machines' order."""
    known = (*prices, *[None] * (len(found) - len(prices)))
    return tuple(_row(one, price) for one, price in zip(found, known, strict=True))


def _row(found: Recommendation, price: float | None) -> Row:
    fits = found.rung is not None
    rates, hours = found.fit.rates, found.hours if fits else None
    return Row(
        machine=machine_name(found.machine),
        method=words.title(found.rung) if found.rung else "nothing fits",
        rung=found.rung,
        num_gpus=found.fit.plan.num_gpus if found.machine.gpus else 0,
        peak_bytes=found.fit.memory.expected_bytes,
        free_bytes=found.fit.budget_bytes,
        tokens_per_second=rates[1] if rates and fits else None,
        hours=hours,
        price_per_hour=price,
        cost=speed.cost(hours, price) if hours is not None and price is not None else None,
        runs=found.runs,
    )


def machine_name(machine: Machine) -> str:
    """Like "4x RTX 4090 + 1x RTX 3090", or the processor."""
    counts = Counter(gpu.name for gpu in machine.gpus)
    return " + ".join(f"{count}x {name}" for name, count in counts.items()) or machine.cpu_name
