"""A rehearsal as lines: both levels of the estimate and their difference, or level 2 alone."""

from __future__ import annotations

from collections.abc import Sequence

from advisor.choice.fit import Fit
from profiles.facts import GIB, Model
from profiles.quantities import bytes_text, count_text, duration_text
from tui.pages.model import size
from tui.plain import facts, table, wrap
from tui.rehearsal import Rehearsed, Tried

_MOMENTS = {
    "forward": "forward pass and loss",
    "loss_backward": "loss's backward pass",
    "layer_backward": "layers' backward pass",
    "optimizer_step": "optimizer's step",
}
_NAMES = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA 4-bit"}


def lines(found: Rehearsed, fit: Fit, width: int) -> list[str]:
    """The table of moments, and what it means for the device."""
    plan = found.plan
    batch = f"{plan.method}, {plan.micro_batch} x {count_text(plan.seq_len)} tokens"
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
        _row(words, formula.get(name), found.moments.get(name, 0))
        for name, words in _MOMENTS.items()
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
    if found.plan.method != fit.plan.method:
        return "this is what a saved recipe would run; the recommended method has no rehearsal"
    if found.divided:
        return "both are of the whole model on one device; the plan divides it"
    low, high = found.on_device(fit.memory)
    verdict = "it fits" if high <= fit.budget_bytes else "it does NOT fit"
    span = f"{bytes_text(low)} to {bytes_text(high)} of {bytes_text(fit.budget_bytes)} free"
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
    rank = f" rank {one.plan.rank}" if one.plan.adapts else ""
    name = _NAMES[one.plan.method] + rank
    if one.rehearsed is None:
        return name, "no", "", f"{one.why}: not rehearsed"
    low, _, high = one.device_bytes
    when = f"the peak comes in the {_MOMENTS[one.rehearsed.winner]}"
    took = f"took {duration_text(one.rehearsed.seconds)}"
    return name, "yes" if one.fits else "no", f"{low / GIB:.1f}-{high / GIB:.1f}", f"{when}; {took}"
