"""What each method trains, publishes and takes of a model that everybody knows: rows and JSON."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from advisor.choice import storage
from advisor.cost import memory, weights
from advisor.plan import Plan
from advisor.registry.conflicts import conflict, no_head, packed, recomputed
from advisor.registry.engines import SINGLE
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS, hands_to, is_ready
from advisor.registry.optimizers import ADAMW
from advisor.registry.tasks import SFT
from profiles.facts import GIB
from profiles.models import catalog
from profiles.quantities import bytes_text
from tui.plain import table, wrap

if TYPE_CHECKING:
    from advisor.registry.spec import MethodSpec
    from profiles.facts import Model

REFERENCES: Final = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-7B")
"""The first that a method can train."""
SEQ_LEN: Final = 2048
_HEADER: Final = ("", "trained", "%", "on disk", "GiB", "quality", "hands to")
_NOTE: Final = (
    f"computed for {REFERENCES[0]} at each method's defaults ({REFERENCES[1]} where marked *): "
    f"weights that train and their share, bytes published, and peak memory of one row of {SEQ_LEN} "
    "tokens with activations recomputed where the method can; quality: of full fine-tuning, as "
    "the documents quote it. merged: PEFT adds it to the model's weights, after which vLLM and "
    "llama.cpp (GGUF) take it like any model; this version itself converts nothing"
)


class Figures(NamedTuple):
    """Of a method at its defaults, for a model."""

    model: Model
    trained: int
    published_bytes: int
    low_bytes: int
    peak_bytes: int
    high_bytes: int

    @property
    def share(self) -> float:
        """Of the model's weights, those that train; more than are its own with a large addition."""
        return self.trained / self.model.num_params

    @property
    def percent(self) -> str:
        """Two figures: 100 %, 0.52 %, 0.0010 %."""
        percent = 100 * self.share
        return f"{percent:.0f} %" if percent >= 10 else f"{float(f'{percent:.2g}'):g} %"


@cache
def _references() -> tuple[Model, ...]:
    return tuple(found for name in REFERENCES if (found := catalog.find(name)))


def figures(spec: MethodSpec) -> Figures | None:
    """For the first reference that it can train, by the formula; None if it can train none."""
    settings = spec.settings()
    able = [one for one in _references() if not spec.unsupported(one, settings)]
    if not able:
        return None
    model = able[0]
    plan = Plan.of(spec.name, seq_len=SEQ_LEN, checkpointing=not recomputed(spec))
    found = memory.estimate(model, plan)
    return Figures(
        model=model,
        trained=weights.trained_params(model, plan),
        published_bytes=storage.published_bytes(model, plan),
        low_bytes=found.low_bytes,
        peak_bytes=found.expected_bytes,
        high_bytes=found.high_bytes,
    )


def count(number: int) -> str:
    """8.03 B, 41.9 M, 81.9 k: three figures."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def lines(width: int) -> list[str]:
    """A row of figures for each method that runs, under its family, and what they are."""
    shown = [(spec, found) for spec in METHODS if is_ready(spec) and (found := figures(spec))]
    order = list(dict.fromkeys(spec.family for spec, _ in shown))
    shown.sort(key=lambda pair: order.index(pair[0].family))
    rows = [_row(spec, found) for spec, found in shown]
    head, *body = table(rows, header=_HEADER[:-1], indent="  ", right={1, 2, 3, 4})
    start = max(map(len, [head, *body])) + 2
    result, family = ["what each trains and takes", f"{head.ljust(start)}{_HEADER[-1]}"], ""
    for (spec, _), line in zip(shown, body, strict=True):
        if spec.family != family:
            family = spec.family
            result.append(f"  {family}:")
        result += wrap(takers(spec), width, indent=" " * start, first=line.ljust(start))
    return [*result, "", *wrap(_NOTE, width)]


def _row(spec: MethodSpec, found: Figures) -> tuple[str, ...]:
    mark = "" if found.model is _references()[0] else " *"
    return (
        spec.name + mark,
        count(found.trained),
        found.percent.removesuffix(" %"),
        bytes_text(found.published_bytes),
        f"{found.peak_bytes / GIB:.1f}",
        spec.quoted.quality.partition(",")[0] if spec.quoted else "",
    )


def takers(spec: MethodSpec) -> str:
    """In short; that what is merged goes everywhere is told once."""
    found = [one for one in hands_to(spec) if one in spec.takers or "merged" not in spec.takers]
    whole = "model" in hands_to(spec)
    return "model, vLLM, GGUF" if whole else ", ".join(found) or "-"


def conflicts(spec: MethodSpec) -> Iterator[tuple[str, str]]:
    """(choice, why) of what does not go with it at its defaults, one after the other."""
    settings = spec.settings()
    for name, kinds in (("optimizer", OPTIMIZERS), ("engine", ENGINES), ("task", TASKS)):
        for other in kinds:
            told: dict[str, Any] = {"optimizer": ADAMW, "engine": SINGLE, "task": SFT, name: other}
            if why := conflict(spec, settings, **told) or no_head(spec, told["task"]):
                yield f"{name} {other.name}".replace("engine", "strategy"), why
    if why := packed(spec, settings):
        yield "packing", why
    if why := recomputed(spec):
        yield "checkpointing", why


def document(spec: MethodSpec) -> dict[str, Any]:
    """What the page says of a method, for scripts."""
    found, quoted = figures(spec), spec.quoted
    return {
        "family": spec.family,
        "needs": list(spec.needs),
        "hands_to": list(hands_to(spec)),
        "quoted": {"quality": quoted.quality, "memory": quoted.memory} if quoted else None,
        "reference": found
        and {
            "model": found.model.id,
            "seq_len": SEQ_LEN,
            "trained_params": found.trained,
            "trained_share": found.share,
            "published_bytes": found.published_bytes,
            "low_bytes": found.low_bytes,
            "peak_bytes": found.peak_bytes,
            "high_bytes": found.high_bytes,
        },
        "conflicts": [{"with": name, "why": why} for name, why in conflicts(spec)],
    }
