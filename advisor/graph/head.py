"""The end of the network on tapes: final norm, LM head and loss.

Decides how each loss path computes and what it keeps. The tiles of the fused heads grow with the
micro-batch up to a limit only, so they are a number of their own, not part of the tape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.graph.attention import SOFTCAPPED
from advisor.graph.pieces import INDEX, Pieces
from advisor.precision import autocasts, base_width, flow_width, outer_width
from advisor.tape import NOTHING, Matrix, Size, Tape, Value, once, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

TILE_TOKENS: Final = 4096
TILE_VOCABULARY: Final = 32768
"""TRL 1.16: TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE; the buffer has this width always."""
LISTED_TOKENS: Final = 128
"""lit-gpt: lm_head_chunk_size, of each row."""
CPU_TILE_BYTES: Final = 29
"""TRL's tile backward in plain torch, per tile element: five fp32 tiles and a product's parts."""


SCALED_LOGITS: Final = ("granite", "cohere")
"""Families that multiply or divide their logits."""


def norm_tape(model: Model, plan: Plan, *, stream: int) -> Tape:
    """The final norm, from the last layer's output."""
    tape = Tape(per_token(stream * model.hidden_size), stream, needs_grad=True)
    Pieces(tape, model, plan, trains=True).norm(tape.entry, model.hidden_size)
    return tape


def loss_tape(model: Model, plan: Plan, *, width: int, carried: Size = NOTHING) -> Tape:
    """LM head and loss, from the normed hidden states of `width` bytes an element.

    `carried`: what the layers' last graph still keeps, see `Stack.carried_logits`.
    """
    tape = Tape(per_token(width * model.hidden_size), width, needs_grad=True)
    pieces = Pieces(tape, model, plan, trains=True)
    if plan.loss == "full":
        _full(pieces)
    elif plan.loss == "fused":
        _in_place(pieces)
    elif plan.loss == "liger":
        _liger(pieces)
    elif plan.loss == "listed":
        _listed(pieces, carried)
    else:
        _chunked(pieces)
    return tape


