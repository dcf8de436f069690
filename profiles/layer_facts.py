"""What the layers of a model do in training: where tokens go, and how far adapters have moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Final

_SURE: Final = 32.0
"""Tokens that an even share has to have before it means anything that an expert got none: by chance
alone that has a probability of e^-32."""
_OVERLOADED: Final = 4.0
"""Times the even share, as in the reference on bottlenecks (B17)."""
_NEARLY_ALL: Final = 0.9
"""Of all tokens: where few experts are, none can have four times its share."""
_UNMOVED: Final = 1e-3
"""Of the median of the other layers: such an adapter is taken for one that did not move, and"""
_AHEAD: Final = 8.0
"""times it for one that runs away. Heuristics, and so is"""
_FEWEST_LAYERS: Final = 4
"""whose median says anything."""
_COLLAPSED: Final = 1 / 8
"""Of `spread`. A heuristic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertUse:
    """How the tokens of some steps went through the experts of one layer, padding left out."""

    layer: int
    tokens: int
    """That came to the router."""
    counts: tuple[int, ...]
    """Of them, by expert; a token goes to several experts."""
    entropy: float | None
    """Of the router's probabilities for a token, the mean over tokens, in nats; None if it was not
    finite."""

    @property
    def loads(self) -> tuple[float, ...]:
        """By expert, times the even share; 1 everywhere is balance."""
        whole = sum(self.counts)
        return tuple(n * len(self.counts) / whole if whole else 0.0 for n in self.counts)

    @property
    def top_k(self) -> float:
        """Experts that a token goes to."""
        return sum(self.counts) / self.tokens if self.tokens else 0.0

    @property
    def dead(self) -> tuple[int, ...]:
        """Experts that got no token, of as many as cannot be chance."""
        if sum(self.counts) < _SURE * len(self.counts):
            return ()
        return tuple(number for number, count in enumerate(self.counts) if not count)

    @property
    def overloaded(self) -> tuple[int, ...]:
        """Experts with four times their even share, or with nearly all tokens."""
        if self.top_k >= len(self.counts):  # all go everywhere
            return ()
        limit = min(_OVERLOADED, _NEARLY_ALL * len(self.counts) / max(1.0, self.top_k))
        return tuple(number for number, load in enumerate(self.loads) if load >= limit)

    @property
    def spread(self) -> float:
        """From 0, all tokens go to the same few experts, to 1, all experts get as many.

        Where between the k that a token goes to and all E lies the number of experts in use, which
        is the exponential of the entropy of their shares.
        """
        whole, least = sum(self.counts), max(1.0, self.top_k)
        if not whole or least >= len(self.counts):
            return 1.0
        shares = [count / whole for count in self.counts if count]
        used = math.exp(-sum(share * math.log(share) for share in shares))
        return min(1.0, max(0.0, (used - least) / (len(self.counts) - least)))

    @property
    def is_collapsed(self) -> bool:
        """Nearly all tokens go to the same few experts."""
        return sum(self.counts) >= _SURE * len(self.counts) and self.spread < _COLLAPSED

    @property
    def entropy_share(self) -> float | None:
        """Of the largest that there is, that of a router which does not choose."""
        if self.entropy is None or len(self.counts) < 2:  # one is no choice
            return None
        return self.entropy / math.log(len(self.counts))


def together(first: ExpertUse, second: ExpertUse) -> ExpertUse:
    """The same layer over both; ValueError if they have not as many experts."""
    tokens, entropy = first.tokens + second.tokens, None
    if first.entropy is not None and second.entropy is not None and tokens:
        entropy = (first.entropy * first.tokens + second.entropy * second.tokens) / tokens
    return ExpertUse(
        layer=first.layer,
        tokens=tokens,
        counts=tuple(a + b for a, b in zip(first.counts, second.counts, strict=True)),
        entropy=entropy,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The use of experts in the layers of a model."""

    since: int
    """Steps before those that it is of, and"""
    step: int
    """the last one of them."""
    layers: tuple[ExpertUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearNorms:
    """How far the adapters of all linears of one name have moved from where they began.

    The Frobenius norm of what each adds to its linear's weight: |scale B A|, of an adapter that
    begins with a part of the weight less that part; DoRA's magnitudes left out.
    """

    name: str
    """Like "self_attn.q_proj"."""
    layers: tuple[int, ...]
    """Of the adapters, in order; -1 for one that is in no layer."""
    norms: tuple[float | None, ...]
    """None if it was not finite."""
    relative: tuple[float | None, ...] = ()
    """To the norm of the weight; empty where that was not measured."""

    @property
    def middle(self) -> float | None:
        """The median of the norms."""
        finite = [norm for norm in self.norms if norm is not None]
        return median(finite) if finite else None

    def between(self, least: float, most: float) -> list[tuple[int, str]]:
        """Layer and name of the adapters whose norm is within the bounds."""
        pairs = zip(self.layers, self.norms, strict=True)
        return [(n, self.name) for n, norm in pairs if norm is not None and least <= norm <= most]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterNorms:
    """The norms of all adapters after a step."""

    step: int
    linears: tuple[LinearNorms, ...]

    @property
    def unmoved(self) -> tuple[tuple[int, str], ...]:
        """Layer and name of the adapters that are where they began, or nearly."""
        places: list[tuple[int, str]] = []
        for one in self.linears:
            places += one.between(0.0, (one.middle or 0.0) * _UNMOVED)
        return tuple(places)

    @property
    def running_away(self) -> tuple[tuple[int, str], ...]:
        """Layer and name of the adapters far ahead of those of the other layers."""
        places: list[tuple[int, str]] = []
        for one in self.linears:
            if one.middle and len(one.layers) >= _FEWEST_LAYERS:
                places += one.between(one.middle * _AHEAD, math.inf)
        return tuple(places)

    @property
    def num_adapters(self) -> int:
        """In all linears."""
        return sum(len(one.layers) for one in self.linears)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What is known of the layers of a run."""

    routing: Routing | None = None
    """Of the newest steps."""
    first_routing: Routing | None = None
    """Of the first steps that there are records of."""
    norms: AdapterNorms | None = None
    """The newest."""


NO_LAYERS: Final = Layers()
