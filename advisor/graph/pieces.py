"""The pieces of a decoder layer as operations on a tape, after transformers 5.23 and PEFT 0.21.

Each method says what its counterpart in the model's code computes and what autograd keeps of it.
Which pieces a layer has is layer.py's business; what they cost in a whole model, moments.py's.

Symbols: h hidden size, q and kv widths of queries and keys, f width of the MLP, r rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from advisor.plan import LLAMA_ADAPTERS, MLP_TARGETS, WHOLE_METHODS
from advisor.precision import autocasts, base_width, flow_width, norm_width, trained_width
from advisor.tape import NOTHING, Matrix, Size, Tape, Value, once, per_pair, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

INDEX: Final = 8
"""Bytes of an index (int64)."""
STATISTIC: Final = 4
"""Bytes of a row's fp32 statistic."""
DEQUANTIZED_SCALES: Final = 4 / 64
"""fp32 scales of 4-bit blocks, restored from their 8 bits for each use (bitsandbytes 0.50)."""


_PARTS: Final = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "q_a_proj": ("q_proj",),
    "q_b_proj": ("q_proj",),
    "kv_a_proj_with_mqa": ("k_proj", "v_proj"),
    "kv_b_proj": ("k_proj", "v_proj"),
}
"""Linears that do the work of several of Llama's."""


SOFTCAPPED: Final = frozenset({"gemma2"})
"""Families that squeeze attention scores and logits through tanh."""
OWN_LINEARS: Final = frozenset({"falcon"})
"""Families whose linears are a class of their own, which transformers 5 does not quantize."""
SPELT_OUT_GELU: Final = frozenset({"phi", "gpt2", "gptj"})
"""Families whose activation is transformers' NewGELUActivation ("gelu_new")."""
WITHOUT_SDPA: Final = SOFTCAPPED | {"gpt_oss"}
"""Families whose attention transformers runs eagerly unless flash-attn is asked for."""


def attention_of(model: Model, plan: Plan) -> str:
    """The attention that transformers takes for this family."""
    if plan.attention != "sdpa":
        return plan.attention
    if model.model_type in WITHOUT_SDPA:
        return "eager"
    # Falcon-7B hands its one key head over as it is, which only SDPA's plain math takes.
    return "math" if model.model_type == "falcon" and model.num_kv_heads == 1 else "sdpa"


def is_target(plan: Plan, name: str) -> bool:
    """The plan puts an adapter on this linear, or on one that it stands for."""
    return not {name, *_PARTS.get(name, ())}.isdisjoint(plan.targets)


