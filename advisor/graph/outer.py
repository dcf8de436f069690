"""What of the embedding and the head trains, which every method has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from advisor.precision import outer_width, whole_width
from advisor.registry.beside import EMBEDDING, HEAD

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

Trains = Literal["", "rows", "whole"]
"""Nothing; rows of new tokens alone; the whole table, which beside adapters is a copy."""


class Outer(NamedTuple):
    """The tables outside of the layers."""

    embedding: Trains
    head: Trains
    """Of a head that is tied to the embedding, the same; empty for a head of a task."""
    width: int
    """Bytes of a weight that trains whole."""


def outer(model: Model, plan: Plan) -> Outer:
    """What trains of them under a plan."""
    method, has_head = plan.method, plan.task.head == "lm"
    if method.trains_base:
        embedding, head = method.trains_embedding, method.trains_embedding
        head |= not model.tied_embeddings
        return Outer("whole" if embedding else "", "whole" if head else "", outer_width(plan))
    rows: Trains = "rows" if plan.learns_rows else ""
    whole = plan.settings.whole_modules
    embedding, head = EMBEDDING in whole, HEAD in whole and has_head
    if model.tied_embeddings or not has_head:
        embedding = head = embedding or head
    of_head: Trains = ("whole" if head else rows) if has_head else ""
    return Outer("whole" if embedding else rows, of_head, whole_width(plan))


def reaches_input(model: Model, plan: Plan) -> bool:
    """The first layer's input needs a gradient, with activations kept or not."""
    return plan.method.reaches_input or outer(model, plan).embedding != ""
