"""How far the memory estimate lies from published, measured peaks.

    python tests/bench/memory_accuracy.py RUNS.jsonl [--out PRED.jsonl]

RUNS.jsonl has the schema of reference/vram_runs.md. Printed are, for core rows and for
the others, by source and method and apart for what torch allocated and for reserved or device
memory: the median and p90 of the absolute error, the bias, the share of rows more than 5 % above
the expected value, and the share at or below the high one. PRED.jsonl gets one object a row.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parents[1])]

from models import Skip  # noqa: E402 - the bench is run as a file
from rows import Case, Row, case_of  # noqa: E402

from advisor.cost.memory import estimate  # noqa: E402
from profiles.facts import GIB  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 40


class Prediction(NamedTuple):
    """Bytes of what a row measures, in GiB."""

    peak: float
    low: float
    high: float


class Outcome(NamedTuple):
    """A row with what was predicted for it."""

    row: Row
    case: Case
    predicted: Prediction

    @property
    def error(self) -> float:
        """Relative; positive where the estimate is too high."""
        return self.predicted.peak / float(self.row["peak_memory_gib"]) - 1

    @property
    def covered(self) -> bool:
        """The measured value is at or below the high one."""
        return bool(self.row["peak_memory_gib"] <= self.predicted.high)


def predict(case: Case) -> Prediction:
    """The estimate of what the case measures."""
    found = estimate(case.model, case.plan)
    low, peak, high = found.counted_bytes
    if case.measures == "reserved":
        peak, high = found.reserved_bytes, found.reserved_high_bytes
    elif case.measures == "device":
        low, peak, high = found.low_bytes, found.expected_bytes, found.high_bytes
    return Prediction(peak / GIB, low / GIB, high / GIB)


def outcome_of(row: Row) -> Outcome | Skip:
    """One row through mapping and estimate; whatever fails there is a reason to skip it."""
    try:
        case = case_of(row)
        return case if isinstance(case, Skip) else Outcome(row, case, predict(case))
    except Exception as error:  # noqa: BLE001 - one odd row must not end the run
        return Skip(f"failed: {type(error).__name__}: {error}")


def record(row: Row, outcome: Outcome | Skip) -> dict[str, Any]:
    """The line of PRED.jsonl for a row."""
    if isinstance(outcome, Skip):
        return {"id": row.get("id"), "skip": outcome.reason}
    values = {key: round(value, 4) for key, value in outcome.predicted._asdict().items()}
    return {"id": row.get("id")} | {f"{key}_gib": value for key, value in values.items()}


def summary(outcomes: Sequence[Outcome]) -> str:
    """The statistics of some rows in one line."""
    errors = sorted(abs(outcome.error) for outcome in outcomes)
    count = len(errors)
    above = sum(outcome.error > 0.05 for outcome in outcomes) / count
    under = sum(outcome.error < -0.05 for outcome in outcomes) / count
    covered = sum(outcome.covered for outcome in outcomes) / count
    widths = median(o.predicted.high / o.predicted.peak for o in outcomes)
    bias = median(outcome.error for outcome in outcomes)
    p90 = errors[min(count - 1, int(0.9 * count))]
    return (
        f"{count:4d} rows  median {median(errors):6.2%}  p90 {p90:6.2%}  bias {bias:+7.2%}  "
        f"5 % too low {under:6.1%}  too high {above:6.1%}  <= high {covered:6.1%}  "
        f"high/expected {widths:.2f}"
    )


def show(title: str, outcomes: Iterable[Outcome]) -> None:
    """A table of one kind of rows, by source and method, with a line for each measure."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        source = str(outcome.row["source"]).split(":")[0][:WIDTH]
        kind = "allocated" if outcome.case.measures == "allocated" else "reserved or device"
        groups[kind, f"{source}  {outcome.case.plan.method}"].append(outcome)
    sys.stdout.write(f"\n{title}\n")
    for kind in ("allocated", "reserved or device"):
        names = sorted(name for of, name in groups if of == kind)
        for name in names:
            sys.stdout.write(f"  {name:{WIDTH + 20}} {summary(groups[kind, name])}\n")
        together = [outcome for name in names for outcome in groups[kind, name]]
        if together:
            sys.stdout.write(f"  {'ALL, ' + kind:{WIDTH + 20}} {summary(together)}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(argv)
    with asked.runs.open(encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines if line.strip()]
    outcomes = [(row, outcome_of(row)) for row in rows]
    for core in (True, False):
        kept = [(row, o) for row, o in outcomes if bool(row.get("core_set")) is core]
        name = "Core rows" if core else "Other rows"
        found = [o for _, o in kept if isinstance(o, Outcome) and o.row.get("peak_memory_gib")]
        show(name, [o for o in found if not o.case.is_bound])
        show(f"{name} of unknown lengths: upper bounds", [o for o in found if o.case.is_bound])
        skipped = Counter(o.reason for _, o in kept if isinstance(o, Skip))
        sys.stdout.write(f"\n{name}, skipped: {skipped.total()} of {len(kept)}\n")
        for reason, count in skipped.most_common():
            sys.stdout.write(f"  {count:4d}  {reason}\n")
    if asked.out:
        records = [json.dumps(record(row, outcome)) for row, outcome in outcomes]
        asked.out.write_text("\n".join(records) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
