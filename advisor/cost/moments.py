"""What is alive at the candidates for the peak of a training step, on one device.

Puts the profiles of layers, norm and head together with weights, gradients and optimizer states:
the end of the forward pass and the loss, the first and the last layer of the backward pass, the
embedding's gradient, the optimizer's step. Every candidate is a linear form, so one set serves all
batches. Which wins for a batch, and what lies outside torch's own count, is memory.py's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from advisor.cost.sharding import (
    gradients_here,
    paged_states,
)
from advisor.cost.standing import Candidate, Standing
from advisor.cost.weights import (
    cast_low_rank_params,
    embedding_params,
    gradient_bytes,
    num_embeddings,
    trained_linears,
    trained_params,
)
from advisor.graph.layer import any_batch
from advisor.graph.network import Layers
from advisor.graph.play import Profile
from advisor.precision import autocasts, outer_width, stream_width, trained_width
from advisor.tape import NOTHING, Size, once, per_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from advisor.plan import Plan
    from profiles.facts import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One share of a moment."""

    component: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What is alive, in torch's own count, at one candidate for the peak."""

    candidate: Candidate
    tokens: int
    row: int
    tile_bytes: int
    total_bytes: int

    @property
    def name(self) -> str:
        """Which instant it is."""
        return self.candidate.name

    @property
    def place(self) -> str:
        """The operation at work there."""
        return self.candidate.place

    @property
    def terms(self) -> tuple[Term, ...]:
        """The bytes by component."""
        shares = {k: v.at(self.tokens, self.row) for k, v in self.candidate.shares.items()}
        if self.candidate.has_tile:
            shares["logits"] += self.tile_bytes
        return tuple([Term(component=k, num_bytes=int(v)) for k, v in shares.items() if v >= 1])


def candidates(model: Model, plan: Plan) -> tuple[Candidate, ...]:
    """The instants that can be the peak for some batch; remembered for every other batch."""
    return _candidates(model, any_batch(model, plan))


@lru_cache(maxsize=4096)
def _candidates(model: Model, plan: Plan) -> tuple[Candidate, ...]:
    parts = Standing(model, plan)
    found = [*_loss(parts), *_norm(parts), *_layers(parts), _optimizer_step(parts)]
    if parts.outer.embedding:
        whole = parts.outer.embedding == "whole"
        found.append((_embedding if whole else _embedding_rows)(parts))
    return tuple(_not_exceeded(found))


def _not_exceeded(found: list[Candidate]) -> list[Candidate]:
    """Of each name, those that no other of that name exceeds in every part."""
    kept: list[Candidate] = []
    for new in sorted(found, key=lambda c: c.total, reverse=True):
        rivals = [c.total for c in kept if c.name == new.name and c.has_tile >= new.has_tile]
        if not any(
            new.total.per_token <= rival.per_token and new.total.per_pair <= rival.per_pair
            for rival in rivals
        ):
            kept.append(new)
    return kept


def _loss(parts: Standing) -> Iterator[Candidate]:
    """The head, forward and backward, while all layers wait with what they saved."""
    net = parts.network
    norm = parts.kept(net.norm)
    waiting = parts.saved.plus(parts.shared).plus(norm)
    kept = once(parts.gradients if parts.accumulates else 0.0)
    outside = once(parts.gathered.outside)
    hidden = net.norm.output
    for stage in net.loss.forward:
        yield parts.candidate(
            name="loss_forward",
            place=stage.name,
            has_tile=stage.name == "loss",
            gradients=kept,
            activations=waiting.plus(parts.cached),
            logits=stage.total.plus(hidden),
            workspace=once(_cached_casts(parts)),
            communication=outside,
        )
    hidden = hidden if net.loss.saves_input else NOTHING
    for stage in net.loss.backward:
        yield parts.candidate(
            name="loss_backward",
            place=stage.name,
            has_tile=stage.name == "loss",
            gradients=kept.plus(parts.own_gradients(stage)),
            activations=waiting,
            logits=stage.saved.plus(parts.work(stage)).plus(hidden),
            communication=once(parts.gathered.head),
        )


