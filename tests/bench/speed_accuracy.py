"""Score the speed estimate against published runs.

    python tests/bench/speed_accuracy.py RUNS.jsonl [--out PRED.jsonl] [--core]

Errors are of tokens per second, predicted over measured less one. Rows whose lengths are known
only as a distribution are counted apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed_rows import Case, case_of
from speed_units import SkippedError

from advisor.cost.speed import SpeedEstimate, estimate


@dataclass(frozen=True, slots=True)
class Score:
    """A predicted row."""

    case: Case
    found: SpeedEstimate

    @property
    def error(self) -> float:
        """Of tokens per second, as a share."""
        return self.found.tokens_per_second / self.case.tokens_per_second - 1

    @property
    def inside(self) -> bool:
        """The measured rate lies in the interval."""
        low, high = self.found.low_tokens_per_second, self.found.high_tokens_per_second
        return low <= self.case.tokens_per_second <= high


def main() -> None:
    """Read, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--core", action="store_true", help="rows of the core set only")
    chosen = parser.parse_args()
    lines = chosen.runs.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    rows = [row for row in rows if not chosen.core or row.get("core_set")]
    scores, skipped = predict(rows)
    for line in report(scores, skipped):
        sys.stdout.write(line + "\n")
    if chosen.out:
        chosen.out.write_text(
            "".join(json.dumps(record(score)) + "\n" for score in scores), encoding="utf-8"
        )


def predict(rows: Iterable[dict[str, Any]]) -> tuple[list[Score], Counter[str]]:
    """Scores of the rows that convert, and why the others do not."""
    scores: list[Score] = []
    skipped: Counter[str] = Counter()
    for row in rows:
        try:
            case = case_of(row)
        except SkippedError as reason:
            skipped[str(reason)] += 1
            continue
        found = estimate(case.model, case.plan, case.machine)
        if found is None:
            skipped["the GPU's rates are not known"] += 1
        else:
            scores.append(Score(case, found))
    return scores, skipped


def report(scores: list[Score], skipped: Counter[str]) -> Iterator[str]:
    """Tables by source and by method, exact lengths first."""
    yield f"{'rows':42} {'n':>4} {'median':>8} {'p90':>8} {'bias':>8} {'inside':>7}"
    for known in (True, False):
        some = [score for score in scores if score.case.lengths_known is known]
        title = "lengths known" if known else "lengths estimated"
        yield _line(title.upper(), some)
        core = [score for score in some if score.case.row.get("core_set")]
        yield _line("  core set", core)
        for key in ("source", "method", "gpu_type"):
            yield from _by(some, key)
    yield "skipped:"
    yield from (f"  {count:4} {reason}" for reason, count in skipped.most_common())


def _by(scores: list[Score], key: str) -> Iterator[str]:
    groups: defaultdict[str, list[Score]] = defaultdict(list)
    for score in scores:
        groups[str(score.case.row.get(key))].append(score)
    for name, group in sorted(groups.items()):
        yield _line(f"  {name[-40:]}", group)


def _line(title: str, scores: list[Score]) -> str:
    if not scores:
        return f"{title:42} {0:4}"
    errors = sorted(abs(score.error) for score in scores)
    p90 = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    bias = statistics.median(score.error for score in scores)
    inside = sum(score.inside for score in scores) / len(scores)
    median = statistics.median(errors)
    return f"{title:42} {len(errors):4} {median:8.1%} {p90:8.1%} {bias:+8.1%} {inside:7.0%}"


def record(score: Score) -> dict[str, Any]:
    """One line of the file of predictions."""
    row, found = score.case.row, score.found
    return {
        "id": row["id"],
        "measured_tokens_per_second": round(score.case.tokens_per_second, 2),
        "tokens_per_second": round(found.tokens_per_second, 2),
        "low": round(found.low_tokens_per_second, 2),
        "high": round(found.high_tokens_per_second, 2),
        "error": round(score.error, 4),
        "lengths_known": score.case.lengths_known,
        "terms": {name: round(seconds, 5) for name, seconds in found.terms},
    }


if __name__ == "__main__":
    main()
