"""What the layers of a model do: tables for the report, one line for a screen, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiles.quantities import count_text, percent_text, some_of
from tui.plain import table, wrap

if TYPE_CHECKING:
    from profiles.layer_facts import ExpertUse, Layers, Routing

_MOST_NAMED = 8
_HEAD = ("layer", "in use", "busiest", "entropy", "")


def lines(found: Layers, width: int) -> list[str]:
    """The use of experts, a row for each layer; nothing for a dense model."""
    return _experts(found.routing, width) if found.routing else []


def _experts(routing: Routing, width: int) -> list[str]:
    tokens = max(use.tokens for use in routing.layers)
    told = (
        f"experts: where {count_text(tokens)} tokens of steps {routing.since + 1} to "
        f"{routing.step} went, padding left out; in use: from 0 %, all go to the same ones, to "
        "100 %, all experts get as many; busiest: times the even share; entropy: of the router's "
        "choice, 100 % if it does not choose"
    )
    rows = [_row(use) for use in routing.layers]
    return [
        "",
        *wrap(told, width, indent="  ", first=""),
        *table(rows, header=_HEAD, indent="  ", width=width, right=(0, 1, 3)),
    ]


def _row(use: ExpertUse) -> tuple[str, ...]:
    busiest = max(range(len(use.counts)), key=use.counts.__getitem__)
    entropy = use.entropy_share
    return (
        str(use.layer),
        percent_text(use.spread),
        f"{use.loads[busiest]:.1f} x, expert {busiest}",
        "" if entropy is None else percent_text(entropy),
        "; ".join(_troubles(use)),
    )


def _troubles(use: ExpertUse) -> list[str]:
    told = ["collapsed"] if use.is_collapsed else []
    for what, experts in (("dead", use.dead), ("overloaded", use.overloaded)):
        if experts:
            named = some_of([str(number) for number in experts], _MOST_NAMED)
            told.append(f"{len(experts)} {what}: {named}")
    return told


def routing_line(routing: Routing) -> str:
    """Like "experts: 3 dead in 2 of 32 layers, none collapsed, busiest 3.1 x (layer 9)"."""
    uses = routing.layers
    with_dead = [use for use in uses if use.dead]
    dead = sum(len(use.dead) for use in with_dead)
    collapsed = [str(use.layer) for use in uses if use.is_collapsed]
    busiest = max(uses, key=lambda use: max(use.loads))
    where = f" in {len(with_dead)} of {len(uses)} layers" if dead else ""
    gone = f"COLLAPSED in layer {some_of(collapsed, 3)}" if collapsed else "no layer collapsed"
    return (
        f"experts: {dead or 'none'} dead{where}, {gone}, busiest {max(busiest.loads):.1f} x "
        f"(layer {busiest.layer})"
    )


def as_json(found: Layers) -> dict[str, Any]:
    """What is known of the layers, judged as the tables judge it; null where nothing is."""
    routing = found.routing
    return {"experts": None if routing is None else _experts_json(routing)}


def _experts_json(routing: Routing) -> dict[str, Any]:
    return {
        "since": routing.since,
        "step": routing.step,
        "layers": [
            {
                "layer": use.layer,
                "tokens": use.tokens,
                "counts": use.counts,
                "dead": use.dead,
                "overloaded": use.overloaded,
                "in_use": round(use.spread, 4),
                "collapsed": use.is_collapsed,
                "entropy": use.entropy,
            }
            for use in routing.layers
        ],
    }
