"""Q06: a mixture's tokens go to few of its experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advisor.rules.case import Finding
from advisor.rules.quality.training import Training
from profiles.quantities import some_of

if TYPE_CHECKING:
    from profiles.layer_facts import ExpertUse, Routing

_MOST = 5
"""Layers that are named."""


def check(training: Training) -> Finding | None:
    """Fires on a layer that has collapsed, on experts without a token, on one with most of them.

    What was so in the first steps was so in the model, or is of the data; what came later the
    training did.
    """
    routing = training.layers.routing
    if routing is None:
        return None
    first = {use.layer: use for use in _layers(training.layers.first_routing)}
    collapsed = [use for use in routing.layers if use.is_collapsed]
    dead = [use for use in routing.layers if use.dead]
    if collapsed:
        return _collapsed(training, routing, collapsed, first)
    if dead:
        return _dead(training, routing, dead, first)
    busy = [use for use in routing.layers if use.overloaded]
    return _overloaded(routing, busy) if busy else None


def _layers(routing: Routing | None) -> tuple[ExpertUse, ...]:
    return routing.layers if routing else ()


def _collapsed(
    training: Training, routing: Routing, found: list[ExpertUse], first: dict[int, ExpertUse]
) -> Finding:
    new = [use for use in found if not (use.layer in first and first[use.layer].is_collapsed)]
    since = "at the beginning they did not" if new else "as they did at the beginning"
    return Finding(
        id="Q06",
        title="routing collapse",
        severity="critical" if new else "warning",
        confidence="exact",
        sentence=f"in {_named(new or found)} nearly all tokens go to the same few experts "
        f"({_steps(routing)}), {since}: the others learn nothing more. Freeze the router, weigh "
        "its balance more, or lower the learning rate",
        evidence=_evidence(routing),
        change=_change(training) if new else {},
        side_effects="less is learnt of where tokens go",
    )


def _dead(
    training: Training, routing: Routing, found: list[ExpertUse], first: dict[int, ExpertUse]
) -> Finding:
    new = [
        use for use in found if use.layer in first and set(use.dead) - set(first[use.layer].dead)
    ]
    told = new or found
    number = sum(len(use.dead) for use in told)
    since = "which had some at the beginning" if new else "as at the beginning"
    return Finding(
        id="Q06",
        title="dead experts",
        severity="warning" if new else "info",
        confidence="exact",
        sentence=f"{number} of {sum(len(use.counts) for use in told)} experts in {_named(told)} "
        f"got no token ({_steps(routing)}), {since}: they learn nothing",
        evidence=_evidence(routing),
        change=_change(training) if new else {},
        side_effects="less is learnt of where tokens go",
    )


def _overloaded(routing: Routing, found: list[ExpertUse]) -> Finding:
    worst = max(found, key=lambda use: max(use.loads))
    return Finding(
        id="Q06",
        title="overloaded experts",
        severity="info",
        confidence="exact",
        sentence=f"in {_named(found)} an expert has up to {max(worst.loads):.1f} times its even "
        f"share of the tokens ({_steps(routing)}): a router with a loss for balance spreads them",
        evidence=_evidence(routing),
    )


def _change(training: Training) -> dict[str, tuple[Any, Any]]:
    """A router that stays as it is, where the method leaves the choice; else smaller steps."""
    router = getattr(training.recipe.method.settings, "router", None)
    if router is not None and router != "frozen":
        return {"method.router": (router, "frozen")}
    return training.lower_rate


def _named(found: list[ExpertUse]) -> str:
    """Like "layers 3, 4 and 9"."""
    names = [str(use.layer) for use in found]
    return f"layer{'s' if len(names) > 1 else ''} {some_of(names, _MOST)}"


def _steps(routing: Routing) -> str:
    return f"steps {routing.since + 1} to {routing.step}"


def _evidence(routing: Routing) -> dict[str, float]:
    return {
        "dead_experts": sum(len(use.dead) for use in routing.layers),
        "overloaded_experts": sum(len(use.overloaded) for use in routing.layers),
        "collapsed_layers": sum(use.is_collapsed for use in routing.layers),
        "largest_load": max(max(use.loads) for use in routing.layers),
        "least_in_use": min(use.spread for use in routing.layers),
    }
