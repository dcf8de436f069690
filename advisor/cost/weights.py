"""Parameters, and the bytes that exist because of them: weights, gradients, optimizer states.

All are bytes of the whole model: what one device keeps of them, and when, is for moments.py to
say. Which matrices a layer has comes from its tape.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from advisor.graph.network import network
from advisor.graph.outer import outer
from advisor.precision import (
    autocasts,
    base_width,
    frozen_width,
    leftover_width,
    trained_width,
    whole_width,
)
from advisor.registry import beside
from advisor.registry.spec import nothing_added
from advisor.tape import Matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from advisor.graph.network import Layers
    from advisor.plan import Plan
    from profiles.facts import Model

NF4_SCALES: Final = 4 / 64
"""Bytes per weight of 4 bits: an fp32 scale for 64 of them (QLoRA paper §3)."""
NF4_DOUBLE_SCALES: Final = 1 / 64 + 4 / (64 * 256)
"""The scales in 8 bits, with an fp32 scale for 256 of those."""
GPTQ_SCALE: Final = 2 + 0.5
"""A 16-bit scale and a 4-bit zero."""
GPTQ_INDEX: Final = 4
SCALE_BYTES: Final = 4
"""LLM.int8: one fp32 scale for each output row."""
TWO_8BIT_STATES: Final = 2 + 2 * 4 / 256
"""Bytes per parameter; bitsandbytes keeps one fp32 scale per block of 256."""
MIN_8BIT_ELEMENTS: Final = 4096
"""Smaller tensors keep fp32 moments (bitsandbytes optimizer.py)."""
MIN_PAGED_ELEMENTS: Final = 100_000


def linear_params(model: Model, plan: Plan) -> int:
    """Weights of the layers' plain linears, which a quantized base stores in few bits."""
    return sum([m.n_in * m.n_out * m.copies for m in matrices(model, plan) if m.quantizable])


def trained_linears(model: Model, plan: Plan) -> int:
    """Of them, those of layers that train."""
    found = [m for m in matrices(model, plan) if m.quantizable and m.trains]
    return sum([m.n_in * m.n_out * m.copies for m in found])


def low_rank_params(model: Model, plan: Plan) -> int:
    """Weights of low-rank adapters: P = r sum(in + out) over the adapted linears (§3.1)."""
    adapted = [m for m in matrices(model, plan) if m.rank]
    return sum([m.rank * (m.n_in + m.n_out) * m.copies for m in adapted])


def cast_low_rank_params(model: Model, plan: Plan) -> int:
    """Of them, those that autocast copies: not what is added to weights of experts."""
    adapted = [m for m in matrices(model, plan) if m.rank and not m.is_stack]
    return sum([m.rank * (m.n_in + m.n_out) * m.copies for m in adapted])


def headless(model: Model, plan: Plan) -> Model:
    """The model as a task with a head of its own loads it: the LM head is left out."""
    if plan.task.head == "lm" or model.tied_embeddings:
        return model
    return replace(
        model, num_params=model.num_params - embedding_params(model), tied_embeddings=True
    )


def num_embeddings(model: Model, plan: Plan) -> int:
    """Tables of the size of the embedding: it, and an LM head that is not tied to it."""
    return 1 if model.tied_embeddings or plan.task.head != "lm" else 2


def embedding_params(model: Model) -> int:
    """Weights of the embedding; as many in the head, where it is not tied."""
    return model.vocab_size * model.hidden_size


def trained_params(model: Model, plan: Plan) -> int:
    """Parameters that get a gradient."""
    method = plan.method
    count = method.trained or method.added
    whole = whole_params(model, plan)
    return count(headless(model, plan), plan.settings, matrices(model, plan)) + whole


def row_params(model: Model, plan: Plan) -> int:
    """Rows of new tokens that train by themselves, of the embedding and of a head of its own."""
    found = outer(model, plan)
    tables = (found.embedding == "rows") + (found.head == "rows" and not model.tied_embeddings)
    return tables * plan.num_new_tokens * model.hidden_size


def copied_params(model: Model, plan: Plan) -> int:
    """What trains whole beside adapters, as copies."""
    whole, has_head = plan.settings.whole_modules, plan.task.head == "lm"
    tables = beside.num_tables(model, whole, has_head=has_head)
    return tables + beside.num_norms(model, whole)


