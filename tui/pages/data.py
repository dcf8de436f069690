"""A data set as lines."""

from __future__ import annotations

from collections.abc import Iterable

from profiles.data.repeats import Likeness
from profiles.facts import Dataset, Model, Origin, TokenStats
from profiles.quantities import bytes_text, count_text, percent_text
from tui.plain import facts, wrap
from tui.terminal import clean

_MOST_COLUMNS = 12
_MOST_LABELS = 6
_LEAST_SHARE = 0.005


def lines(data: Dataset, width: int) -> list[str]:
    """Counts, lengths, and what to look at before training."""
    pairs = [
        ("data", data.path),
        ("format", ", ".join(filter(None, (data.format, data.container)))),
        ("rows", f"{count_text(data.num_rows)} usable, {bytes_text(data.num_bytes)}"),
        ("left out", _left_out(data)),
        ("tasks", str(data.num_tasks) if data.num_tasks > 1 else ""),
        ("columns", _columns(data)),
        ("labels", _labels(data)),
        *(_token_pairs(data.tokens) if data.tokens is not None else ()),
        ("split", split(data)),
        ("scripts", _scripts(data)),
        ("sha256", data.sha256[:16]),
    ]
    found = facts(pairs, width)
    for warning in data.warnings:
        found += wrap(clean(warning, 600), width, indent="  ", first="! ")
    return found


def split(data: Dataset) -> str:
    """How the rows of each value are divided, where a column is named to divide them by."""
    column = data.read_with.get("split_by")
    if not column:
        return ""
    from advisor.recipe_data import DataSection  # noqa: PLC0415  # pydantic, where it is asked for
    from runner.checks import splits  # noqa: PLC0415

    section = DataSection(train="rows.jsonl", split_by=column)
    few = "".join(f"; {told}" for told in splits.warnings(data, section))
    return splits.words(data, section).removeprefix("; ") + few


def beyond(lengths: Iterable[tuple[int, int]], model: Model, max_length: int | None) -> str:
    """That rows are longer than a model reads, where no lower length is asked for; else empty.

    `lengths`: tokens, and how many rows have as many.
    """
    limit, pairs = model.max_positions, list(lengths)
    longer = sum(rows for length, rows in pairs if length > limit)
    if not longer or limit <= 0 or (max_length is not None and max_length <= limit):
        return ""
    rows = f"{count_text(longer)} of {count_text(sum(rows for _, rows in pairs))} rows are longer"
    reads = f"than the {count_text(limit)} tokens that {model.id} reads"
    longest = max(length for length, _ in pairs)
    return f"{rows} {reads} (longest {longest}): --max-length {limit} tells what is cut off"


def verdict(data: Dataset, width: int) -> list[str]:
    """The last line: ready, or what keeps it from training."""
    if data.problem:
        text = f"not ready for training: {data.problem}"
        if data.num_untrainable * 2 > data.num_rows:
            text += "; raise --max-length or shorten the prompts"
    elif data.warnings:
        text = "ready for training; look at the points marked ! first"
    else:
        text = "ready for training"
    return wrap(text, width)


def leak_lines(leak: Likeness, train: str, held_out: Dataset, width: int) -> list[str]:
    """How much of the held-out file is trained on."""
    total = held_out.num_rows
    same = leak.exact if leak.exact.count else leak.near
    num_same = leak.exact.count + leak.near.count
    found = []
    if num_same:
        rows = f"{num_same} of {total} rows of {held_out.path} are also in {train}"
        place = f"first: line {same.line}, there line {same.other_line}"
        found.append(f"{rows} ({place}): their loss says nothing about new questions")
    if leak.prompt.count:
        one = leak.prompt
        rows = f"{one.count} of {total} rows of {held_out.path} ask what {train} also asks"
        found.append(f"{rows}, with another reply (first: line {one.line})")
    if not found:
        return wrap(f"no row of {held_out.path} is in {train}", width)
    return [line for text in found for line in wrap(text, width, indent="  ", first="! ")]


def _left_out(data: Dataset) -> str:
    parts = [f"{data.num_empty} without a reply"] if data.num_empty else []
    return ", ".join(parts + ([f"{data.num_bad} faulty"] if data.num_bad else []))


def _columns(data: Dataset) -> str:
    """Names by type, so that a row of texts is one list; mixed types are told one by one."""
    by_type: dict[str, list[str]] = {}
    for column in data.columns:
        kinds = " or ".join(name for name, _, _ in column.types)
        by_type.setdefault(kinds, []).append(clean(column.name, 40))
    parts = []
    for kinds, names in by_type.items():
        more = f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
        parts.append(f"{', '.join(names[:_MOST_COLUMNS])}{more}: {kinds}")
    return "; ".join(parts)


def _labels(data: Dataset) -> str:
    shown = [f"{clean(name, 30)} {count_text(num)}" for name, num in data.labels[:_MOST_LABELS]]
    more = len(data.labels) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _token_pairs(stats: TokenStats) -> list[tuple[str, str]]:
    how = "by the model's tokenizer" if stats.origin is Origin.MEASURED else "from characters"
    longest = f"{count_text(stats.max)} tokens"
    if stats.longest_line:
        longest += f" (the longest: line {stats.longest_line})"
    spread = f"median {count_text(stats.median)}, p95 {count_text(stats.p95)}"
    return [
        ("counts", f"{stats.counts.words}, {how}"),
        ("a row", f"{count_text(stats.min)} to {longest}, {spread}"),
    ]


def _scripts(data: Dataset) -> str:
    shown = [(name, share) for name, share in data.scripts if share >= _LEAST_SHARE]
    return ", ".join(f"{name} {percent_text(share)}" for name, share in shown)