def _norm(parts: Standing) -> Iterator[Candidate]:
    """The final norm's backward pass; the head's gradient is there by then."""
    norm = parts.network.norm
    held = parts.entry if norm.saves_input else NOTHING
    for stage in norm.backward:
        yield parts.candidate(
            name="loss_backward",
            place=f"norm.{stage.name}",
            gradients=once(_gradients_at_first(parts)).plus(parts.own_gradients(stage)),
            activations=parts.saved.plus(parts.shared).plus(stage.saved).plus(held),
            logits=parts.retained,
            workspace=parts.work(stage),
            communication=once(parts.gathered.head),
        )


def _gradients_at_first(parts: Standing) -> float:
    """Before any layer's backward pass: those kept from earlier micro-batches, or the head's."""
    if not parts.accumulates:
        return parts.head_gradient
    # A tied head's gradient waits for the embedding's before both are added to what is there.
    return parts.gradients + (parts.head_gradient if parts.model.tied_embeddings else 0.0)


def _layers(parts: Standing) -> Iterator[Candidate]:
    """The first layer met, when all others still wait, and the last, when all gradients are."""
    for layers in parts.network.graphs:
        profile = layers.profile
        own = parts.checkpoint if parts.recomputes else parts.kept(profile)
        beside = parts.entry if parts.recomputes or profile.saves_input else NOTHING
        others = parts.saved.minus(own).plus(parts.shared)
        pinned = layers.pinned if parts.recomputes else NOTHING
        if not parts.recomputes:
            # The model's frame still holds the embedding, the loop the layer's input.
            held = parts.entry.times(2).plus(parts.mask)
            yield from _last_forward(parts, profile, others.plus(held))
        waiting = others.plus(beside)
        first = _gradients_at_first(parts)
        yield from _layer_backward("first_layer_backward", parts, profile, waiting, first)
        waiting = parts.shared.plus(beside).plus(_pinned(parts)).plus(pinned)
        for last, met in _last_met(parts, layers, first):
            yield from _layer_backward("last_layer_backward", parts, met, waiting, last)
            if parts.plan.framework.flat_parameters:
                yield _flat_gradient(parts, waiting, last)


def _last_met(parts: Standing, layers: Layers, first: float) -> Iterator[tuple[float, Profile]]:
    """(gradients there by then, profile) of a layer that is the last met, or the last but one."""

    def there(*own: Profile) -> float:
        late = parts.late_gradients + sum(one.weight_grads.once for one in own) / shares
        if parts.accumulates:
            return parts.gradients
        if parts.plan.framework.fsdp1:
            return max(parts.gradients - late, 0.0) + first
        return max(parts.gradients - late, first)

    shares, lowest = parts.shares.gradients, parts.network.lowest
    if not parts.spares_first:
        yield there(layers.profile), layers.profile
        return
    if layers is lowest:
        yield there(layers.profile), parts.network.first
    if layers is not lowest or layers.kind.count > 1:
        yield there(lowest.profile, layers.profile), layers.profile


def _flat_gradient(parts: Standing, waiting: Size, gradients: float) -> Candidate:
    """The gradients of a layer's weights, and the one tensor they are made into."""
    return parts.candidate(
        name="last_layer_backward",
        place="flat gradient",
        gradients=once(gradients + 2 * parts.gathered.unit),
        activations=waiting,
        logits=parts.retained,
        workspace=parts.entry,
        communication=once(parts.gathered.outside + parts.gathered.layers),
    )


def _pinned(parts: Standing) -> Size:
    """Inputs of all layers but the first, and most of their gradients: see `Framework.fsdp1`."""
    plan, layers = parts.plan, parts.model.num_layers
    pins = plan.framework.fsdp1 and plan.framework.reentrant_checkpoints
    pins = pins and not plan.method.trains_base
    return parts.entry.times(2 * layers - 3) if pins and parts.recomputes else NOTHING


def _last_forward(parts: Standing, profile: Profile, waiting: Size) -> Iterator[Candidate]:
    """The last layer's forward pass, when all others have saved theirs."""
    for stage in profile.forward:
        yield parts.candidate(
            name="forward",
            place=stage.name,
            gradients=once(parts.gradients if parts.accumulates else 0.0),
            activations=waiting.plus(stage.total).plus(parts.cached),
            communication=once(parts.gathered.outside + parts.gathered.layers),
        )


