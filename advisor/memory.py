"""Peak memory of one training process, from dimensions alone.

Decides how many bytes are alive at the three moments that can be the peak (loss backward, deepest
layer backward, optimizer step), which moment wins, and how far the device's use may lie from that.
It mirrors TRL 1.16 SFTTrainer with PEFT 0.21, transformers 5.23 and Accelerate. It does not know
whether anything fits, what the machine is, or the real lengths of rows.

Symbols as in reference/bottlenecks.md §3: h hidden, q and kv widths of queries and keys, f MLP
width, L layers, V vocabulary, r rank, M tokens of a micro-batch. "Checked" means: equal to the
byte in tests/test_memory.py against the real model on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from advisor.plan import ALL_TARGETS
from profiles.facts import GIB

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

COMPONENTS: Final = (
    "weights",
    "adapters",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "workspace",
    "context",
    "fragmentation",
    "communication",
)
MOMENTS: Final = ("loss_backward", "layer_backward", "optimizer_step")

NF4_BYTES: Final = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight: 4 bits, 8-bit block scales, fp32 scales of those (QLoRA paper §3)."""
TWO_8BIT_MOMENTS: Final = 2 + 2 * 4 / 256
"""Bytes per parameter; bitsandbytes keeps one fp32 scale per block of 256."""
MIN_8BIT_ELEMENTS: Final = 4096
"""Smaller tensors keep fp32 moments (bitsandbytes optimizer.py)."""
MIN_PAGED_ELEMENTS: Final = 100_000
TILE_TOKENS: Final = 4096
TILE_VOCABULARY: Final = 32768
"""TRL 1.16: TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE; the buffer has this width always."""
CPU_TILE_BYTES: Final = 29
"""TRL's tile backward in plain torch, per tile element: five fp32 tiles and a product's parts."""

