"""Every method as a row: what it takes; below it with which batch, and why it was not chosen."""

from __future__ import annotations

from advisor.choice import words
from advisor.choice.fit import Fit
from advisor.choice.recommend import Alternative, Recommendation
from advisor.choice.unlock import Unlock
from profiles.facts import GIB
from profiles.quantities import bytes_text, count_text
from tui.plain import table, wrap

_INDENT = " " * 6
_HEADER = ("", "method", "fits", "peak, GiB", "least", "tokens/s", "hours")
_LEGEND = (
    "Peaks are those of the batch below each: rows at a time x accumulated (x GPUs), activations "
    "kept or recomputed. Least: with the fewest rows at a time, recomputed where that can be."
)


def legend(width: int) -> list[str]:
    """What the table's numbers are of."""
    return wrap(_LEGEND, width, indent="  ", first="  ")


def lines(found: Recommendation, width: int) -> list[str]:
    """The table; below each method its batch, why not it, or what would make it fit."""
    rows = found.alternatives
    cells = [_cells(row, found.rung) for row in rows]
    dropped = {_HEADER.index("hours")} if all(row.hours is None for row in rows) else set()
    kept = [i for i in range(len(_HEADER)) if i not in dropped]
    header, *body = table(
        [[line[i] for i in kept] for line in cells],
        header=[_HEADER[i] for i in kept],
        right=[place for place, i in enumerate(kept) if i > _HEADER.index("fits")],
    )
    result, device = [header], _device(found)
    for row, line in zip(rows, body, strict=True):
        reason = _reason(row, device) if row.rung != found.rung else ""
        not_yet = "" if row.runs else "this version does not run it yet"
        told = "; ".join(part for part in (_batch(row.fit), not_yet, reason) if part)
        result += [line, *wrap(told, width, indent=_INDENT)]
    return result


def _cells(row: Alternative, chosen: str | None) -> tuple[str, ...]:
    memory, rates = row.fit.memory, row.fit.rates
    return (
        ">" if row.rung == chosen else "",
        words.title(row.rung),
        "yes" if row.possible else "no",
        f"{_gib(memory.low_bytes)}-{_gib(memory.high_bytes)}",
        _gib(row.least.memory.high_bytes),
        count_text(rates[1]) if rates and row.possible else "-",
        hours_text(row.hours) if row.possible else "-",
    )


def _batch(fit: Fit) -> str:
    """Like "2 x 8 rows, kept", or "1 x 2 x 8 rows, recomputed, fsdp"."""
    plan = fit.plan
    counts = [plan.micro_batch, plan.accumulation, *([plan.num_gpus] * (plan.num_gpus > 1))]
    how = "recomputed" if plan.checkpointing else "kept"
    spread = f", {plan.engine.name}" if plan.engine.several else ""
    return f"{' x '.join(map(str, counts))} rows, {how}{spread}"


def _gib(num_bytes: int) -> str:
    value = num_bytes / GIB
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def hours_text(hours: float | None) -> str:
    """Like 0.25, 3.1 or 410."""
    if hours is None:
        return "-"
    if hours < 0.01:
        return "<0.01"
    return f"{hours:.2f}" if hours < 1 else f"{hours:.1f}" if hours < 100 else f"{hours:.0f}"


def _device(found: Recommendation) -> str:
    """What there would have to be more of."""
    return "per device" if found.machine.gpus else "RAM"


def _reason(row: Alternative, device: str) -> str:
    """Why it was not chosen; that device memory is short can be read from the row."""
    if row.possible:
        return row.why_not
    would = _would_fit(row, device)
    reason = words.host_need(row.fit) if would and row.fit.short_bytes else row.why_not
    return "; ".join(part for part in (reason, would) if part)


def _would_fit(row: Alternative, device: str, most: int | None = None) -> str:
    """What would do, each way on its own, the cheapest first."""
    ways = [_words(way, row.fit, device) for way in row.unlocks[:most]]
    return f"would fit with {', or '.join(ways)}" if ways else ""


def above(found: Recommendation, *, most: int | None = None) -> str:
    """Why not the next larger method; empty if that fits too, or if nothing is larger.

    The advisor's own sentence repeats what is free; here the numbers of the row are enough.
    """
    row = next((row for row in found.alternatives if row.is_above), None)
    if row is None:
        return ""
    need = [f"needs up to {bytes_text(row.fit.memory.high_bytes)}"]
    need += [also] if (also := words.host_need(row.fit)) else []
    reason = ", and ".join(need) if row.fit.short_bytes else row.why_not
    parts = [reason, _would_fit(row, _device(found), most)]
    return f"not {words.title(row.rung)}: {'; '.join(part for part in parts if part)}"


def _words(way: Unlock, fit: Fit, device: str) -> str:
    """Shorter than the advisor's own: what takes the most is told by --explain."""
    if way.kind != "memory":
        return way.words
    return " and ".join([f"{bytes_text(way.value)} more {device}", *words.more_host(fit)])