def whole_params(model: Model, plan: Plan) -> int:
    """Both, in a type of their own."""
    return row_params(model, plan) + copied_params(model, plan)


def added_params(model: Model, plan: Plan) -> int:
    """Weights that the method adds to the model (PEFT 0.21)."""
    return plan.method.added(model, plan.settings, matrices(model, plan))


def base_bytes(model: Model, plan: Plan) -> float:
    """Base weights; quantized loading leaves embeddings, head, norms, experts in 16 bits (§3.2)."""
    width, leftover = base_width(plan), leftover_width(plan)
    model = headless(model, plan)
    if plan.method.trains_base and width == 4:
        trained, tower = trained_params(model, plan), model.vision_params
        frozen = model.num_params - trained - tower
        return 4 * trained + frozen_width(plan) * frozen + 2 * tower
    if plan.base_bits == 16:
        return width * (model.num_params - model.vision_params) + 2 * model.vision_params
    narrow = sum([m.n_in * m.n_out * m.copies for m in _quantized(model, plan)])
    numbers = narrow * plan.base_bits / 8
    return numbers + scale_bytes(model, plan) + leftover * (model.num_params - narrow)


def reference_bytes(model: Model, plan: Plan) -> float:
    """The frozen copy that a task compares with where nothing is added that could be left out."""
    keeps = plan.task.reference and plan.method.added is nothing_added
    return base_bytes(model, plan) if keeps else 0.0


def _quantized(model: Model, plan: Plan) -> list[Matrix]:
    """What a library that quantizes plain linears finds."""
    found = [m for m in matrices(model, plan) if m.quantizable]
    if plan.framework.quantized_head:
        found.append(Matrix("lm_head", model.hidden_size, model.vocab_size, 1, 0, True))
    return found


def _gptq_scales(matrix: Matrix, group: int) -> float:
    groups = matrix.n_in / group if group > 0 else 1
    return matrix.copies * (GPTQ_SCALE * groups * matrix.n_out + GPTQ_INDEX * matrix.n_in)


def scale_bytes(model: Model, plan: Plan) -> float:
    """What turns the numbers of quantized weights back into weights."""
    if plan.base_bits == 16:
        return 0.0
    found = _quantized(model, plan)
    if plan.base_bits == 8:
        return SCALE_BYTES * sum([m.n_out * m.copies for m in found])
    linears = sum([m.n_in * m.n_out * m.copies for m in found])
    if plan.framework.gptq_group:
        return sum([_gptq_scales(m, plan.framework.gptq_group) for m in found])
    return linears * (NF4_DOUBLE_SCALES if plan.framework.double_quant else NF4_SCALES)


def adapter_bytes(model: Model, plan: Plan) -> int:
    """Weights that the method adds."""
    width = 4 if plan.method.added_fp32 else trained_width(plan)
    width += 2 if plan.method.added_casts and autocasts(plan) else 0
    width += plan.method.kept_numbers * trained_width(plan)
    whole = whole_params(model, plan) * whole_width(plan)
    whole += row_params(model, plan) * leftover_width(plan)  # PEFT keeps them as they were too
    return added_params(model, plan) * width + whole


def gradient_bytes(model: Model, plan: Plan) -> int:
    """One gradient for each trained weight, in the weight's own type."""
    wider = whole_params(model, plan) * (whole_width(plan) - trained_width(plan))
    return trained_params(model, plan) * trained_width(plan) + wider


def optimizer_bytes(model: Model, plan: Plan) -> tuple[float, float]:
    """The optimizer's states: (always on the device, only at the step because paged) (§3.3)."""
    kind = plan.optimizer
    if kind.projected_rank:
        return _projected_bytes(model, plan), 0
    if kind.factored:
        sides = sum([(rows + columns) * n for rows, columns, n in _tensors(model, plan)])
        vectors = _untold_params(model, plan) if plan.method.trains_base else 0
        return 4 * (sides + vectors), 0
    if kind.bits == 8:
        return _blockwise_bytes(model, plan)
    width = 4 if kind.fp32_states else trained_width(plan)
    trained = trained_params(model, plan)
    total = width * kind.states * trained
    if not kind.fp32_states:
        total += (whole_width(plan) - width) * kind.states * whole_params(model, plan)
    if kind.matrix_states is not None:
        trains_base = plan.method.trains_base
        whole = (trained_linears if trains_base else low_rank_params)(model, plan)
        total += width * (kind.matrix_states - kind.states) * min(whole, trained)
    return (0, total) if kind.paged else (total, 0)