CONTEXT_BYTES: Final = (int(0.22 * GIB), GIB // 2, int(0.9 * GIB))
"""CUDA context: L4 with lazy loading; usual; eager loading of kernels (§3.6, vram_runs.md §4.7)."""
PROCESS_BYTES: Final = (int(0.4 * GIB), int(0.5 * GIB), int(0.8 * GIB))
"""A CPU process that has imported torch, transformers, peft and trl: 0.47 GiB resident."""
NCCL_BYTES: Final = (int(0.334 * GIB), int(0.8 * GIB), int(1.5 * GIB))
"""Two GPUs, defaults; one communicator with its buffers; several communicators (§3.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One share of a moment."""

    component: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is alive, in torch's own count, at one candidate for the peak."""

    name: str
    terms: tuple[Term, ...]
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Predicted peak of one process on its device."""

    moments: tuple[Moment, ...]
    winner: str
    """Name of the moment with the most bytes."""
    allocated_bytes: int
    """Peak of torch allocations: the winner's total."""
    fragmentation_bytes: int
    reserved_bytes: int
    """What torch's allocator must take from the device: allocated and fragmentation."""
    context_bytes: int
    communication_bytes: int
    """NCCL's own buffers, outside torch's count; gathered layers are in the moments."""
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    """Device memory in use at the peak; a plan fits where `high_bytes` does."""
    reasons: tuple[str, ...]
    """Why `high_bytes` lies above `expected_bytes`."""

    @property
    def peak(self) -> Moment:
        """The moment that wins."""
        return next(moment for moment in self.moments if moment.name == self.winner)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The expected use of the device by component; sums to `expected_bytes`."""
        outside = (
            Term(component="context", num_bytes=self.context_bytes),
            Term(component="fragmentation", num_bytes=self.fragmentation_bytes),
            Term(component="communication", num_bytes=self.communication_bytes),
        )
        shares = dict.fromkeys(COMPONENTS, 0)
        for term in self.peak.terms + outside:
            shares[term.component] += term.num_bytes
        return tuple(Term(component=k, num_bytes=v) for k, v in shares.items() if v)


def estimate(model: Model, plan: Plan, *, backend: str = "cuda") -> MemoryEstimate:
    """Peak memory of `plan` for `model`, per device; `backend` "cpu" for a process without GPU.

    On a CPU the trainer keeps weights in fp32, for want of fast 16-bit arithmetic.
    """
    on_cpu = backend == "cpu"
    if on_cpu and plan.precision != "fp32":
        plan = replace(plan, precision="fp32")
    sizes = _Sizes(model, plan, on_cpu=on_cpu)
    found = (_loss_backward(sizes), _layer_backward(sizes), _optimizer_step(sizes))
    moments = tuple(_moment(n, s) for n, s in zip(MOMENTS, found, strict=True))
    peak = max(moments, key=lambda moment: moment.total_bytes)
    return _with_interval(plan, moments, peak, on_cpu=on_cpu)


def linear_params(model: Model) -> int:
    """Weights of the seven linears over all layers: N_l = L(2hq + 2h kv + 3hf) (§3)."""
    h = model.hidden_size
    per_layer = 2 * h * (model.query_width + model.kv_width) + 3 * h * model.intermediate_size
    return model.num_layers * per_layer


def adapter_shapes(model: Model, targets: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """(in, out) of each adapted linear of a layer; fused families join q,k,v and gate,up."""
    h, q, kv, f = model.hidden_size, model.query_width, model.kv_width, model.intermediate_size
    if is_fused(model):
        fused = []
        if "q_proj" in targets or "k_proj" in targets or "v_proj" in targets:
            fused.append((h, q + 2 * kv))
        if "o_proj" in targets:
            fused.append((q, h))
        if "gate_proj" in targets or "up_proj" in targets:
            fused.append((h, 2 * f))
        if "down_proj" in targets:
            fused.append((f, h))
        return tuple(fused)
    shapes = {
        "q_proj": (h, q),
        "k_proj": (h, kv),
        "v_proj": (h, kv),
        "o_proj": (q, h),
        "gate_proj": (h, f),
        "up_proj": (h, f),
        "down_proj": (f, h),
    }
    return tuple(shapes[name] for name in ALL_TARGETS if name in targets)


def adapter_params(model: Model, plan: Plan) -> int:
    """Trainable LoRA weights: P = L r sum(in + out) over the adapted linears (§3.1)."""
    shapes = adapter_shapes(model, plan.targets) if plan.adapts else ()
    return model.num_layers * plan.rank * sum([a + b for a, b in shapes])


def is_fused(model: Model) -> bool:
    """One linear computes q, k and v, another gate and up."""
    return model.model_type == "phi3"


def row_tokens(plan: Plan) -> int:
    """Length of a row that attention sees; packing flattens the micro-batch to one row (TRL)."""
    return plan.tokens_per_micro_batch if plan.packing else plan.seq_len


def has_mask(plan: Plan) -> bool:
    """SDPA gets an explicit mask where rows are padded or packed, else it is told "causal"."""
    return plan.attention == "sdpa" and (plan.packing or plan.micro_batch > 1)


def activation_bytes(model: Model, plan: Plan, *, on_cpu: bool = False) -> int:
    """Bytes one layer saves for its backward pass, per token (§3.4). Checked."""
    inputs = _input_bytes(model, plan, on_cpu=on_cpu)
    return (
        _norm_bytes(model, plan) + _attention_bytes(model, plan) + _mlp_bytes(model, plan) + inputs
    )


def _element_bytes(plan: Plan) -> int:
    """Of the tensors that flow between linears: the autocast type, or fp32."""
    return 4 if plan.precision == "fp32" else 2


def _autocasts_weights(plan: Plan) -> bool:
    """Trained weights are kept in fp32 and cast at use."""
    return plan.method == "full" and plan.precision in {"bf16", "fp16"}


def _autocasts_adapters(plan: Plan) -> bool:
    """PEFT keeps adapters of a 16-bit base in fp32; TRL makes those of a quantized base bf16."""
    return plan.method == "lora" and plan.precision in {"bf16", "fp16"}


def _stream_bytes(plan: Plan) -> int:
    """Of the residual stream: fp32 weights make it fp32 under autocast too."""
    return 4 if _autocasts_weights(plan) or plan.precision == "fp32" else 2


def _norm_bytes(model: Model, plan: Plan) -> int:
    """Two RMS norms: fp32 input and 1/rms; the normalised value too where its weight trains."""
    h, q, kv = model.hidden_size, model.query_width, model.kv_width
    element, full = _element_bytes(plan), plan.method == "full"
    # Gemma and OLMo 2 multiply by the weight before they cast back.
    upcast = model.model_type in {"gemma", "olmo2"}
    normalised = 4 if upcast else _stream_bytes(plan)
    total = 2 * (4 * h + 4 + (normalised * h if full else 0))
    if model.qk_norm:
        total += 4 * (q + kv)
        total += 8 if model.model_type == "olmo2" else 4 * (model.num_heads + model.num_kv_heads)
        if full:
            total += (4 if upcast else element) * (q + kv)
    return total


def _attention_bytes(model: Model, plan: Plan) -> int:
    """Rotated q, k, v, the output, and the softmax statistics or the whole scores."""
    q, kv, heads, element = model.query_width, model.kv_width, model.num_heads, _element_bytes(plan)
    length = row_tokens(plan)
    if plan.attention == "eager":
        scores = 4 if element == 4 else 6
        return 3 * element * q + scores * heads * length
    total = element * (2 * q + 2 * kv) + 4 * heads
    if has_mask(plan):
        # With a mask, grouped keys and values are repeated for every head, and each layer converts
        # the mask to numbers (sdpa_attention.py, aten convert_boolean_attn_mask).
        total += 2 * element * (q - kv) + element * length
    if is_fused(model):
        # v is a view: it keeps the whole q, k, v output.
        total += element * (q + kv)
    return total


def _mlp_bytes(model: Model, plan: Plan) -> int:
    """Gate before and after its activation, and up."""
    return 3 * _element_bytes(plan) * model.intermediate_size


def _input_bytes(model: Model, plan: Plan, *, on_cpu: bool) -> int:
    """Inputs of the linears whose weights (or adapters) train, dropout, and the rank-r values."""
    h, q, f = model.hidden_size, model.query_width, model.intermediate_size
    element = _element_bytes(plan)
    fused = is_fused(model)
    # The attention output is itself saved by SDPA, in o's own layout unless v is a view.
    shared_o = element * q if fused or plan.attention == "eager" else 0
    if plan.method == "full":
        copies = (2 if fused else 5) if _autocasts_weights(plan) else 2
        return element * (copies * h + f) + shared_o
    shapes = adapter_shapes(model, plan.targets)
    adapters = element * plan.rank * len(shapes)
    if plan.dropout > 0:
        # Each adapter drops its own copy. CUDA keeps a byte mask, the CPU a factor per element.
        factor = (4 if _autocasts_adapters(plan) else element) if on_cpu else 1
        return adapters + (element + factor) * sum(width for width, _ in shapes)
    if _autocasts_adapters(plan):
        # The fp32 input of each fp32 adapter is cast back for its own matmul.
        return adapters + element * sum(width for width, _ in shapes)
    targets = plan.targets
    shared = h if "q_proj" in targets or "k_proj" in targets or "v_proj" in targets else 0
    shared += h if "gate_proj" in targets or "up_proj" in targets else 0
    shared += f if "down_proj" in targets else 0
    return adapters + element * shared + (shared_o if "o_proj" in targets else 0)


class _Sizes:
    """What several moments need, computed once."""

    __slots__ = (
        "activation",
        "base",
        "cast_layer",
        "casts",
        "element",
        "embeddings",
        "frozen_unit",
        "gradients",
        "kept_gradients",
        "linears",
        "mask",
        "model",
        "moments",
        "moments_if_paged",
        "on_cpu",
        "plan",
        "residuals",
        "stream",
        "tokens",
        "weights_adapters",
    )

    def __init__(self, model: Model, plan: Plan, *, on_cpu: bool) -> None:
        self.model, self.plan, self.on_cpu = model, plan, on_cpu
        self.element, self.stream = _element_bytes(plan), _stream_bytes(plan)
        self.tokens = plan.tokens_per_micro_batch
        self.linears = linear_params(model)
        self.embeddings = model.vocab_size * model.hidden_size
        self.activation = activation_bytes(model, plan, on_cpu=on_cpu) * self.tokens
        self.residuals = model.num_layers * self.stream * model.hidden_size * self.tokens
        self.mask = self.tokens * row_tokens(plan) if has_mask(plan) else 0
        self._set_static()

    def _set_static(self) -> None:
        model, plan = self.model, self.plan
        shards = plan.num_gpus if plan.strategy == "fsdp" else 1
        adapters = adapter_params(model, plan)
        others = max(0, model.num_params - self.linears)
        base = _weight_bytes(self, others)
        states = _optimizer_bytes(model, plan, adapters)
        trained, width = (
            (model.num_params, 2 if plan.precision == "bf16_pure" else 4)
            if plan.method == "full"
            else (adapters, _adapter_bytes(plan))
        )
        self.weights_adapters = adapters * width // shards if plan.adapts else 0
        self.gradients = trained * width // shards
        self.moments, self.moments_if_paged = (int(n / shards) for n in states)
        self.base = int(base / shards)
        # Between micro-batches the gradients stay; a single one frees them at the step.
        self.kept_gradients = self.gradients if plan.accumulation > 1 else 0
        self.cast_layer, self.casts = self._casts(adapters)
        self.frozen_unit = self._communication(base, trained * width) if plan.num_gpus > 1 else 0

    def _casts(self, adapters: int) -> tuple[int, int]:
        """Autocast's 2-byte copies: of one layer, of all during the forward pass (§3.2)."""
        if _autocasts_weights(self.plan):
            # FSDP casts the gathered layer itself.
            total = 0 if self.plan.strategy == "fsdp" else 2 * self.linears
        else:
            total = 2 * adapters if _autocasts_adapters(self.plan) else 0
        return total // self.model.num_layers, total

    def _communication(self, base_bytes: float, gradient_bytes: int) -> int:
        """DDP's buckets, or FSDP2's gathered units and reduce buffer (§3.6)."""
        plan, model = self.plan, self.model
        if plan.strategy == "ddp":
            return gradient_bytes
        if plan.strategy != "fsdp":
            return 0
        narrow = min(1.0, self.element / 4) if _autocasts_weights(plan) else 1.0
        outside = self.embeddings * (1 if model.tied_embeddings else 2) * self.element
        others = max(0, model.num_params - self.linears) * _base_element_bytes(plan)
        layer = narrow * (base_bytes - others) / model.num_layers
        # Two layers (current and prefetched); the root unit (embedding, head) stays gathered.
        reduce_buffer = gradient_bytes // model.num_layers
        return int(2 * layer + outside + reduce_buffer)


def _adapter_bytes(plan: Plan) -> int:
    """Per adapter weight: fp32, or 16 bits for a quantized or a purely 16-bit base."""
    return 4 if _autocasts_adapters(plan) or plan.precision == "fp32" else 2


def _base_element_bytes(plan: Plan) -> int:
    """Per parameter that is never quantized."""
    return 4 if _autocasts_weights(plan) or plan.precision == "fp32" else 2


def _weight_bytes(sizes: _Sizes, others: int) -> float:
    """Base weights; 4-bit loading leaves embeddings, head, norms and biases in 16 bits (§3.2)."""
    element = _base_element_bytes(sizes.plan)
    linear = NF4_BYTES if sizes.plan.method == "qlora" else element
    return sizes.linears * linear + others * element


def _optimizer_bytes(model: Model, plan: Plan, adapters: int) -> tuple[float, float]:
    """AdamW's two moments: (always on the device, only at the step because paged) (§3.3)."""
    full = plan.method == "full"
    width = 2 if plan.precision == "bf16_pure" else 4
    if plan.optimizer == "adamw":
        if full:
            return 2 * width * model.num_params, 0
        return 2 * _adapter_bytes(plan) * adapters, 0
    paged = plan.optimizer.startswith("paged")
    if full:
        # transformers' Trainer overrides nn.Embedding to 32-bit moments; a tied head goes with it.
        embedding = model.vocab_size * model.hidden_size
        narrow = TWO_8BIT_MOMENTS * max(0, model.num_params - embedding)
        total = 8 * embedding + narrow
        return (0, total) if paged else (total, 0)
    resident = moving = 0.0
    for pair in adapter_shapes(model, plan.targets):
        for side in pair:
            count = side * plan.rank
            state = count * (TWO_8BIT_MOMENTS if count >= MIN_8BIT_ELEMENTS else 8)
            if paged and count >= MIN_PAGED_ELEMENTS:
                moving += state
            else:
                resident += state
    return resident * model.num_layers, moving * model.num_layers


def _static_terms(sizes: _Sizes) -> dict[str, float]:
    return {
        "weights": sizes.base,
        "adapters": sizes.weights_adapters,
        "optimizer": sizes.moments,
        "communication": sizes.frozen_unit,
    }


def _dequantized(sizes: _Sizes) -> float:
    """16-bit copy of the largest 4-bit linear and its fp32 block scales (bitsandbytes 0.50)."""
    if sizes.plan.method != "qlora":
        return 0
    h, q = sizes.model.hidden_size, sizes.model.query_width
    largest = h * max(sizes.model.intermediate_size * (2 if is_fused(sizes.model) else 1), q)
    return largest * (sizes.element + 4 / 64)


def _saved(sizes: _Sizes) -> int:
    """All activations kept at the end of the forward pass."""
    if sizes.plan.checkpointing:
        return sizes.residuals + sizes.mask
    return sizes.model.num_layers * sizes.activation + sizes.mask


def _loss_backward(sizes: _Sizes) -> dict[str, float]:
    """Moment (i): everything saved, and the head's share, which is the larger of three stages."""
    plan = sizes.plan
    shares = _static_terms(sizes)
    shares["gradients"] = sizes.kept_gradients
    shares["activations"] = _saved(sizes)
    # With checkpointing the casts die with the forward pass; else the graph holds them.
    shares["workspace"] = 0 if plan.checkpointing else sizes.casts
    head_gradient, logits, work, forward_logits = _head_stages(sizes)
    if plan.checkpointing and sizes.casts + forward_logits > head_gradient + logits + work:
        # The end of the forward pass: the casts of all layers still cached beside the loss.
        shares["workspace"] = sizes.casts
        shares["logits"] = forward_logits
        return shares
    shares["gradients"] += head_gradient
    shares["logits"] = logits
    shares["workspace"] += work
    return shares


def _head_stages(sizes: _Sizes) -> tuple[int, int, int, int]:
    """(head's gradient, logits, final norm's work) in the backward pass, logits in the forward.

    Chunked: hidden states and their fp32 gradient beside one tile (trl/kernels/chunked_logprob.py).
    Full: 12 V bytes per token, 10 V before the backward pass (§3.5). The final norm's backward
    alone takes 26 h per token in a 16-bit stream, 24 h in fp32: fp32 copies of its input and of
    each factor's gradient. [lab]
    """
    model, plan, h = sizes.model, sizes.plan, sizes.model.hidden_size
    full = plan.method == "full"
    kept = 12 if full and sizes.stream == 4 else (10 if full else 8)
    head_gradient = 0
    if full and plan.loss == "chunked":
        # Accumulated in fp32 whatever the weights are; the cast to them comes on top. With full
        # logits it is made after their peak.
        head_gradient = (6 if plan.precision == "bf16_pure" else 4) * sizes.embeddings
    if plan.loss == "chunked":
        forward = kept * h * sizes.tokens + _tile_bytes(sizes)
        logits = forward + 4 * h * sizes.tokens
    else:
        logits = kept * h * sizes.tokens + 12 * model.vocab_size * sizes.tokens
        if _autocasts_weights(plan):
            logits += 2 * sizes.embeddings
        forward = logits - 2 * model.vocab_size * sizes.tokens
    norm = (26 if sizes.stream == 2 else 24) * h * sizes.tokens
    work = max(0, norm - logits)
    return head_gradient, logits, work, forward


def _tile_bytes(sizes: _Sizes) -> int:
    """One tile of TRL's fused head and what its loop allocates beside it. Checked on both paths."""
    model, element = sizes.model, sizes.element
    rows, columns = min(sizes.tokens, TILE_TOKENS), min(model.vocab_size, TILE_VOCABULARY)
    buffer = rows * TILE_VOCABULARY * element
    weight_cast = columns * model.hidden_size * element if _autocasts_weights(sizes.plan) else 0
    if not sizes.on_cpu:
        return buffer + weight_cast
    return buffer + weight_cast + CPU_TILE_BYTES * rows * columns


def _layer_backward(sizes: _Sizes) -> dict[str, float]:
    """Moment (ii): one layer whole, its gradients in flight, and what the rest still holds.

    The first layer met holds all activations, the last one all gradients; the larger counts.
    """
    plan, model = sizes.plan, sizes.model
    shares = _static_terms(sizes)
    work = _layer_work(sizes)
    if plan.checkpointing:
        first = sizes.residuals + sizes.activation
    else:
        first = model.num_layers * sizes.activation
    head = sizes.embeddings * sizes.stream if plan.method == "full" else 0
    casts = sizes.cast_layer if plan.checkpointing else sizes.casts
    at_first = first + max(sizes.kept_gradients, head) + casts
    last = sizes.activation + (sizes.stream * model.hidden_size * sizes.tokens)
    at_last = last + sizes.gradients + sizes.cast_layer
    if at_first >= at_last:
        shares["gradients"] = max(sizes.kept_gradients, head)
        shares["activations"] = first + sizes.mask
    else:
        casts = sizes.cast_layer
        shares["gradients"] = sizes.gradients
        shares["activations"] = last + sizes.mask
    shares["workspace"] = work + casts + _dequantized(sizes)
    return shares


def _layer_work(sizes: _Sizes) -> int:
    """Gradients in flight inside a layer, at its largest stage; from live bytes of a Llama block.

    MLP stage: 4f (16-bit), 8f (fp32), 6f where down's input is not shared, with the gradient of
    the stream; fp32 adapters add their fp32 gradients (8h). Norm stage: 22h (16h in an fp32
    stream) once the MLP's share is freed.
    """
    model, plan, element = sizes.model, sizes.plan, sizes.element
    h, f = model.hidden_size, model.intermediate_size
    if plan.adapts and ("down_proj" not in plan.targets or _autocasts_adapters(plan)):
        mlp = 3 * element * f
    else:
        mlp = 2 * element * f
    mlp += 2 * h if sizes.stream == 2 else 0
    if _autocasts_adapters(plan) and not {"gate_proj", "up_proj"}.isdisjoint(plan.targets):
        mlp += 8 * h
    norm = (22 if sizes.stream == 2 else 16) * h
    freed = 4 * element * f
    return max(mlp, norm - freed) * sizes.tokens


def _optimizer_step(sizes: _Sizes) -> dict[str, float]:
    """Moment (iii): the activations are gone; fused AdamW makes no temporaries (§3.3)."""
    shares = _static_terms(sizes)
    shares["optimizer"] += sizes.moments_if_paged
    shares["gradients"] = sizes.gradients
    return shares


def _moment(name: str, shares: dict[str, float]) -> Moment:
    terms = tuple([Term(component=k, num_bytes=int(v)) for k, v in shares.items() if v > 0])
    return Moment(name=name, terms=terms, total_bytes=sum([t.num_bytes for t in terms]))


def _with_interval(
    plan: Plan, moments: tuple[Moment, ...], peak: Moment, *, on_cpu: bool
) -> MemoryEstimate:
    """Add what lies outside torch's count, as (low, expected, high).

    Fragmentation (§3.6): 5 % with rows of one length, 10 % where every batch has another, up to
    10 % and 15 %. A CPU process has no caching allocator; malloc keeps a little.
    """
    variable = plan.micro_batch > 1 and not plan.packing
    shares = (0.02, 0.05) if on_cpu else ((0.10, 0.15) if variable else (0.05, 0.10))
    allocated = peak.total_bytes
    fragmentation, worst = int(shares[0] * allocated), int(shares[1] * allocated)
    context = PROCESS_BYTES if on_cpu else CONTEXT_BYTES
    nccl = NCCL_BYTES if plan.num_gpus > 1 and not on_cpu else (0, 0, 0)
    return MemoryEstimate(
        moments=moments,
        winner=peak.name,
        allocated_bytes=allocated,
        fragmentation_bytes=fragmentation,
        reserved_bytes=allocated + fragmentation,
        context_bytes=context[1],
        communication_bytes=nccl[1],
        low_bytes=allocated + context[0] + nccl[0],
        expected_bytes=allocated + fragmentation + context[1] + nccl[1],
        high_bytes=allocated + worst + context[2] + nccl[2],
        reasons=_reasons(variable=variable, on_cpu=on_cpu, distributed=plan.num_gpus > 1),
    )


def _reasons(*, variable: bool, on_cpu: bool, distributed: bool) -> tuple[str, ...]:
    if on_cpu:
        return ("freed memory that malloc keeps", "libraries loaded later")
    reasons = ["kernels loaded later enlarge the CUDA context"]
    if variable:
        reasons.append("batches of different padded lengths fragment the allocator's memory")
    else:
        reasons.append("the allocator rounds sizes up and splits its segments")
    if distributed:
        reasons.append("NCCL opens more communicators")
    return tuple(reasons)
