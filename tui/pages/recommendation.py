"""The recommendation as lines: the answer first, then why, then what else there is."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.choice import words
from advisor.choice.fit import Fit
from advisor.choice.ladder import trained_model
from advisor.choice.recommend import Choice, Recommendation
from advisor.choice.upcycle import NUM_EXPERTS
from advisor.cost.speed import cost
from advisor.registry.lookup import is_ready, preset_of
from advisor.registry.tasks import SFT
from profiles.facts import Machine, Model, Origin
from profiles.models.model import RUN
from profiles.quantities import bytes_text, count_text, duration_text
from tui.pages import alternatives, data, memory
from tui.pages.machine import names
from tui.pages.model import size
from tui.plain import facts, table, wrap
from tui.terminal import Symbols

if TYPE_CHECKING:
    from runner.rehearsal.results import Rehearsed


MIXTURE_SUFFIX: Final = f"-{NUM_EXPERTS}x"
"""Of the name of a mixture, after its dense model's."""


class Shown(NamedTuple):
    """What is on the page beside the recommendation itself; quicker to define than a dataclass."""

    explained: bool = False
    """Every term of the estimate."""
    rehearsed: Rehearsed | None = None
    price: float | None = None
    """Of the machine, per hour."""
    other_task: str = "--task"
    """How a person names another task."""


def lines(
    found: Recommendation, width: int, symbols: Symbols, shown: Shown | None = None
) -> list[str]:
    """The whole page."""
    shown = shown or Shown()
    on_gpu = bool(found.machine.gpus)
    free = bytes_text(found.fit.budget_bytes)
    each = " on each GPU" if len(found.machine.gpus) > 1 else ""
    return [
        *_answer(found, width, shown),
        "",
        *memory.lines(found.fit, width, symbols, on_gpu=on_gpu),
        *_rehearsed(found, shown, width),
        "",
        _way(found),
        *path(found, width),
        *_settings(found, width),
        "",
        f"every method on this machine, with {free} free{each}",
        *alternatives.legend(width),
        *alternatives.lines(found, width),
        *_explained(found, shown, width),
        *_warnings(found, width),
    ]


def _way(found: Recommendation) -> str:
    if found.leaf.domain is None:
        return "path through the decision tree"
    return "in place of a path through the decision tree"


def _use(found: Recommendation) -> str:
    domain = found.leaf.domain
    return f"{domain.title}; the documents take {domain.words}" if domain else ""


def _rehearsed(found: Recommendation, shown: Shown, width: int) -> list[str]:
    if shown.rehearsed is None:
        return []
    from tui.pages import rehearsal  # noqa: PLC0415  # few ask for it

    return rehearsal.lines(shown.rehearsed, found.fit, width)


def _explained(found: Recommendation, shown: Shown, width: int) -> list[str]:
    if not shown.explained:
        return []
    from tui.pages import explain  # noqa: PLC0415

    return explain.lines(
        trained_model(found.rung, found.model), found.fit, width, on_gpu=bool(found.machine.gpus)
    )


def headline(found: Recommendation) -> str:
    """One line: the method and what it costs."""
    if found.rung is None:
        return "nothing fits on this machine"
    return in_short(found.rung, found.fit)


def in_short(rung: str, fit: Fit) -> str:
    """Like "LoRA rank 8, about 17.8 GiB at the peak"."""
    name = " ".join(filter(None, (words.title(rung), fit.plan.method.in_short(fit.plan.settings))))
    return f"{name}, about {bytes_text(fit.memory.expected_bytes)} at the peak"


