"""What the layers of a model do: tables for the report, one line for a screen, and JSON."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from profiles.quantities import count_text, percent_text, some_of
from tui.plain import table, wrap
from tui.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiles.layer_facts import AdapterNorms, ExpertUse, Layers, Routing

_MOST_NAMED = 8
_MOST_CHARS = 28
"""Of a linear's name, from its end."""
_HEAD = ("layer", "in use", "busiest", "entropy", "")


def lines(found: Layers, width: int) -> list[str]:
    """The use of experts, and how far adapters have moved; nothing of what there is not."""
    experts = _experts(found.routing, width) if found.routing else []
    return experts + (_adapters(found.norms, width) if found.norms else [])


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


def _adapters(norms: AdapterNorms, width: int) -> list[str]:
    """The norms of each linear's adapters, layer by layer."""
    are_shares = all(one.relative for one in norms.linears)
    of = "in % of the norm of the weight that it is added to" if are_shares else "Frobenius"
    told = wrap(
        f"adapters: norm of what each has learnt by step {norms.step}, {of}; a linear, and its "
        "layers in their order",
        width,
        indent="  ",
        first="",
    )
    names = [clean(one.name, 200)[-_MOST_CHARS:] for one in norms.linears]
    label = max(map(len, names))
    for name, one in zip(names, norms.linears, strict=True):
        cells = [_cell(n, are_shares) for n in (one.relative if are_shares else one.norms)]
        told += _cells(f"  {name:<{label}}", cells, width)
    for what, places in (("did not move", norms.unmoved), ("far ahead", norms.running_away)):
        if places:
            named = places_text(places, _MOST_NAMED)
            told += wrap(f"{what}: {named}", width, indent="    ", first="  ")
    return ["", *told]


def _cell(value: float | None, are_shares: bool) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.3g}" if are_shares else f"{value:.3g}"


def _cells(head: str, cells: list[str], width: int) -> list[str]:
    """All of one width; further lines stand under the first."""
    each = max(map(len, cells)) + 1
    per_line = max(1, (width - len(head)) // each)
    return [
        (head if first == 0 else " " * len(head))
        + "".join(f"{cell:>{each}}" for cell in cells[first : first + per_line])
        for first in range(0, len(cells), per_line)
    ]


def places_text(places: Sequence[tuple[int, str]], most: int) -> str:
    """Like "layer 3 self_attn.q_proj, layer 4 mlp.up_proj and 5 more"."""
    return some_of([clean(f"layer {n} {name}" if n >= 0 else name, 80) for n, name in places], most)


def norms_line(norms: AdapterNorms) -> str:
    """Like "adapters: 0.8 % of the weights; 1 UNMOVED; most 2.1 % (layer 3 mlp.down_proj)"."""
    are_shares = all(one.relative for one in norms.linears)
    found = [
        (value, layer, one.name)
        for one in norms.linears
        for layer, value in zip(one.layers, one.relative if are_shares else one.norms, strict=True)
        if value is not None
    ]
    if not found:
        return "adapters: NO NORM IS FINITE"
    most, layer, name = max(found)
    middle = median(value for value, _, _ in found)
    unit, of = (" %", " of the weights") if are_shares else ("", "")
    told = [f"adapters: {_cell(middle, are_shares)}{unit}{of}"]
    for what, places in (("UNMOVED", norms.unmoved), ("FAR AHEAD", norms.running_away)):
        told += [f"{len(places)} {what}"] if places else []
    told.append(f"most {_cell(most, are_shares)}{unit} ({places_text([(layer, name)], 1)})")
    return "; ".join(told)


def rows(found: Layers) -> list[str]:
    """A line for each thing that is known."""
    experts = [routing_line(found.routing)] if found.routing else []
    return experts + ([norms_line(found.norms)] if found.norms else [])


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
    routing, norms = found.routing, found.norms
    return {
        "experts": None if routing is None else _experts_json(routing),
        "adapters": None if norms is None else _adapters_json(norms),
    }


def _adapters_json(norms: AdapterNorms) -> dict[str, Any]:
    return {
        "step": norms.step,
        "linears": norms.linears,
        "unmoved": norms.unmoved,
        "far_ahead": norms.running_away,
    }


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
