"""The end of the network on tapes: final norm, LM head and loss.

Decides how each loss path computes and what it keeps. The tiles of the fused heads grow with the
micro-batch up to a limit only, so they are a number of their own, not part of the tape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.graph.attention import SOFTCAPPED
from advisor.graph.modules import INDEX, LayerModules
from advisor.graph.outer import outer
from advisor.precision import autocasts, flow_width, frozen_width, outer_width
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


def _head_width(model: Model, plan: Plan) -> int:
    """Bytes of a weight of the LM head."""
    found = outer(model, plan)
    if found.head == "whole":
        return found.width
    return frozen_width(plan) if plan.method.trains_base else outer_width(plan)


def norm_tape(model: Model, plan: Plan, *, stream: int) -> Tape:
    """The final norm, from the last layer's output."""
    tape = Tape(per_token(stream * model.hidden_size), stream, needs_grad=True)
    LayerModules(tape, model, plan, trains=True).norm(tape.entry, model.hidden_size)
    return tape


def loss_tape(model: Model, plan: Plan, *, width: int, carried: Size = NOTHING) -> Tape:
    """LM head and loss, from the normed hidden states of `width` bytes an element.

    `carried`: what the layers' last graph still keeps, see `Framework.carried_logits`.
    """
    tape = Tape(per_token(width * model.hidden_size), width, needs_grad=True)
    found = outer(model, plan)
    modules = LayerModules(tape, model, plan, trains=found.head == "whole")
    if found.head == "whole" and not plan.method.trains_base:  # a copy, beside what is frozen
        modules.trains, modules.trained = True, found.width
    if plan.task.head != "lm":
        _score(modules)
    elif plan.loss == "full":
        _full(modules)
    elif plan.loss == "fused":
        _in_place(modules)
    elif plan.loss == "liger":
        _liger(modules)
    elif plan.loss == "listed":
        _listed(modules, carried)
    else:
        _chunked(modules)
    return tape