def _layer_backward(
    name: str, parts: Standing, profile: Profile, waiting: Size, gradients: float
) -> Iterator[Candidate]:
    """One layer: its forward pass once more if it is recomputed, then its backward pass."""
    copies = once(parts.gathered.outside + parts.gathered.layers)
    output = NOTHING
    if parts.recomputes:
        output = parts.entry if parts.plan.framework.reentrant_checkpoints else NOTHING
        for stage in profile.recomputed:
            yield parts.candidate(
                name=name,
                place=f"recomputed {stage.name}",
                gradients=once(gradients),
                activations=waiting.plus(stage.total),
                logits=parts.retained,
                workspace=parts.entry,
                communication=copies,
            )
    for stage in profile.backward:
        yield parts.candidate(
            name=name,
            place=stage.name,
            gradients=once(gradients).plus(parts.own_gradients(stage)),
            activations=waiting.plus(stage.saved).plus(output),
            logits=parts.retained,
            workspace=parts.work(stage),
            communication=copies,
        )


def _cached_casts(parts: Standing) -> float:
    """Autocast's copies of trained weights, cached until the forward pass ends (§3.2).

    Without checkpointing the graph holds them anyway; FSDP casts what it gathers itself.
    """
    plan = parts.plan
    if parts.shares.weights > 1 or not (autocasts(plan) and trained_width(plan) == 4):
        return 0.0
    if plan.method.forward_casts:
        return 2.0 * trained_params(parts.model, plan)
    if not parts.recomputes:
        return 0.0
    if plan.method.trains_base:
        return 2.0 * trained_linears(parts.model, plan)
    return 2.0 * min(cast_low_rank_params(parts.model, plan), trained_params(parts.model, plan))


def _embedding(parts: Standing) -> Candidate:
    """The embedding's gradient comes last; a tied head's has waited for it, to be summed anew."""
    own = embedding_params(parts.model) * parts.outer.width
    tied = parts.model.tied_embeddings and parts.plan.task.head == "lm"
    copies = (2 if tied else 0) + parts.accumulates
    if parts.plan.framework.flat_parameters:
        copies = 2 * num_embeddings(parts.model, parts.plan)
    return parts.candidate(
        name="embedding_backward",
        place="embedding",
        gradients=once(parts.gradients),
        activations=parts.entry,
        logits=parts.retained,
        workspace=once(copies * own).plus(_as_the_table(parts)),
        communication=once(parts.gathered.outside),
    )


def _as_the_table(parts: Standing) -> Size:
    """The gradient in the type of a copy that is wider than what goes on from it."""
    is_copy = not parts.plan.method.trains_base
    wider = is_copy and parts.outer.width > stream_width(parts.model, parts.plan)
    return per_token(parts.outer.width * parts.model.hidden_size) if wider else NOTHING


def _embedding_rows(parts: Standing) -> Candidate:
    """PEFT takes the gradient of the whole embedding, and the rows of new tokens out of it."""
    return parts.candidate(
        name="embedding_backward",
        place="embedding",
        gradients=once(parts.gradients),
        activations=parts.entry,
        logits=parts.retained,
        workspace=once(embedding_params(parts.model) * outer_width(parts.plan)),
        communication=once(parts.gathered.outside),
    )


def _optimizer_step(parts: Standing) -> Candidate:
    """The activations are gone. Fused kernels make no temporaries, multi-tensor ones do (§3.3)."""
    plan = parts.plan
    trained = gradient_bytes(parts.model, plan) / parts.shares.gradients
    foreach = plan.framework.foreach_optimizer and plan.optimizer.states == 2
    return parts.candidate(
        name="optimizer_step",
        place=plan.optimizer.name,
        gradients=once(gradients_here(parts.model, plan, reduced=True)),
        paged_states=once(paged_states(parts.model, plan)),
        logits=parts.retained,
        workspace=once(trained if foreach else 0.0),
    )
