"""A rehearsal as lines: both levels of the estimate and their difference, or level 2 alone."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.choice.fit import Fit
from profiles.facts import GIB, Model
from profiles.quantities import bytes_text, count_text, duration_text
from runner.rehearsal.results import Rehearsed, Tried
from tui.pages.model import size
from tui.plain import facts, table, wrap

_MOMENTS = {
    "forward": "forward pass and loss",
    "loss_backward": "loss's backward pass",
    "layer_backward": "layers' backward pass",
    "optimizer_step": "optimizer's step",
}


def lines(found: Rehearsed, fit: Fit, width: int) -> list[str]:
    """The table of moments, and what it means for the device."""
    plan = found.plan
    batch = f"{plan.method.name}, {plan.micro_batch} x {count_text(plan.seq_len)} tokens"
    how = f"the model's own code, on tensors without memory ({batch})"
    took = f"rehearsed in {duration_text(found.seconds)}"
    return [
        "",
        *wrap(f"level 2, {took}: {how}", width, indent="  ", first=""),
        *_moments(found),
        *wrap(_verdict(found, fit), width, indent="  "),
    ]


def _moments(found: Rehearsed) -> list[str]:
    formula = found.formula_moments
    header = ("torch's own count", "formula", "rehearsed", "difference")
    rows = [
        _row(title, formula.get(name), found.moments.get(name, 0))
        for name, title in _MOMENTS.items()
    ]
    allocated = found.formula.allocated_bytes if found.formula else None
    rows.append(_row("peak", allocated, found.peak_bytes))
    return table(rows, header=header, indent="  ", right=range(1, 4))


def _row(name: str, formula: int | None, rehearsed: int) -> tuple[str, str, str, str]:
    if not formula:
        return name, "-", bytes_text(rehearsed), "-"
    percent = round(100 * (rehearsed / formula - 1), 1) or 0.0  # no "-0.0"
    return name, bytes_text(formula), bytes_text(rehearsed), f"{percent:+.1f} %"


def _verdict(found: Rehearsed, fit: Fit) -> str:
    if found.asked != fit.plan:
        return "this is what a saved recipe would run; the recommended plan has no rehearsal"
    use = found.on_device(fit)
    if use is None:
        return "both are of the whole model on one device; the plan divides it"
    verdict = "it fits" if use.fits else "it does NOT fit"
    ends = f"{bytes_text(use.low_bytes)} to {bytes_text(use.high_bytes)}"
    span = f"{ends} of {bytes_text(use.free_bytes)} free"
    return f"on the device, with what lies outside torch's count: {span}: {verdict}"


def unmodelled(model: Model, tried: Sequence[Tried], where: str, width: int) -> list[str]:
    """Each method rehearsed with the least memory, where no formula holds."""
    rows = [_tried(one) for one in tried]
    seq_len = tried[0].plan.seq_len
    return [
        *facts(
            [
                ("model", f"{model.id} ({size(model)}) on {where}"),
                ("formula", f"none holds: {model.unmodelled}"),
                ("rehearsed", f"one row of {count_text(seq_len)} tokens, activations recomputed"),
                ("free", bytes_text(tried[0].free_bytes)),
            ],
            width,
        ),
        "",
        *table(rows, header=("method", "fits", "peak, GiB", ""), indent="  ", width=width),
        "",
        *wrap(
            "Level 2 counts bytes exactly and knows nothing of time: tokens/s, a batch and a "
            "recipe need the formula.",
            width,
        ),
    ]


def _tried(one: Tried) -> tuple[str, str, str, str]:
    rank = one.plan.method.in_short(one.plan.settings)
    name = f"{one.plan.method.title} {rank}".rstrip()
    if one.rehearsed is None:
        return name, "no", "", f"{one.why}: not rehearsed"
    assert one.device is not None
    peak = f"{one.device.low_bytes / GIB:.1f}-{one.device.high_bytes / GIB:.1f}"
    when = f"the peak comes in the {_MOMENTS[one.rehearsed.winner]}"
    took = f"took {duration_text(one.rehearsed.seconds)}"
    return name, "yes" if one.fits else "no", peak, f"{when}; {took}"
