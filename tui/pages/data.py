"""A data set as lines."""

from __future__ import annotations

from profiles.facts import Dataset, Origin
from tui.plain import facts, wrap
from tui.terminal import bytes_text, count_text, percent_text


def lines(data: Dataset, width: int) -> list[str]:
    """Counts, lengths, and what to look at before training."""
    pairs = [
        ("data", data.path),
        ("format", data.format),
        ("rows", f"{count_text(data.num_rows)} usable, {bytes_text(data.num_bytes)}"),
        ("left out", f"{data.num_empty} without a reply" if data.num_empty else ""),
        ("repeated", f"{data.num_duplicates} exact duplicates" if data.num_duplicates else ""),
        ("tasks", str(data.num_tasks) if data.num_tasks > 1 else ""),
        ("sha256", data.sha256[:16]),
    ]
    if data.tokens is not None:
        stats = data.tokens
        how = "by the model's tokenizer" if stats.origin is Origin.MEASURED else "from characters"
        learnt = percent_text(stats.trainable_total / max(1, stats.total))
        middle = f"median {stats.median}, p95 {stats.p95}"
        pairs += [
            ("tokens", f"{count_text(stats.total)} ({how}), {learnt} learnt from"),
            ("a row", f"{stats.min} to {count_text(stats.max)} tokens, {middle}"),
        ]
    found = facts(pairs, width)
    for warning in data.warnings:
        found += wrap(warning, width, indent="  ", first="! ")
    return found