def _answer(found: Recommendation, width: int, shown: Shown) -> list[str]:
    pairs = [
        ("recommended", headline(found)),
        *_runner(found),
        ("first", _first(found)),
        *_task(found, shown.other_task),
        ("use", _use(found)),
        ("for", f"{found.model.id} ({size(found.model)}) on {machine_text(found.machine)}"),
        ("machine", "; ".join(found.machine.assumed)),
        ("because", found.detour or found.leaf.reason),
        ("why no more", alternatives.above(found)),
    ]
    if found.rung is None:
        return facts([*pairs, ("nearest", _nearest(found)), ("how", _how(found.fit))], width)
    return facts(
        [
            *pairs,
            ("data", _data(found)),
            ("split", data.split(found.dataset) if found.dataset else ""),
            ("batch", _batch(found.fit)),
            ("how", _how(found.fit)),
            ("tokens/s", _rate(found.fit)),
            ("time", _time(found)),
            ("cost", _cost(found, shown.price)),
            ("RAM", _ram(found)),
            ("disk", _disk(found)),
        ],
        width,
    )


def _data(found: Recommendation) -> str:
    """What is read and learnt of the rows at the recommended length; warnings tell what is lost."""
    if found.dataset is None or found.dataset.tokens is None:
        return ""
    tokens = found.dataset.tokens
    about = "" if tokens.origin is Origin.MEASURED else "about "
    counts = tokens.at(found.fit.plan.seq_len)
    return f"{count_text(counts.num_rows)} rows, {about}{counts.words}"


def _first(found: Recommendation) -> str:
    """What is to be made before anything can be trained."""
    if found.rung is None or not found.runs or not preset_of(found.rung).upcycles:
        return ""
    trained = size(trained_model(found.rung, found.model))
    command = upcycling(_named(found.model), mixture_path(found.model))
    return f"`{command}` makes the mixture that is trained ({trained})"


def upcycling(base: str, out: str) -> str:
    """The command that makes the mixture of a recommendation, which has the usual numbers."""
    return f"advisor upcycle {shlex.quote(base)} --out {shlex.quote(out)}"


def mixture_path(model: Model) -> str:
    """Where it lies if nobody says otherwise: beside the dense model, or by the name of its id."""
    return f"{_named(model).removeprefix(RUN)}{MIXTURE_SUFFIX}"


def _named(model: Model) -> str:
    is_of_run = model.id.startswith(RUN)
    return model.id if is_of_run or not model.path else model.path


def _task(found: Recommendation, other: str) -> list[tuple[str, str]]:
    """What is trained, and who said so, where it is not what is trained without a word."""
    task, answer = found.fit.plan.task, found.answers.task
    if answer.origin is Origin.DEFAULT or task is SFT:
        return []
    if answer.origin is Origin.USER or found.dataset is None:
        return [("task", task.title)]
    asks = f"{found.dataset.format} data asks for it"
    return [("task", f"{task.title}: {asks}; {other} names another")]


def _nearest(found: Recommendation) -> str:
    """What is drawn below it where nothing fits."""
    names = [words.title(row.rung) for row in found.alternatives if row.fit == found.fit]
    return f"{names[0]}; {_batch(found.fit)}" if names else _batch(found.fit)


def machine_text(machine: Machine) -> str:
    """Like "2 nodes of 8x H100"."""
    nodes = f"{machine.num_nodes} nodes of " if machine.num_nodes > 1 else ""
    return nodes + (names(machine) or "CPU")


def _runner(found: Recommendation) -> list[tuple[str, str]]:
    """Whether this version can run it, and which recipe is written if it cannot."""
    if found.rung is None or found.runs:
        return []
    if found.runnable is None:
        task = found.fit.plan.task
        reason = "this version cannot run it, and nothing that it can run fits"
        reason = reason if is_ready(task) else f"this version does not train {task.title} yet"
        return [("NOT YET", f"{reason}; no recipe is written")]
    return [("NOT YET", found.runnable.why), ("saved recipe", _recipe(found.runnable))]


def _recipe(choice: Choice) -> str:
    """What is written in place of what cannot be run: "QLoRA 4-bit rank 16, about 7 GiB..."."""
    rates = choice.fit.rates
    rate = f", about {count_text(rates[1])} tokens/s" if rates else ""
    return f"{in_short(choice.rung, choice.fit)}{rate}; {_batch(choice.fit)}"