def tile_bytes(model: Model, plan: Plan, tokens: int, *, on_cpu: bool) -> int:
    """What a fused head works on beside its hidden states, for a micro-batch of `tokens`."""
    if plan.task.head != "lm":
        return 0
    if plan.loss == "liger":
        return _liger_tile(model, plan, tokens)
    if plan.loss == "listed":
        # The gradients of one chunk, of its log-probabilities and its logits, and autocast's
        # copies of the head, which are frozen and so not cached: one for each chunk.
        gradients = min(tokens, plan.micro_batch * LISTED_TOKENS) * model.vocab_size * 8
        chunks = -(-plan.seq_len // LISTED_TOKENS) - 1
        casts = autocasts(plan) and _head_width(model, plan) == 4
        return gradients + (chunks * model.vocab_size * model.hidden_size * 2 if casts else 0)
    if plan.loss != "chunked":
        return 0
    flow = flow_width(plan)
    rows, columns = min(tokens, TILE_TOKENS), min(model.vocab_size, TILE_VOCABULARY)
    buffer = rows * TILE_VOCABULARY * flow
    cast = 0
    if _head_width(model, plan) != flow:
        # The slice of the head in use, the next one, and the hidden states of the tile.
        slices = 2 if columns < model.vocab_size else 1
        cast = (slices * columns + rows) * model.hidden_size * flow
    beside = CPU_TILE_BYTES * rows * columns if on_cpu else 0
    return buffer + cast + beside


def _liger_tile(model: Model, plan: Plan, tokens: int) -> int:
    """Logits of one chunk and their gradient; rows by Liger's rule (fused_linear_cross_entropy)."""
    chunks = -(-model.vocab_size // model.hidden_size)
    rows = 1 << (-(-tokens // chunks) - 1).bit_length()
    width = flow_width(plan) + (4 if plan.framework.liger_fp32 else 0)
    return min(rows, tokens) * model.vocab_size * width


def _full(modules: LayerModules) -> None:
    """All logits at once, in fp32 for the loss."""
    logits, held = _logits(modules)
    v = modules.model.vocab_size
    smoothed = modules.plan.label_smoothing > 0
    logits = modules.cast(logits, 4) if smoothed else logits
    shares = modules.value("log_softmax", (logits,), v, logits.width, saves_output=True)
    # torch sums the gradients of the label's part and of all tokens' in a tensor of its own
    work = per_token(2 * 4 * v) if smoothed else NOTHING
    modules.value("loss", (shares,), 1, 4, kept=per_token(INDEX), back_work=work)
    modules.tape.hold(*held)


def _logits(modules: LayerModules) -> tuple[Value, tuple[Value, ...]]:
    """What the loss reads, and what the model's outputs and the loss's frame hold meanwhile."""
    model, plan = modules.model, modules.plan
    v, framework = model.vocab_size, plan.framework
    returned = logits = _head(modules)
    if model.model_type.startswith(SCALED_LOGITS):
        returned = logits = modules.value("scale", (logits,), v, logits.width)
    if model.model_type in SOFTCAPPED:
        logits = modules.value("divide", (logits,), v, logits.width)
        logits = modules.value("tanh", (logits,), v, logits.width, saves_output=True)
        returned = logits = modules.value("multiply", (logits,), v, logits.width)
    if framework.upcast_logits:
        logits = modules.cast(logits, 4)
        returned = logits if framework.upcast_in_model else returned
    held = (returned, logits)
    if framework.returned_logits == "step":
        modules.tape.retain(returned)
    if framework.shifted_logits:
        logits = modules.value("shift", (logits,), v, logits.width)
    return logits, held


def _score(modules: LayerModules) -> None:
    """A number for each token, of which the last one's counts; its head trains in any case."""
    x = modules.tape.entry
    scores = modules.matmul(
        x, "score", modules.model.hidden_size, 1, outer_width(modules.plan), trains=True
    )
    modules.value("loss", (scores,), 1, 4)


def _listed(modules: LayerModules, carried: Size) -> None:
    """lit-gpt: logits in a list of chunks, in fp32 as Fabric returns them, all kept."""
    v, framework = modules.model.vocab_size, modules.plan.framework
    previous = None
    if framework.carried_logits:
        size = carried.plus(per_token(4 * v))
        previous = modules.tape.op("previous", (), size, 4)
    logits = _head(modules)
    returned = modules.cast(logits, 4)
    modules.tape.retain(returned)
    if previous:
        modules.tape.hold(previous)
    # Chunk by chunk: the log-probabilities give way to gradients, and those to narrower ones.
    modules.value("loss", (returned,), 1, 4, kept=per_token(4 * v + INDEX), hands_on=True)


def _head(modules: LayerModules) -> Value:
    """Logits, in the type that the head returns."""
    model, plan = modules.model, modules.plan
    h, v, x = model.hidden_size, model.vocab_size, modules.tape.entry
    matrix = Matrix("lm_head", h, v, 1, 0, quantizable=True)
    if plan.framework.quantized_head and plan.base_bits < 16:
        return modules.around(x, modules.quantized(x, matrix.name, h * v, v), matrix)
    if outer(model, plan).head == "rows":
        return modules.around(x, _with_rows(modules, x, matrix), matrix)
    logits = modules.matmul(
        x, matrix.name, h * v, v, _head_width(model, plan), trains=modules.trains
    )
    if plan.framework.chunked_head and modules.trains:
        work, _ = modules.weight_gradient(h * v, logits.width)
        modules.tape.ops[-1].back_work = work
    return modules.around(x, logits, matrix)


def _with_rows(modules: LayerModules, x: Value, matrix: Matrix) -> Value:
    """PEFT makes the head anew with its new rows, and takes the gradient of all its rows."""
    weights, width = matrix.n_in * matrix.n_out, _head_width(modules.model, modules.plan)
    x = modules.cast(x, modules.flow)
    return modules.value(
        name=matrix.name,
        inputs=(x,),
        size=matrix.n_out,
        width=modules.flow,
        saved=(x,),
        kept=once(width * weights),
        back_work=once(modules.flow * weights),
        flops=2 * weights,
        weight_flops=2 * weights,
    )


def _in_place(modules: LayerModules) -> None:
    """A kernel that writes the gradient over the logits (Unsloth's and its descendants)."""
    logits, held = _logits(modules)
    # Not saved: the gradient that the backward pass makes here is the same memory.
    modules.value("loss", (logits,), 1, 4, kept=per_token(INDEX + 4))
    modules.tape.hold(*held)


def _chunked(modules: LayerModules) -> None:
    """TRL: hidden states of the shifted rows are kept; tiles of logits come and go."""
    model = modules.model
    h, v = model.hidden_size, model.vocab_size
    x = modules.tape.entry
    x = modules.value("shift", (x,), h, x.width)
    # The gradients add up in fp32 whatever the weights are, and are cast to them at the end.
    cast = 0 if modules.trained == 4 else modules.trained
    trains = modules.trains
    made, passing = 0, 0
    if (
        outer(model, modules.plan).head == "rows"
    ):  # the head with its new rows, and the gradient of all its rows
        made = _head_width(model, modules.plan)
        passing = 4 + (0 if made == 4 else made)
    modules.value(
        name="loss",
        inputs=(x,),
        size=1,
        width=4,
        saved=(x,),
        kept=per_token(INDEX + 4).plus(once(made * h * v)),
        back_work=per_token(4 * h if x.width != 4 else 0).plus(once(passing * h * v)),
        weight_grad=once((4 + cast) * h * v) if trains else NOTHING,
        flops=4 * h * v,
        weight_flops=2 * h * v if trains or passing else 0,
    )


def _liger(modules: LayerModules) -> None:
    """Liger: both gradients are computed in the forward pass and kept."""
    model, plan = modules.model, modules.plan
    h, v = model.hidden_size, model.vocab_size
    x = modules.tape.entry
    if plan.framework.shifted_logits:
        x = modules.value("shift", (x,), h, x.width)
    grads = once(modules.base_width * h * v) if modules.trains else NOTHING
    modules.value(
        name="loss",
        inputs=(x,),
        size=1,
        width=4,
        kept=per_token(x.width * h).plus(grads),
        hands_on=True,
        flops=4 * h * v,
        weight_flops=2 * h * v if modules.trains else 0,
    )