class Pieces:
    """Appends pieces to one tape for one model and plan."""

    def __init__(self, tape: Tape, model: Model, plan: Plan, *, trains: bool) -> None:
        self.tape, self.model, self.plan = tape, model, plan
        self.trains = trains and plan.method in WHOLE_METHODS
        """The layer's own weights train."""
        self.trains_norms = self.trains or plan.method == "llama_adapter_v2"
        self.adapts = plan.adapts
        self.autocasts = autocasts(plan)
        self.flow = flow_width(plan)
        self.trained = trained_width(plan)
        self.norm_width = norm_width(plan)

    def value(
        self, name: str, inputs: tuple[Value, ...], size: float, width: int, **kw: Any
    ) -> Value:
        """An operation whose result has `size` elements of `width` bytes a token."""
        return self.tape.op(name, inputs, per_token(size * width), width, **kw)

    def cast(self, x: Value, width: int) -> Value:
        """`x` in another type, or itself."""
        if x.width == width:
            return x
        return self.value("cast", (x,), x.elements, width)

    def add(self, a: Value, b: Value) -> Value:
        """Sum; both get the gradient of the result, cast back where it is wider."""
        width = max(a.width, b.width)
        a, b = self.promoted(a, width), self.promoted(b, width)
        return self.value("add", (a, b), a.elements, width, hands_on=True)

    def promoted(self, x: Value, width: int) -> Value:
        """What a kernel reads in a wider type than it has: only the gradient is a new tensor."""
        if x.width == width:
            return x
        return self.tape.promoted(x, width)

    # Linears

    def linear(self, x: Value, name: str, n_in: int, n_out: int) -> Value:
        """A linear of the layer, with its adapter if the plan targets it."""
        # Beside experts PEFT takes the MLP's names for theirs, and no plain linear's.
        taken = self.model.experts is not None and name in MLP_TARGETS
        adapts = self.adapts and not taken and is_target(self.plan, name)
        rank = self.plan.rank if adapts else 0
        quantizable = self._quantizable()
        self.tape.matrices.append(Matrix(name, n_in, n_out, 1, rank, quantizable=quantizable))
        result = self.scaled(self._base(x, name, n_in, n_out))
        return self._adapted(x, result, name, n_in, n_out) if adapts else result

    def grouped_linear(self, x: Value, name: str, n_in: int, widths: tuple[int, ...]) -> Value:
        """One linear for several parts, each part with an adapter of its own (lit-gpt's LoRA)."""
        n_out = sum(widths)
        self.tape.matrices.append(Matrix(name, n_in, n_out, 1, 0, quantizable=True))
        result = self.scaled(self._base(x, name, n_in, n_out))
        targets = zip(_PARTS[name], widths, strict=True)
        chosen = [width for part, width in targets if self.adapts and is_target(self.plan, part)]
        if not chosen:
            return result
        rank, width = self.plan.rank, self.trained
        for part in chosen:
            self.tape.matrices.append(Matrix(name, n_in, part, 1, rank, quantizable=False))
        x = self.cast(x, width)
        if self.plan.dropout > 0:
            x = self.value("dropout", (x,), n_in, width, kept=per_token(n_in))
        ranks, part = rank * len(chosen), sum(chosen)
        low = self.matmul(x, f"{name}.lora_A", ranks * n_in, ranks, width, trains=True)
        high = self.matmul(low, f"{name}.lora_B", rank * part, part, width, trains=True)
        if part < n_out:
            # Filled up with zeros; index_copy keeps what it copies.
            high = self.value("index_copy", (high,), n_out, high.width, saved=(high,))
        return self.add(result, self.value("scale", (high,), n_out, high.width))

    def scaled(self, x: Value) -> Value:
        """LLaMA-Adapter v2: (Wx + bias) * scale, both trained."""
        if self.plan.method != "llama_adapter_v2":
            return x
        x = self.value("bias", (x,), x.elements, x.width, hands_on=True, weight_flops=1)
        return self.value("scale", (x,), x.elements, x.width, saved=(x,), weight_flops=1)

    def prompted(self, q: Value, out: Value) -> Value:
        """LLaMA-Adapter: attention to a layer's own prompts, times a gate, beside the usual one."""
        if self.plan.method not in LLAMA_ADAPTERS:
            return out
        statistics = per_token(STATISTIC * self.model.num_heads)
        beside = self.value(
            *("prompts", (q,), q.elements, q.width),
            saved=(q,),
            saves_output=True,
            kept=statistics,
            weight_flops=1,
        )
        return self.add(out, beside)

    def _base(self, x: Value, name: str, n_in: int, n_out: int) -> Value:
        """The base weight alone: frozen or trained, 16 bits or quantized."""
        weights = n_in * n_out
        if self.plan.base_bits < 16 and not self.trains and self._quantizable():
            return self.quantized(x, name, weights, n_out)
        flat = self.plan.shards_weights and self.plan.stack.flat_parameters
        trains = self.trains or flat
        return self.matmul(x, name, weights, n_out, base_width(self.plan), trains=trains)

    def _quantizable(self) -> bool:
        own_class = self.model.model_type in OWN_LINEARS
        return self.plan.stack.quantizes_subclasses or not own_class

    def matmul(
        self, x: Value, name: str, weights: int, n_out: float, width: int, *, trains: bool
    ) -> Value:
        """Product with a matrix of `width` bytes an element; autocast makes 16-bit copies."""
        flow = 2 if self.autocasts else width
        x = self.cast(x, flow)
        # What FSDP gathers, it casts itself.
        casts = self.autocasts and width == 4 and not self.plan.shards_weights
        kept = once(2 * weights) if casts else NOTHING
        if not trains:
            return self.value(name, (x,), n_out, flow, kept=kept, flops=2 * weights)
        grad, work = self.weight_gradient(weights, flow)
        return self.value(
            *(name, (x,), n_out, flow),
            saved=(x,),
            kept=kept,
            weight_grad=grad,
            back_work=work,
            flops=2 * weights,
            weight_flops=2 * weights,
        )

    def weight_gradient(self, weights: float, flow: int) -> tuple[Size, Size]:
        """(lasting, passing) bytes; autocast's own gradient is cast to the weight's type."""
        if self.plan.shards_weights:
            return once(flow * weights), NOTHING  # and then reduced to a shard
        lasting = self.trained * weights
        passing = flow * weights if flow != self.trained else 0
        return once(lasting), once(passing)

    def quantized(self, x: Value, name: str, weights: int, n_out: float) -> Value:
        """bitsandbytes: the weight in 16 bits for the time of the matmul, in both directions."""
        copy = once(self.dequantized(weights))
        entered = self.cast(x, 2)
        result = self.value(
            *(name, (entered,), n_out, 2),
            saved=(entered,) if self.plan.stack.keeps_quantized_input else (),
            work=copy,
            back_work=copy,
            flops=2 * weights,
        )
        return self.cast(result, x.width)

    def dequantized(self, weights: int) -> float:
        """Bytes of a quantized weight made whole for a matmul."""
        plan = self.plan
        if plan.stack.gptq_group:
            return 2 * weights
        scales = DEQUANTIZED_SCALES if plan.base_bits == 4 and plan.double_quant else 0
        copies = 2 if plan.stack.dequantizes_twice else 1
        return weights * (2 * copies + scales)

    def _adapted(self, x: Value, result: Value, name: str, n_in: int, n_out: int) -> Value:
        """PEFT: result + B(A(dropout(x))) * scaling, in the adapter's type or under autocast."""
        if self.plan.stack.fused_adapters and self.plan.base_bits < 16:
            return self._fused_adapted(x, result, n_in, n_out)
        rank, width = self.plan.rank, self.trained
        entered = x
        x = wide = self.cast(x, width)
        if self.plan.dropout > 0:
            x = self.value("dropout", (x,), n_in, width, kept=per_token(n_in))
        low = self.matmul(x, f"{name}.lora_A", rank * n_in, rank, width, trains=True)
        high = self.matmul(low, f"{name}.lora_B", rank * n_out, n_out, width, trains=True)
        scaled = self.value("scale", (high,), n_out, high.width)
        total = self.cast(self.add(result, scaled), result.width)
        self.tape.hold(entered, wide)
        return total

    def _fused_adapted(self, x: Value, result: Value, n_in: int, n_out: int) -> Value:
        """One kernel adds the adapter's product to the result in place."""
        x = entered = self.cast(x, 2)
        weights = self.plan.rank * (n_in + n_out)
        if self.plan.dropout > 0:
            x = self.value("dropout", (x,), n_in, 2)
        return self.value(
            *("fused_lora", (self.cast(result, 2), entered, x), n_out, 2),
            saved=(entered, x),
            weight_grad=once(self.trained * weights),
            flops=2 * weights,
            weight_flops=2 * weights,
        )

    # Norms

    def norm(self, x: Value, size: int) -> Value:
        """The family's norm over `size` elements, `x.elements / size` times a token."""
        if self.model.model_type.startswith("cohere"):
            return self._spelt_out_layer_norm(x, size)
        if self.model.norm != "rms":
            return self._layer_norm(x, size)
        if self.plan.stack.fused_norm:
            return self._fused_norm(x, size)
        return self._rms_norm(x, size)

    def _spelt_out_layer_norm(self, x: Value, size: int) -> Value:
        """Cohere: (x - mean) * rsqrt(mean((x - mean)^2)) * weight in fp32, then cast back."""
        n, rows = x.elements, x.elements / size
        wide = self.cast(x, 4)
        centred = self.value("sub", (wide,), n, 4)
        square = self.value("pow", (centred,), n, 4, saved=(centred,), back_work=per_token(8 * n))
        scale = self.value(
            "rsqrt", (self.value("mean", (square,), rows, 4),), rows, 4, saves_output=True
        )
        centred = self.value("sub", (wide,), n, 4)
        normed = self.value(
            *("mul", (centred, scale), n, 4), saved=(centred, scale), back_work=per_token(4 * n)
        )
        saved = (normed,) if self.trains_norms else ()
        weighed = self.value(
            "weight", (normed,), n, 4, saved=saved, weight_flops=float(self.trains_norms)
        )
        return self.cast(weighed, x.width)

    def _layer_norm(self, x: Value, size: int) -> Value:
        """As torch's kernel: it keeps its input and two statistics; autocast runs it in fp32."""
        x = self.cast(x, 4) if self.autocasts else x
        statistics = per_token(2 * STATISTIC * x.elements / size)
        weighed = self.trains_norms and self.model.norm != "layer_bare"
        return self.value(
            *("layer_norm", (x,), x.elements, x.width),
            saved=(x,),
            kept=statistics,
            weight_flops=float(weighed),
        )

    def _fused_norm(self, x: Value, size: int) -> Value:
        kept = per_token(STATISTIC * x.elements / size)
        return self.value(
            *("rms_norm", (x,), x.elements, x.width),
            saved=(x,),
            kept=kept,
            weight_flops=float(self.trains_norms),
        )

    def _rms_norm(self, x: Value, size: int) -> Value:
        """x.float() * rsqrt(mean(x^2)), cast back, times the weight (Gemma: cast back last)."""
        n, rows = x.elements, x.elements / size
        wide = self.cast(x, 4)
        # pow's backward holds x^1, its double and the product (derivatives.yaml, pow_backward).
        square = self.value("pow", (wide,), n, 4, saved=(wide,), back_work=per_token(8 * n))
        mean = self.value("mean", (square,), rows, 4)
        scale = self.value("rsqrt", (mean,), rows, 4, saves_output=True)
        normed = self.value(
            *("mul", (wide, scale), n, 4), saved=(wide, scale), back_work=per_token(4 * n)
        )
        upcasts = self.model.model_type.startswith(("gemma", "olmo2"))
        normed = normed if upcasts else self.cast(normed, x.width)
        width = 4 if upcasts else max(x.width, self.norm_width)
        weighed = self.value(
            *("weight", (normed,), n, width),
            saved=(normed,) if self.trains_norms else (),
            back_work=per_token(width * n) if self.trains_norms else NOTHING,
            weight_flops=float(self.trains_norms),
        )
        return self.cast(weighed, x.width) if upcasts else weighed

    # Attention

    def rotary(self, x: Value) -> Value:
        """Make x cos + rotate_half(x) sin: products and the rotated copy pass by."""
        if self.plan.stack.fused_rope:
            return self.value("rotary", (x,), x.elements, x.width, hands_on=True)
        passing = per_token(2 * x.elements * x.width)
        return self.value("rotary", (x,), x.elements, x.width, work=passing, back_work=passing)

    def attention(self, q: Value, k: Value, v: Value, *, heads: int, masked: bool) -> Value:
        """Softmax attention by the plan's kernel; the result has v's width for every head."""
        if self.autocasts:
            q, k, v = (self.cast(x, 2) for x in (q, k, v))
        kernel = attention_of(self.model, self.plan)
        if kernel == "eager":
            return self._eager(q, k, v, heads)
        if kernel == "math":
            return self._math(q, k, v, heads)
        if self.plan.attention == "flash":
            # transformers casts for flash-attn, which knows 16-bit types only.
            q, k, v = self.cast(q, 2), self.cast(k, 2), self.cast(v, 2)
        if masked or self.plan.stack.expanded_kv:
            k, v = self._expanded(k, q), self._expanded(v, q)
        size = q.elements * v.elements / k.elements
        kept = per_token(STATISTIC * heads)
        back = per_token(STATISTIC * heads)
        if masked and self.plan.attention == "sdpa":
            # aten turns the boolean mask into numbers once a call.
            kept = kept.plus(per_pair(q.width))
        elif not self.plan.stack.efficient_attention:
            # flash-attn 2: fp32 sums of dq; dk and dv for every query head where heads share them.
            shared = 2 * (q.elements - k.elements) * q.width
            back = back.plus(per_token(4 * q.elements + shared))
        return self.value(
            *("attention", (q, k, v), size, q.width),
            saved=(q, k, v),
            saves_output=True,
            kept=kept,
            back_work=back,
            pair_flops=2 * (q.elements + size),
        )

    def _expanded(self, x: Value, q: Value) -> Value:
        """Keys or values for every query head; a single one is only looked at several times."""
        if x.elements == q.elements:
            return x
        if self.model.num_kv_heads == 1 and not self.plan.stack.heads_first:
            return self.tape.expanded(x, q.elements)
        return self.value("repeat_kv", (x,), q.elements, x.width)

    def _eager(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        """Scores as tensors: product, scaled, masked, fp32 softmax, cast, times v."""
        k, v = self._expanded(k, q), self._expanded(v, q)
        width, n = q.width, heads
        scores = self._pairs("scores", (q, k), n, width, saved=(q, k), flops=2 * q.elements)
        scores = self._pairs("scale", (scores,), n, width)
        if self.model.model_type in SOFTCAPPED:
            scores = self._pairs("divide", (scores,), n, width)
            scores = self._pairs("tanh", (scores,), n, width, saves_output=True)
            scores = self._pairs("multiply", (scores,), n, width)
        scores = self._pairs("mask", (scores,), n, width, hands_on=True)
        if width != 4 and self.plan.precision != "fp16":
            # Only fp16 scores are read as they are by the fp32 softmax (aten softmax, CUDA).
            scores = self._pairs("cast", (scores,), n, 4)
        # CUDA's softmax backward makes grad * output first (aten SoftMax.cu).
        shares = self._pairs(
            *("softmax", (scores,), n, 4), saves_output=True, back_work=per_pair(4 * n)
        )
        if width != 4:
            shares = self._pairs("cast", (shares,), n, width)
        out = self.tape.op(
            "attention",
            (shares, v),
            per_token(q.elements * width),
            width,
            saved=(shares, v),
            pair_flops=2 * q.elements,
        )
        return self.value("contiguous", (out,), q.elements, width)

    def _math(self, q: Value, k: Value, v: Value, heads: int) -> Value:
        """SDPA without a kernel: scaled fp32 queries and keys, fp32 scores (attention.cpp)."""
        width, n = q.width, heads
        wide = width if self.plan.stack.narrow_math else 4
        v = self.cast(v, wide)
        q, k = (self.value("scale", (self.cast(x, wide),), x.elements, wide) for x in (q, k))
        scores = self._pairs("scores", (q, k), n, wide, saved=(q, k), flops=2 * q.elements)
        scores = self._pairs("mask", (scores,), n, wide, hands_on=True)
        shares = self._pairs(
            *("softmax", (scores,), n, wide), saves_output=True, back_work=per_pair(wide * n)
        )
        size = per_token(q.elements * wide)
        flops = 2 * q.elements
        out = self.tape.op(
            *("attention", (shares, v), size, wide), saved=(shares, v), pair_flops=flops
        )
        return self.cast(out, width)

    def _pairs(
        self,
        name: str,
        inputs: tuple[Value, ...],
        heads: int,
        width: int,
        *,
        flops: float = 0,
        **kw: Any,
    ) -> Value:
        return self.tape.op(name, inputs, per_pair(heads * width), width, pair_flops=flops, **kw)

    # MLPs

    def gated(self, gate: Value, up: Value) -> Value:
        """act(gate) * up."""
        n, width = gate.elements, gate.width
        if self.plan.stack.fused_mlp:
            return self.value("swiglu", (gate, up), n, width, saved=(gate, up))
        active = self.activated(gate)
        return self.value("mul", (active, up), n, width, saved=(active, up))

    def activated(self, x: Value) -> Value:
        """SiLU or GELU: the input is kept. Two families spell GELU's tanh form out in Python."""
        n, width = x.elements, x.width
        if self.model.model_type not in SPELT_OUT_GELU:
            return self.value("activation", (x,), n, width, saved=(x,))
        half = self.value("half", (x,), n, width)
        # Autocast raises to powers in fp32, and what follows stays there.
        wide = self.cast(x, 4) if self.autocasts else x
        width = wide.width
        cube = self.value("pow", (wide,), n, width, saved=(wide,), back_work=per_token(8 * n))
        inner = self.add(x, self.value("scale", (cube,), n, width))
        inner = self.value("scale", (inner,), n, width)
        inner = self.value("tanh", (inner,), n, width, saves_output=True)
        share = self.value("one_plus", (inner,), n, width)
        half_read = self.promoted(half, width)
        return self.value("mul", (half_read, share), n, width, saved=(half, share))
