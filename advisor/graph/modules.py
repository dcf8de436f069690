"""The modules of a decoder layer as operations on a tape, after transformers 5.23.

Each says what its counterpart in the model's code computes and what autograd keeps of it. What a
method puts around a linear is the method's own business (`advisor.registry`); which modules a layer
has is layer.py's; what they cost in a whole model, candidates.py's.

Symbols: h hidden size, q and kv widths of queries and keys, f width of the MLP, r rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.graph.attention import STATISTIC
from advisor.graph.matmuls import Matmuls
from advisor.precision import base_width, frozen_width, norm_width
from advisor.registry.beside import NORMS
from advisor.registry.low_rank import PARTS
from advisor.tape import NOTHING, Matrix, Tape, Value, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

INDEX: Final = 8
"""Bytes of an index (int64)."""
OWN_LINEARS: Final = frozenset({"falcon"})
"""Families whose linears are a class of their own, which transformers 5 does not quantize."""
SPELT_OUT_GELU: Final = frozenset({"phi", "gpt2", "gptj"})
"""Families whose activation is transformers' NewGELUActivation ("gelu_new")."""


class LayerModules(Matmuls):
    """Appends the modules of one layer."""

    def __init__(
        self, tape: Tape, model: Model, plan: Plan, *, trains: bool, adapts: bool = True
    ) -> None:
        super().__init__(tape, model, plan)
        self.adapts = adapts
        """The method adds to this layer what it adds to linears."""
        self.trains = trains and plan.method.trains_base
        """The layer's own weights train."""
        self.trains_norms = trains and (
            plan.method.trains_norms or NORMS in plan.settings.whole_modules
        )
        is_frozen = plan.method.trains_base and not trains
        self.base_width = frozen_width(plan) if is_frozen else base_width(plan)
        self.norm_width = frozen_width(plan) if is_frozen else norm_width(plan)

    # Linears

    def linear(self, x: Value, name: str, n_in: int, n_out: int) -> Value:
        """A linear of the layer, with what the method puts around it."""
        rank = self.plan.method.rank(self.plan.settings, self.model, name) if self.adapts else 0
        quantizable = self._quantizable()
        matrix = self.tape.add_matrix(name, n_in, n_out, rank=rank, quantizable=quantizable)
        return self.around(x, self._base(self._before(x, matrix), name, n_in, n_out), matrix)

    def _before(self, x: Value, matrix: Matrix) -> Value:
        """What the method makes of a linear's input."""
        change = self.plan.method.before_linear
        return change(self, self.plan.settings, x, matrix) if change else x

    def around(self, x: Value, result: Value, matrix: Matrix) -> Value:
        """What the method makes of a linear's result."""
        change = self.plan.method.around_linear if self.adapts else None
        return change(self, self.plan.settings, x, result, matrix) if change else result

    def grouped_linear(self, x: Value, name: str, n_in: int, widths: tuple[int, ...]) -> Value:
        """One linear for several parts, which a method may treat one by one."""
        n_out, method = sum(widths), self.plan.method
        matrix = self.tape.add_matrix(name, n_in, n_out, quantizable=True)
        result = self._base(self._before(x, matrix), name, n_in, n_out)
        if method.around_parts is None or not self.adapts:
            return self.around(x, result, matrix)
        parts = tuple(zip(PARTS[name], widths, strict=True))
        return method.around_parts(self, self.plan.settings, x, result, name, parts)

    def beside_attention(self, q: Value, out: Value) -> Value:
        """What the method puts beside attention."""
        change = self.plan.method.beside_attention if self.adapts else None
        return change(self, self.plan.settings, q, out) if change else out

    def behind(self, x: Value, result: Value, name: str) -> Value:
        """What the method makes of the result of attention or MLP, before it is added."""
        change = self.plan.method.behind_module if self.adapts else None
        return change(self, self.plan.settings, x, result, name) if change else result

    def _base(self, x: Value, name: str, n_in: int, n_out: int) -> Value:
        """The base weight alone: frozen or trained, 16 bits or quantized."""
        weights = n_in * n_out
        if self.plan.base_bits < 16 and not self.trains and self._quantizable():
            return self.quantized(x, name, weights, n_out)
        flat = self.plan.shards_weights and self.plan.framework.flat_parameters
        trains = self.trains or flat
        return self.matmul(x, name, weights, n_out, self.base_width, trains=trains)

    def _quantizable(self) -> bool:
        own_class = self.model.model_type in OWN_LINEARS
        return self.plan.framework.quantizes_subclasses or not own_class

    # Norms

    def norm(self, x: Value, size: int) -> Value:
        """The family's norm over `size` elements, `x.elements / size` times a token."""
        if self.model.model_type.startswith("cohere"):
            return self._spelt_out_layer_norm(x, size)
        if self.model.norm != "rms":
            return self._layer_norm(x, size)
        if self.plan.framework.fused_norm:
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
            name="mul",
            inputs=(centred, scale),
            size=n,
            width=4,
            saved=(centred, scale),
            back_work=per_token(4 * n),
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
            name="layer_norm",
            inputs=(x,),
            size=x.elements,
            width=x.width,
            saved=(x,),
            kept=statistics,
            weight_flops=float(weighed),
        )

    def _fused_norm(self, x: Value, size: int) -> Value:
        kept = per_token(STATISTIC * x.elements / size)
        return self.value(
            name="rms_norm",
            inputs=(x,),
            size=x.elements,
            width=x.width,
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
            name="mul",
            inputs=(wide, scale),
            size=n,
            width=4,
            saved=(wide, scale),
            back_work=per_token(4 * n),
        )
        upcasts = self.model.model_type.startswith(("gemma", "olmo2"))
        normed = normed if upcasts else self.cast(normed, x.width)
        width = 4 if upcasts else max(x.width, self.norm_width)
        weighed = self.value(
            name="weight",
            inputs=(normed,),
            size=n,
            width=width,
            saved=(normed,) if self.trains_norms else (),
            back_work=per_token(width * n) if self.trains_norms else NOTHING,
            weight_flops=float(self.trains_norms),
        )
        return self.cast(weighed, x.width) if upcasts else weighed

    # MLPs

    def gated(self, gate: Value, up: Value) -> Value:
        """act(gate) * up."""
        n, width = gate.elements, gate.width
        if self.plan.framework.fused_mlp:
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
