"""Q07: adapters that did not move, and those that run away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advisor.rules.case import Finding
from advisor.rules.quality.training import Training
from profiles.quantities import some_of

if TYPE_CHECKING:
    from profiles.layer_facts import AdapterNorms

_MOST = 5
"""Adapters that are named."""
_FIRST_STEP = 10
"""Before it a warm-up has hardly begun. A heuristic."""
_LARGE = 1.0
"""Of the norm of the weight: such an update stands in its place."""


def check(training: Training) -> Finding | None:
    """Fires on adapters that are where they began, and on those far ahead of the other layers'."""
    norms = training.layers.norms
    if norms is None or (norms.step < _FIRST_STEP and not training.curves.is_over):
        return None
    if len(norms.unmoved) == norms.num_adapters:
        return _none_moved(training, norms)
    ahead, unmoved = norms.running_away or _larger_than_weights(norms), norms.unmoved
    if not ahead and not unmoved:
        return None
    told = []
    if norms.running_away:
        told.append(f"{_named(ahead)} moved 8 times as far as in the other layers, or farther")
    elif ahead:
        told.append(f"{_named(ahead)} learnt more than the weight holds that it is added to")
    if unmoved:
        told.append(f"{_named(unmoved)} did not move: nothing reaches it, or it is rounded away")
    return Finding(
        id="Q07",
        title="a layer runs away" if ahead else "adapters that did not move",
        severity="warning",
        confidence="exact",
        sentence=f"by step {norms.step} " + "; ".join(told),
        evidence={"unmoved": len(unmoved), "far_ahead": len(ahead)},
        change=training.lower_rate if ahead else {},
        side_effects="training takes smaller steps" if ahead else "none, for nothing is changed",
    )


def _none_moved(training: Training, norms: AdapterNorms) -> Finding:
    change: dict[str, tuple[Any, Any]] = {}
    precision = training.recipe.train.precision
    if precision == "bf16_pure":  # whose steps are lost where they are below 1 / 256 of a weight
        change = {"train.precision": (precision, "bf16")}
    return Finding(
        id="Q07",
        title="no adapter moved",
        severity="critical",
        confidence="exact",
        sentence=f"by step {norms.step} all {norms.num_adapters} adapters are where they began: "
        "the learning rate is too small, no gradient reaches them, or 16 bits round it away",
        evidence={"unmoved": norms.num_adapters},
        change=change,
        side_effects="adapters take twice the memory" if change else "none, nothing is changed",
    )


def _larger_than_weights(norms: AdapterNorms) -> tuple[tuple[int, str], ...]:
    return tuple(
        (layer, one.name)
        for one in norms.linears
        for layer, share in zip(one.layers, one.relative, strict=False)  # empty if not measured
        if share is not None and share >= _LARGE
    )


def _named(places: tuple[tuple[int, str], ...]) -> str:
    names = [f"layer {layer} {name}" if layer >= 0 else name for layer, name in places]
    return f"the adapter of {some_of(names, _MOST)}"
