"""The bottleneck report as lines and as Markdown."""

from __future__ import annotations

from advisor.findings import Report, terms_of_peak
from advisor.rules.case import Finding
from profiles.quantities import bytes_text, count_text, duration_text, percent_text
from profiles.run_facts import Parent, Run
from profiles.runs import advice, parents
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, Status
from tui.pages import classes, layers, ranks, result
from tui.plain import facts, wrap
from tui.plain_bars import stacked
from tui.terminal import Symbols, clean

_SAMPLE_WIDTH = 400
_TITLE = "# Bottleneck report"
_USES = {"continue": "trained on", "merge": "merged into the model first"}
"""What became of an adapter."""


def lines(report: Report, width: int, symbols: Symbols) -> list[str]:
    """The report for a terminal."""
    run, found = report.run, (*report.quality, *report.findings)
    return [
        *wrap(f"model: {result.sentence(run.result)}", width, indent="  ", first=""),
        *wrap(f"time: {report.verdict}", width, indent="  ", first=""),
        *(["  (few steady steps: the rates are rough)"] if report.low_confidence else []),
        *(classes.lines(run.result.classes, width) if run.result.classes else []),
        *(ranks.lines(run.ranks, width) if run.ranks else []),
        *layers.lines(run.layers, width),
        "",
        *_summary(run, width),
        "",
        "time of a steady step, " + duration_text(run.step_seconds),
        *stacked(list(report.phase_shares), width, symbols),
        "",
        f"training time, {duration_text(run.wall_seconds)}",
        *stacked(list(report.wall_shares), width, symbols),
        "",
        *_memory(report, width, symbols),
        "",
        "findings" if found else "findings: none of the rules fired",
        *[line for finding in found for line in _finding(finding, width)],
        *_not_measured(report, width),
        *_samples(run, width),
    ]


def ending(run: RunDir, now: Status) -> str:
    """Like "killed at step 123 of 200; `advisor resume ID` goes on from step 120"."""
    of = f" of {now.num_steps}" if now.num_steps else ""
    text = f"{now.state} at step {now.step}{of}"
    if now.state.is_over and now.state is not State.FINISHED:
        is_damaged = now.state is State.DAMAGED
        ways = advice.of_damaged(run) if is_damaged else advice.going_on(run, now.resumable_from)
        text += f"; {ways}"
    return text


def _summary(run: Run, width: int) -> list[str]:
    padding = 1 - run.tokens / run.padded_tokens if run.padded_tokens else 0.0
    rates = (
        f"{count_text(run.tokens_per_second)} in steps, "
        f"{count_text(run.wall_tokens_per_second)} over the whole training"
    )
    labels = run.label_tokens / run.tokens if run.tokens else 0.0
    return facts(
        [
            ("run", run.id),
            ("begun with", "; ".join(map(_parent, run.parents))),
            ("steps", f"{run.num_steps} on {run.device}, rates from {run.num_steady_steps}"),
            ("data", _data(run)),
            (
                "tokens",
                f"{count_text(run.tokens)} read in these steps, {percent_text(labels)} learnt",
            ),
            ("router", _router(run)),
            ("penalty", _penalty(run)),
            ("smoothing", _smoothing(run)),
            ("packing", run.unpacked),
            ("padding", f"{percent_text(padding)} of what was processed"),
            ("tokens/s", rates),
            ("throttled", _throttling(run)),
        ],
        width,
    )


def _data(run: Run) -> str:
    """The rows as `advisor data check` counts them, those that were held out included."""
    if run.rows is None:
        return ""
    told = [f"{count_text(run.rows.num_rows)} rows, {run.rows.words}"]
    told += filter(None, [run.rows.losses("data.max_length"), *run.of_template])
    return "; ".join(told)


def _parent(one: Parent) -> str:
    """The run, whose weights, what became of them, and what that run began with."""
    told = [one.words, f"step {count_text(one.step)}", _USES.get(one.use, ""), parents.since(one)]
    told += [f"begun with that of {name}" for name in one.ancestors]
    return ", ".join(filter(None, told))