def _blockwise_bytes(model: Model, plan: Plan) -> tuple[float, float]:
    """bitsandbytes: 8-bit states for tensors of 4096 elements and more."""
    kind = plan.optimizer
    share = kind.states / 2
    if plan.method.trains_base:
        # transformers' Trainer overrides nn.Embedding to 32-bit states; a tied head goes with it.
        embedding = embedding_params(model) if plan.method.trains_embedding else 0
        narrow = TWO_8BIT_STATES * max(0, trained_params(model, plan) - embedding)
        total = share * (8 * embedding + narrow)
        return (0, total) if kind.paged else (total, 0)
    resident = share * TWO_8BIT_STATES * _untold_params(model, plan)
    # transformers' Trainer has 32-bit states for every nn.Embedding, a copy too
    embedding, _ = _num_tables(model, plan)
    moving = share * (8 - TWO_8BIT_STATES) * embedding * embedding_params(model)
    resident, moving = (resident, moving) if kind.paged else (resident + moving, 0.0)
    for rows, columns, copies in _tensors(model, plan):
        count = rows * columns
        wide = count < MIN_8BIT_ELEMENTS
        state = share * copies * count * (8 if wide else TWO_8BIT_STATES)
        if kind.paged and count >= MIN_PAGED_ELEMENTS:
            moving += state
        else:
            resident += state
    return resident, moving


def _projected_bytes(model: Model, plan: Plan) -> float:
    """Low-rank gradients: states of rank r on the longer side of each linear; the rest in full.

    GaLore also keeps the projection, r times the shorter side (arXiv 2403.03507 §4); APOLLO makes
    it again from a seed (arXiv 2412.05270).
    """
    kind, total, covered = plan.optimizer, 0.0, 0
    for m in matrices(model, plan):
        if (
            not m.quantizable or not m.trains
        ):  # experts are tensors of three dimensions, and not projected
            continue
        long, short = max(m.n_in, m.n_out), min(m.n_in, m.n_out)
        used = min(kind.projected_rank, short)
        kept = kind.states * long + (short if kind.keeps_projection else 0)
        total += used * kept * m.copies * 4
        covered += m.n_in * m.n_out * m.copies
    whole = max(0, trained_params(model, plan) - covered)
    return total + kind.states * trained_width(plan) * whole


def _untold_params(model: Model, plan: Plan) -> int:
    """Trained weights in other tensors than those of `_tensors`, whose shapes nobody tells."""
    told = sum([rows * columns * copies for rows, columns, copies in _tensors(model, plan)])
    return max(0, trained_params(model, plan) - told)


def _tensors(model: Model, plan: Plan) -> Iterator[tuple[int, int, int]]:
    """(rows, columns, count) of the trained tensors with two dimensions."""
    for m in matrices(model, plan):
        if m.rank:
            yield m.n_in, m.rank, m.copies
            yield m.rank, m.n_out, m.copies
        elif plan.method.trains_base and m.trains:
            yield m.n_in, m.n_out, m.copies
    if rows := row_params(model, plan):
        tables = rows // (plan.num_new_tokens * model.hidden_size)
        yield plan.num_new_tokens, model.hidden_size, tables
    yield model.vocab_size, model.hidden_size, sum(_num_tables(model, plan))


def _num_tables(model: Model, plan: Plan) -> tuple[int, int]:
    """(embeddings, heads of their own) that train whole."""
    found, is_tied = outer(model, plan), model.tied_embeddings
    has_own = plan.task.head == "lm" and not (is_tied and found.embedding == "whole")
    return int(found.embedding == "whole"), int(found.head == "whole" and has_own)


def matrices(model: Model, plan: Plan) -> tuple[Matrix, ...]:
    """The linears of all layers, each with how often it is there."""
    return _counted(network(model, plan).layers)


@lru_cache(maxsize=256)
def _counted(layers: tuple[Layers, ...]) -> tuple[Matrix, ...]:
    return tuple(
        [
            m._replace(copies=m.copies * one.kind.count, trains=one.kind.is_adapted)
            for one in layers
            for m in one.matrices
        ]
    )