def tile_bytes(model: Model, plan: Plan, tokens: int, *, on_cpu: bool) -> int:
    """What a fused head works on beside its hidden states, for a micro-batch of `tokens`."""
    if plan.loss == "liger":
        return _liger_tile(model, plan, tokens)
    if plan.loss == "listed":
        # The gradients of one chunk, of its log-probabilities and its logits, and autocast's
        # copies of the head, which are frozen and so not cached: one for each chunk.
        gradients = min(tokens, plan.micro_batch * LISTED_TOKENS) * model.vocab_size * 8
        chunks = -(-plan.seq_len // LISTED_TOKENS) - 1
        casts = autocasts(plan) and outer_width(plan) == 4
        return gradients + (chunks * model.vocab_size * model.hidden_size * 2 if casts else 0)
    if plan.loss != "chunked":
        return 0
    flow = flow_width(plan)
    rows, columns = min(tokens, TILE_TOKENS), min(model.vocab_size, TILE_VOCABULARY)
    buffer = rows * TILE_VOCABULARY * flow
    cast = 0
    if outer_width(plan) != flow:
        # The slice of the head in use, the next one, and the hidden states of the tile.
        slices = 2 if columns < model.vocab_size else 1
        cast = (slices * columns + rows) * model.hidden_size * flow
    beside = CPU_TILE_BYTES * rows * columns if on_cpu else 0
    return buffer + cast + beside


def _liger_tile(model: Model, plan: Plan, tokens: int) -> int:
    """Logits of one chunk and their gradient; rows by Liger's rule (fused_linear_cross_entropy)."""
    chunks = -(-model.vocab_size // model.hidden_size)
    rows = 1 << (-(-tokens // chunks) - 1).bit_length()
    width = flow_width(plan) + (4 if plan.stack.liger_fp32 else 0)
    return min(rows, tokens) * model.vocab_size * width


def _full(pieces: Pieces) -> None:
    """All logits at once, in fp32 for the loss."""
    logits, held = _logits(pieces)
    v = pieces.model.vocab_size
    shares = pieces.value("log_softmax", (logits,), v, logits.width, saves_output=True)
    pieces.value("loss", (shares,), 1, 4, kept=per_token(INDEX))
    pieces.tape.hold(*held)


def _logits(pieces: Pieces) -> tuple[Value, tuple[Value, ...]]:
    """What the loss reads, and what the model's outputs and the loss's frame hold meanwhile."""
    model, plan = pieces.model, pieces.plan
    v, stack = model.vocab_size, plan.stack
    returned = logits = _head(pieces)
    if model.model_type.startswith(SCALED_LOGITS):
        returned = logits = pieces.value("scale", (logits,), v, logits.width)
    if model.model_type in SOFTCAPPED:
        logits = pieces.value("divide", (logits,), v, logits.width)
        logits = pieces.value("tanh", (logits,), v, logits.width, saves_output=True)
        returned = logits = pieces.value("multiply", (logits,), v, logits.width)
    if stack.upcast_logits:
        logits = pieces.cast(logits, 4)
        returned = logits if stack.upcast_in_model else returned
    held = (returned, logits)
    if stack.returned_logits == "step":
        pieces.tape.retain(returned)
    if stack.shifted_logits:
        logits = pieces.value("shift", (logits,), v, logits.width)
    return logits, held


def _listed(pieces: Pieces, carried: Size) -> None:
    """lit-gpt: logits in a list of chunks, in fp32 as Fabric returns them, all kept."""
    v, stack = pieces.model.vocab_size, pieces.plan.stack
    previous = None
    if stack.carried_logits:
        size = carried.plus(per_token(4 * v))
        previous = pieces.tape.op("previous", (), size, 4)
    logits = _head(pieces)
    returned = pieces.cast(logits, 4)
    pieces.tape.retain(returned)
    if previous:
        pieces.tape.hold(previous)
    # Chunk by chunk: the log-probabilities give way to gradients, and those to narrower ones.
    pieces.value("loss", (returned,), 1, 4, kept=per_token(4 * v + INDEX), hands_on=True)


def _head(pieces: Pieces) -> Value:
    """Logits, in the type that the head returns."""
    model, plan = pieces.model, pieces.plan
    h, v, x = model.hidden_size, model.vocab_size, pieces.tape.entry
    matrix = Matrix("lm_head", h, v, 1, 0, quantizable=True)
    if plan.stack.quantized_head and plan.base_bits < 16:
        return pieces.around(x, pieces.quantized(x, matrix.name, h * v, v), matrix)
    logits = pieces.matmul(x, matrix.name, h * v, v, outer_width(plan), trains=pieces.trains)
    if plan.stack.chunked_head and pieces.trains:
        work, _ = pieces.weight_gradient(h * v, logits.width)
        pieces.tape.ops[-1].back_work = work
    return pieces.around(x, logits, matrix)


def _in_place(pieces: Pieces) -> None:
    """A kernel that writes the gradient over the logits (Unsloth's and its descendants)."""
    logits, held = _logits(pieces)
    # Not saved: the gradient that the backward pass makes here is the same memory.
    pieces.value("loss", (logits,), 1, 4, kept=per_token(INDEX + 4))
    pieces.tape.hold(*held)


def _chunked(pieces: Pieces) -> None:
    """TRL: hidden states of the shifted rows are kept; tiles of logits come and go."""
    model = pieces.model
    h, v = model.hidden_size, model.vocab_size
    x = pieces.tape.entry
    x = pieces.value("shift", (x,), h, x.width)
    # The gradients add up in fp32 whatever the weights are, and are cast to them at the end.
    cast = 0 if pieces.trained == 4 else pieces.trained
    trains = pieces.trains
    pieces.value(
        name="loss",
        inputs=(x,),
        size=1,
        width=4,
        saved=(x,),
        kept=per_token(INDEX + 4),
        back_work=per_token(4 * h if x.width != 4 else 0),
        weight_grad=once((4 + cast) * h * v) if trains else NOTHING,
        flops=4 * h * v,
        weight_flops=2 * h * v if trains else 0,
    )


def _liger(pieces: Pieces) -> None:
    """Liger: both gradients are computed in the forward pass and kept."""
    model, plan = pieces.model, pieces.plan
    h, v = model.hidden_size, model.vocab_size
    x = pieces.tape.entry
    if plan.stack.shifted_logits:
        x = pieces.value("shift", (x,), h, x.width)
    grads = once(base_width(plan) * h * v) if pieces.trains else NOTHING
    pieces.value(
        name="loss",
        inputs=(x,),
        size=1,
        width=4,
        kept=per_token(x.width * h).plus(grads),
        hands_on=True,
        flops=4 * h * v,
        weight_flops=2 * h * v if pieces.trains else 0,
    )
