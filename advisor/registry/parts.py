"""Small parts of a model, or vectors that scale them: IA3, BitFit, LayerNorm tuning (PEFT 0.21)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.continued import IA3_FILE, LN_FILE
from advisor.registry.handover import PEFT_AND_MERGED, Quoted
from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, Settings, key, numbers_of
from advisor.tape import per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

LLAMA_STYLE: Final = frozenset(
    (
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        *("olmo2", "granite", "cohere", "cohere2", "smollm3"),
    )
)
"""Families whose linears have Llama's names."""
SCALED_OUTPUTS: Final = ("k_proj", "v_proj")
SCALED_INPUT: Final = "down_proj"
"""What IA3 scales of a Llama-style block (arXiv 2205.05638, section 3.3)."""


@dataclass(frozen=True, slots=True)
class Parts(Settings):
    """[method] of methods that train small parts of layers."""

    layers: str | tuple[int, ...] = key(
        "all", "numbers of the layers that train, from 0 on", choices=("all",), layers=True
    )

    def adapted_layers(self, num_layers: int) -> Sequence[int]:
        """As set; numbers that a model does not have are left out."""
        return numbers_of(self.layers, num_layers)


def num_layers(model: Model, settings: Parts) -> int:
    """That train."""
    return len(settings.adapted_layers(model.num_layers))


def num_scales(model: Model, settings: Parts, _matrices: Sequence[Matrix]) -> int:
    """IA3: a vector for the keys, the values, and the inner activations of each layer."""
    return num_layers(model, settings) * (2 * model.kv_width + model.intermediate_size)


def num_biases(model: Model, settings: Parts, _matrices: Sequence[Matrix]) -> int:
    """Biases of the linears, and norms that have some."""
    h, q, kv, f = model.hidden_size, model.query_width, model.kv_width, model.intermediate_size
    biases = (q + 2 * kv) * model.attention_bias + h * model.output_bias
    biases += ((2 if model.gated_mlp else 1) * f + h) * model.mlp_bias
    norms = h * model.norms_per_layer if model.norm == "layer" else 0
    return num_layers(model, settings) * (biases + norms)


def num_norms(model: Model, settings: Parts, _matrices: Sequence[Matrix]) -> int:
    """The weights of norms as wide as the model, and biases where they have some.

    The final one is of no layer: it trains where all layers do.
    """
    each = model.hidden_size * (2 if model.norm == "layer" else 1)
    return each * (num_layers(model, settings) * model.norms_per_layer + (settings.layers == "all"))


def scaled(tape: LayerTape, _settings: Any, x: Value, result: Value, matrix: Matrix) -> Value:
    """PEFT: keys and values times a vector in its type; the MLP's inner values before `down`."""
    n, width = result.elements, result.width
    if matrix.name in SCALED_OUTPUTS:
        work = per_token(4 * n)
        wide = tape.value("scale", (result,), n, 4, saved=(result,), back_work=work, weight_flops=1)
        return tape.cast(wide, width)
    if matrix.name == SCALED_INPUT:
        wide = tape.cast(x, 4)
        return tape.value(
            name="scale",
            inputs=(result, wide),
            size=n,
            width=width,
            saved=(wide,),
            hands_on=True,
            weight_flops=1,
        )
    return result


def shows(settings: Parts, model: Model) -> tuple[Hyperparameter, ...]:
    """Which layers train, where it is not all."""
    if settings.layers == "all":
        return ()
    words = f"{num_layers(model, settings)} of {model.num_layers}"
    return (Hyperparameter("layers", words, "as asked for"),)


def without_biases(model: Model, _settings: Any) -> str:
    """BitFit has nothing to train in most recent families."""
    biases = model.attention_bias or model.output_bias or model.mlp_bias or model.head_bias
    if biases or model.norm == "layer":
        return ""
    return "BitFit trains biases and this model has none"


def without_scaled(model: Model, _settings: Any) -> str:
    """IA3 scales linears of a Llama-style block; those of other blocks have no such parts."""
    if model.experts is None and model.model_type in LLAMA_STYLE:
        return ""
    return f"IA3 scales keys, values and the MLP of Llama-style blocks, not of {model.model_type}"


def _rate(value: float, reason: str) -> Any:
    return lambda _model, _settings: Rate(value, reason)


IA3: Final = MethodSpec(
    name="ia3",
    continued=IA3_FILE,
    title="IA3",
    family="scaling and bias",
    takers=PEFT_AND_MERGED,
    reaches_input=False,
    asks_for_input=True,
    settings=Parts,
    shows=shows,
    rehearsed=True,
    builder="parts",
    spares_first=True,
    added=num_scales,
    around_linear=scaled,
    unsupported=without_scaled,
    rate=_rate(3e-3, "the IA3 paper's; the documents give none"),
    default_rate=3e-3,
)
BITFIT: Final = MethodSpec(
    name="bitfit",
    title="BitFit",
    family="scaling and bias",
    quoted=Quoted("70-80 %", "3-5 %"),
    reaches_input=False,
    asks_for_input=True,
    settings=Parts,
    shows=shows,
    rehearsed=True,
    builder="parts",
    trained=num_biases,
    rate=_rate(4e-4, "the BitFit paper: 1e-4 to 1e-3; the documents give none"),
    default_rate=4e-4,
    unsupported=without_biases,
)
LN_TUNING: Final = MethodSpec(
    name="ln_tuning",
    continued=LN_FILE,
    title="LayerNorm tuning",
    family="scaling and bias",
    takers=PEFT_AND_MERGED,
    reaches_input=False,
    asks_for_input=True,
    settings=Parts,
    shows=shows,
    rehearsed=True,
    builder="parts",
    spares_first=True,
    trains_norms=True,
    added=num_norms,
    rate=_rate(1e-2, "a small model learnt at it and not at 1e-4; the documents give none"),
    default_rate=1e-2,
)
METHODS: Final = (IA3, BITFIT, LN_TUNING)
