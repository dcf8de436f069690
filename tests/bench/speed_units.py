"""How much work a published throughput stands for: lengths of rows, units, numbers in texts."""

from __future__ import annotations

import math
import re
from statistics import NormalDist
from typing import Any

from advisor.plan import Plan

Row = dict[str, Any]

LENGTHS = {
    "alpaca": (125.0, 70.0, 20.0),
    "orca-math": (300.0, 150.0, 40.0),
    "fudan": (3234.0, 2548.0, 91.0),
}
"""(mean, deviation, least) tokens of rows. Alpaca: 22.8 MB for 52,002 rows less their keys, and
the prompt's template, at 4.3 characters a token; the others from the rows' own words."""


class SkippedError(Exception):
    """Why a row is left out."""


def row_tokens(row: Row) -> tuple[int, bool]:
    """Tokens of a row in a micro-batch, and whether they are known exactly."""
    kind = str(row.get("seq_len_kind")).lower()
    cap = number(row.get("seq_len")) or number(re.sub(r"\D", " ", str(row.get("seq_len"))))
    words = f"{kind} {row.get('notes')} {row.get('throughput_unit')}".lower()
    stated = number(row.get("seq_len")) is not None
    exact = r"packed|fixed|inputs padded to|\"seq length = "
    if stated and cap and re.search(exact, kind) and "not packed" not in kind:
        return cap, True
    if "alpaca2k" in words:
        raise SkippedError("the lengths of Alpaca2k's rows are not known")
    for data, (mean, deviation, least) in LENGTHS.items():
        if data in words or ("iteration 0" in kind and data == "alpaca"):
            alone = "padding-free" in kind or "deleted" in kind
            rows = 1 if alone else required(row, "micro_batch_size")
            return round(_padded(mean, deviation, least, cap or math.inf, rows)), False
    if "longest alpaca" in kind:
        return round(_padded(*LENGTHS["alpaca"], math.inf, 1)), False
    raise SkippedError("the lengths of the rows are not known")


def _padded(mean: float, deviation: float, least: float, cap: float, rows: int) -> float:
    """Mean of the longest of `rows` lengths, log-normal and none above the cap."""
    spread = math.log(1 + (deviation / mean) ** 2)
    law = NormalDist(math.log(mean) - spread / 2, math.sqrt(spread))
    top = law.cdf(math.log(cap)) if math.isfinite(cap) else 1.0
    steps = 400
    shares = [((step + 0.5) / steps) ** (1 / rows) for step in range(steps)]
    return sum(max(least, math.exp(law.inv_cdf(share * top))) for share in shares) / steps


def measured(row: Row, plan: Plan) -> float:
    """Tokens per second over all devices, padding included."""
    value, unit = float(row["throughput_value"]), str(row["throughput_unit"]).lower()
    tokens = plan.effective_batch * plan.seq_len
    if unit.startswith("tokens/s"):
        return value * (plan.num_gpus if "per gpu" in unit else 1)
    if unit.startswith(("s/step", "s/it")):
        return tokens / value
    if unit.startswith("minutes per 1k iterations"):
        return 1000 * tokens / plan.accumulation / (60 * value)
    if unit.startswith("samples/s"):
        return value * plan.seq_len
    epochs = re.match(r"total training minutes for (\d+) epochs of alpaca2k", unit)
    if epochs:
        # 2,000 rows of which 5 % are kept for validation (litgpt/data/alpaca_2k.py).
        return int(epochs[1]) * 1900 * plan.seq_len / (60 * value)
    raise SkippedError(f"unit of unknown work: {row['throughput_unit']}")


def required(row: Row, key: str) -> int:
    value = number(row.get(key))
    if value is None:
        raise SkippedError(f"{key} is not known")
    return value


def number(value: Any, kind: type = int) -> Any:
    """A number, also at the start of a text; None where there is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return kind(value)
    found = re.match(r"\s*(\d+(?:\.\d+)?)\b(?!/)", str(value))
    return kind(float(found[1])) if found else None
