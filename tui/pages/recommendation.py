"""The recommendation as lines: the answer first, then why, then what else there is."""

from __future__ import annotations

from advisor import words
from advisor.recommend import RUNNABLE, Alternative, Recommendation
from tui.plain import facts, table, wrap
from tui.plain_bars import stacked
from tui.terminal import Symbols, bytes_text, count_text, duration_text, percent_text


def lines(found: Recommendation, width: int, symbols: Symbols, *, explain: bool) -> list[str]:
    """The whole page."""
    return [
        *_answer(found, width),
        "",
        *memory(found, width, symbols),
        "",
        "path through the decision tree",
        *path(found, width),
        "",
        "settings",
        *table([(s.name, s.value, s.reason) for s in found.settings], indent="  ", width=width),
        "",
        "every rung on this machine",
        *alternatives(found, width),
        *_details(found, explain=explain),
        *_warnings(found, width),
    ]


def headline(found: Recommendation) -> str:
    """One line: the method and what it costs."""
    if found.rung is None:
        return "nothing fits on this machine"
    plan = found.fit.plan
    rank = f" rank {plan.rank}" if plan.adapts else ""
    peak = bytes_text(found.fit.memory.expected_bytes)
    return f"{words.RUNGS[found.rung]}{rank}, about {peak} at the peak"


def _answer(found: Recommendation, width: int) -> list[str]:
    plan, speed = found.fit.plan, found.fit.speed
    where = (
        f"{len(found.machine.gpus)}x {found.machine.gpus[0].name}" if found.machine.gpus else "CPU"
    )
    rate = "not known for this device"
    if speed is not None:
        low, high = speed.low_tokens_per_second, speed.high_tokens_per_second
        rate = (
            f"about {count_text(speed.tokens_per_second)} ({count_text(low)} to {count_text(high)})"
        )
    batch = (
        f"{plan.micro_batch} rows x {plan.accumulation} accumulated"
        f"{f' x {plan.num_gpus} GPUs' if plan.num_gpus > 1 else ''} = {plan.effective_batch}"
    )
    return facts(
        [
            ("recommended", headline(found)),
            ("for", f"{found.model.id} on {where}"),
            ("because", found.detour or f"the tree ends at: {found.leaf.name}"),
            ("batch", f"{batch}, rows of up to {plan.seq_len} tokens"),
            ("how", _how(found)),
            ("tokens/s", rate),
            ("time", duration_text(found.hours * 3600) if found.hours is not None else ""),
            ("disk", f"{bytes_text(found.disk_bytes)} for checkpoints and the result"),
        ],
        width,
    )


def _how(found: Recommendation) -> str:
    plan = found.fit.plan
    parts = [plan.precision, f"{plan.loss} loss", plan.optimizer]
    parts.append("activations recomputed" if plan.checkpointing else "activations kept")
    if plan.strategy != "single":
        parts.append(f"{plan.strategy} over {plan.num_gpus} GPUs")
    return ", ".join(parts)


def memory(found: Recommendation, width: int, symbols: Symbols) -> list[str]:
    """The bar by component at the winning moment, against what is free."""
    estimate, budget = found.fit.memory, found.fit.budget_bytes
    terms = sorted(estimate.terms, key=lambda t: t.num_bytes, reverse=True)
    # On a CPU there is no CUDA context: that term is the process with its libraries
    names = {} if found.machine.gpus else {"context": "process"}
    parts = [(names.get(t.component, t.component), float(t.num_bytes)) for t in terms]
    moment = estimate.winner.replace("_", " ")
    verdict = "fits" if found.fit.fits else "does NOT fit"
    span = f"{bytes_text(estimate.low_bytes)} to {bytes_text(estimate.high_bytes)}"
    head = f"memory at the {moment}: {span}, {verdict} in {bytes_text(budget)} free"
    share = f"({percent_text(estimate.high_bytes / max(1, budget))} at most)"
    return [*wrap(f"{head} {share}", width), *stacked(parts, width, symbols, bytes_text)]


def path(found: Recommendation, width: int) -> list[str]:
    """Each question with its answer, and where the answer came from."""
    steps: list[str] = []
    for step in found.path:
        steps += wrap(f"{step.question} {step.answer.upper()}", width, indent="    ", first="  ")
        steps += wrap(f"{step.origin}: {step.evidence}", width, indent="      ", first="    ")
    return [*steps, *wrap(f"=> {found.leaf.name}", width, indent="     ", first="  ")]


def alternatives(found: Recommendation, width: int) -> list[str]:
    """A row a rung: whether it fits, what it would cost, and why it was not taken."""
    header = (" ", "method", "fits", "peak", "tokens/s", "why not")
    rows = [_row(rung, found.rung) for rung in found.alternatives]
    return table(rows, header=header, width=width)


def _row(rung: Alternative, chosen: str | None) -> tuple[str, ...]:
    mark = ">" if rung.rung == chosen else " "
    rate = count_text(rung.fit.speed.tokens_per_second) if rung.fit.speed else "?"
    reason = "; ".join(part for part in (rung.why_not, rung.unlock) if part)
    if rung.fit.plan.method not in RUNNABLE:
        reason = f"not run by this version; {reason}"
    peak = bytes_text(rung.fit.memory.expected_bytes)
    return mark, words.RUNGS[rung.rung], "yes" if rung.fits else "no", peak, rate, reason or "taken"


def _details(found: Recommendation, *, explain: bool) -> list[str]:
    if not explain:
        return []
    result = ["", "every term of the estimate"]
    for moment in found.fit.memory.moments:
        won = ", the peak" if moment.name == found.fit.memory.winner else ""
        result.append(f"  {moment.name.replace('_', ' ')}: {bytes_text(moment.total_bytes)}{won}")
        result += table(
            [(t.component, bytes_text(t.num_bytes)) for t in moment.terms], indent="    "
        )
    result += ["", "why the estimate is an interval"]
    return result + [f"  {reason}" for reason in found.fit.memory.reasons]


def _warnings(found: Recommendation, width: int) -> list[str]:
    result = [""] if found.warnings else []
    for warning in found.warnings:
        result += wrap(warning, width, indent="  ", first="! ")
    return result
