"""From the tree's leaf to a rung that can be had: the first that fits, and the first that runs.

A leaf that does not fit is never recommended; the ladder goes on from it, with the reason. What is
recommended may be something that this version does not run yet: the nearest that it runs is found
beside it.
"""

from __future__ import annotations

from advisor.choice import words
from advisor.choice.fit import Fit
from advisor.choice.ladder import NEAREST, steps
from advisor.choice.options import Options
from advisor.choice.tree import LORA_EXPERTS, UPCYCLED, Leaf
from advisor.registry.lookup import is_ready, preset_of


def fall_back(leaf: Leaf, options: Options) -> tuple[str | None, str]:
    """The rung to take for a leaf, and why it is not the leaf's first if it is another."""
    first = leaf.methods[0]
    reason = options.obstacle(first)
    if not reason:
        return first, ""
    for rung in (*leaf.methods[1:], *_below(leaf)):
        if not options.obstacle(rung):
            return rung, words.not_the_leaf(first, reason, rung)
    return None, _nothing(options)


def _below(leaf: Leaf) -> tuple[str, ...]:
    """The rest of the ladder, from the leaf down; what is not on it stands at LoRA's height."""
    ladder = steps()
    first = next((rung for rung in leaf.methods if rung in ladder), NEAREST)
    instead = LORA_EXPERTS.methods if leaf == UPCYCLED else ()
    return (*instead, *ladder[ladder.index(first) :])


def smallest(options: Options) -> str:
    """The rung that comes nearest to fitting."""
    possible = [rung for rung in steps() if rung in options.rungs]
    return min(possible, key=lambda rung: options.fit(rung).missing_bytes)


def _nothing(options: Options) -> str:
    rung = smallest(options)
    return words.nothing_fits(rung, options.obstacle(rung), unlock_words(rung, options))


def nearest_that_runs(rung: str, options: Options) -> tuple[str, Fit] | None:
    """The rung itself if our runner can run it, else the nearest down, then up, the ladder."""
    ladder = steps()
    at = ladder.index(rung if rung in ladder else NEAREST)
    for other in dict.fromkeys((rung, *ladder[at:], *reversed(ladder[:at]))):
        if other not in options.rungs or not is_ready(preset_of(other)):
            continue
        found = options.fit_that_runs(other)
        if found and found.fits:
            return other, found
    return None


def unlock_words(rung: str, options: Options) -> str:
    """What would make a rung possible, in one line."""
    ways = options.unlocks(rung)
    return "it would fit with " + ", or ".join(way.words for way in ways) if ways else ""


def obstructed_above(rung: str | None, options: Options) -> str | None:
    """The next rung above that this model could have; None if there is none or it is possible."""
    ladder = steps()
    if rung is None or rung == ladder[0]:
        return None
    above = ladder[: ladder.index(rung)] if rung in ladder else (NEAREST,)
    nearest = next((other for other in reversed(above) if other in options.rungs), None)
    return nearest if nearest and options.obstacle(nearest) else None


def why_not_above(rung: str | None, options: Options) -> str:
    """Why not the next rung above that this model could have, and what would unlock it."""
    other = obstructed_above(rung, options)
    if other is None:
        return ""
    return words.above(other, options.obstacle(other), unlock_words(other, options))