def _batch(fit: Fit) -> str:
    """Like "16 rows a step (2 at a time x 8 accumulated), each of up to 2 048 tokens"."""
    plan = fit.plan
    parts = [f"{plan.micro_batch} at a time"]
    parts += [f"{plan.accumulation} accumulated"] if plan.accumulation > 1 else []
    parts += [f"{plan.num_gpus} GPUs"] if plan.num_gpus > 1 else []
    rows = "1 row" if plan.effective_batch == 1 else f"{plan.effective_batch} rows"
    how = f" ({' x '.join(parts)})" if len(parts) > 1 else ""
    return f"{rows} a step{how}, each of up to {count_text(plan.seq_len)} tokens"


def _how(fit: Fit) -> str:
    plan = fit.plan
    loss = [f"{plan.loss} loss"] if plan.task.head == "lm" else []  # others make no logits
    parts = [plan.precision, *loss, plan.optimizer.name]
    parts.append("activations recomputed" if plan.checkpointing else "activations kept")
    if plan.engine.several:
        parts.append(f"{plan.engine.name} over {plan.num_gpus} GPUs")
    if plan.offload:
        parts.append(f"{plan.offload} in RAM")
    return ", ".join(parts)


def _rate(fit: Fit) -> str:
    if fit.rates is None or fit.speed is None:
        return "not known for this device"
    low, expected, high = fit.rates
    rough = ", a rough guide" if fit.speed.rough else ""
    return f"about {count_text(expected)} ({count_text(low)} to {count_text(high)}{rough})"


def _time(found: Recommendation) -> str:
    if found.dataset is None:
        return "not known without --data"
    took = found.duration
    if took is None:
        return ""
    epochs = f"{found.epochs:g} epochs" if found.epochs != 1 else "1 epoch"
    rows = f"{count_text(found.dataset.num_rows)} rows"
    first = duration_text(took.until_first_step)
    return f"about {duration_text(took.seconds)} for {epochs} of {rows}; {first} to the first step"


def _cost(found: Recommendation, price: float | None) -> str:
    if price is None:
        return ""
    if found.hours is None:
        return f"not known without the time, at {price:g} per hour"
    return f"about {cost(found.hours, price):.2f}, at {price:g} per hour"


def _disk(found: Recommendation) -> str:
    download = ", the base model's download included" if not found.model.path else ""
    if found.rung and preset_of(found.rung).upcycles:
        download += " and the mixture" if download else ", the mixture included"
    told = f"{bytes_text(found.disk_bytes)} for checkpoints and the result{download}"
    free = bytes_text(found.fit.disk_budget_bytes)
    return f"{told}; {free} {_there(found.machine.disk_origin)}"


def _ram(found: Recommendation) -> str:
    """Nothing without a GPU: then it is the memory that is drawn."""
    fit = found.fit
    if not found.machine.gpus:
        return ""
    there = f"{bytes_text(fit.host_budget_bytes)} {_there(found.machine.ram_origin)}"
    return f"{bytes_text(fit.host_bytes)} at the most while it loads, trains or saves; {there}"


def _there(origin: Origin) -> str:
    return {Origin.DEFAULT: "assumed", Origin.MEASURED: "free"}.get(origin, "there")


def path(found: Recommendation, width: int) -> list[str]:
    """Each question with its answer, and where the answer came from."""
    steps: list[str] = []
    for step in found.path:
        steps += wrap(f"{step.question} {step.answer.upper()}", width, indent="    ", first="  ")
        steps += wrap(f"{step.origin}: {step.evidence}", width, indent="      ", first="    ")
    return [*steps, *wrap(f"=> {found.leaf.name}", width, indent="     ", first="  ")]


def _settings(found: Recommendation, width: int) -> list[str]:
    if found.rung is None:
        return []
    rows = [(s.name, s.value, s.reason) for s in found.hyperparameters]
    return ["", "settings to start from", *table(rows, indent="  ", width=width)]


def _warnings(found: Recommendation, width: int) -> list[str]:
    result = [""] if found.warnings else []
    for warning in found.warnings:
        result += wrap(warning, width, indent="  ", first="! ")
    return result