def _router(run: Run) -> str:
    if run.router_loss is None:
        return ""
    return f"{run.router_loss:.4f} of its own loss was minimised beside the text's, which is shown"


def _penalty(run: Run) -> str:
    if run.penalty_loss is None:
        return ""
    return f"{run.penalty_loss:.4f} on the trained weights was minimised beside the rows' loss"


def _smoothing(run: Run) -> str:
    if run.smoothing_loss is None:
        return ""
    return f"label smoothing added {run.smoothing_loss:.4f} to the loss, which is shown without it"


def _throttling(run: Run) -> str:
    return ", ".join(f"{name} {percent_text(s)}" for name, s in run.throttle_shares.items())


def _memory(report: Report, width: int, symbols: Symbols) -> list[str]:
    run, estimate = report.run, report.memory
    kind = "process" if run.device == "cpu" else "allocated on the GPU"
    moment = estimate.winner.replace("_", " ")
    head = f"memory, {kind}: peak {bytes_text(run.peak_bytes)}; parts predicted at the {moment}"
    names = {"context": "process"} if run.device == "cpu" else {}
    parts = [
        (names.get(t.component, t.component), float(t.num_bytes)) for t in terms_of_peak(report)
    ]
    found = [*wrap(head, width), *stacked(parts, width, symbols, bytes_text)]
    if report.unexplained_bytes < 0:
        over = bytes_text(-report.unexplained_bytes)
        found.append(f"the prediction was {over} above the measured peak")
    return found


def _finding(found: Finding, width: int) -> list[str]:
    head = f"{found.id} {found.severity}: {found.sentence}"
    result = wrap(head, width, indent="      ", first="  ")
    for key, (old, new) in found.change.items():
        before = "default" if old is None else old
        result += wrap(f"change {key}: {before} -> {new}", width, indent="        ", first="      ")
    result += wrap(gain(found), width, indent="        ", first="      ")
    result += wrap(f"side effects: {found.side_effects}", width, indent="        ", first="      ")
    return result


def gain(found: Finding) -> str:
    """Like "predicted: 12 % to 30 % less time, 1.2 GiB less memory (exact)"."""
    parts = []
    least, _, most = (1 - factor for factor in found.time_factor)
    if least == most and least != 0:
        parts.append(f"{percent_text(abs(least))} {'less' if least > 0 else 'more'} time")
    elif most > 0:
        parts.append(f"{percent_text(max(0.0, least))} to {percent_text(most)} less time")
    elif least < 0:
        parts.append(f"up to {percent_text(-least)} more time")
    if found.peak_delta_bytes:
        word = "less" if found.peak_delta_bytes < 0 else "more"
        parts.append(f"{bytes_text(abs(found.peak_delta_bytes))} {word} memory")
    return f"predicted: {', '.join(parts) or 'no gain in numbers'} ({found.confidence})"


def _not_measured(report: Report, width: int) -> list[str]:
    found = ["", "not measured"] if report.not_measured else []
    for text in report.not_measured:
        found += wrap(text, width, indent="    ", first="  ")
    return found


def _samples(run: Run, width: int) -> list[str]:
    found: list[str] = []
    for sample in run.samples:
        found += [
            "",
            *wrap(clean(sample.prompt, _SAMPLE_WIDTH), width, indent=" " * 8, first="asked:  "),
        ]
        answers = (("wanted", sample.wanted), ("before", sample.before), ("after", sample.after))
        for name, text in answers:
            if text is not None:
                shown = clean(text, _SAMPLE_WIDTH) or "(nothing)"
                found += wrap(shown, width, indent=" " * 8, first=f"{name + ':':<8}")
    return ["", "answers to held-out prompts", *found[1:]] if found else []


def markdown(report: Report) -> str:
    """The report as Markdown; what comes from data is fenced, so it cannot be markup."""
    body = "\n".join(lines(report, 100, Symbols.BLOCK)).replace("```", "'''")
    return f"{_TITLE}\n\n```text\n{body}\n```\n"


def is_markdown(text: str) -> bool:
    """Whether a text is such a report, with what its reader may have added below the title."""
    return text.startswith(_TITLE)
