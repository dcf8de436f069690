"""Small parts of a model, or vectors that scale them: IA3, BitFit, LayerNorm tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.spec import MethodSpec, Rate

if TYPE_CHECKING:
    from advisor.tape import Matrix
    from profiles.facts import Model


def num_scales(model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """IA3: a vector for the keys, the values, and the inner activations of each layer."""
    return model.num_layers * (2 * model.kv_width + model.intermediate_size)


def num_biases(model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """Biases of the linears, and norms that have some."""
    h, q, kv, f = model.hidden_size, model.query_width, model.kv_width, model.intermediate_size
    biases = (q + 2 * kv) * model.attention_bias + h * model.output_bias
    biases += ((2 if model.gated_mlp else 1) * f + h) * model.mlp_bias
    norms = h * model.norms_per_layer if model.norm == "layer" else 0
    return model.num_layers * (biases + norms)


def num_norms(model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """The weights of all norms."""
    return model.hidden_size * (model.num_layers * model.norms_per_layer + 1)


def without_biases(model: Model, _settings: Any) -> str:
    """BitFit has nothing to train in most recent families."""
    biases = model.attention_bias or model.output_bias or model.mlp_bias or model.head_bias
    if biases or model.norm == "layer":
        return ""
    return "BitFit trains biases and this model has none"


def _rate(value: float, reason: str) -> Any:
    return lambda _model, _settings: Rate(value, reason)


IA3: Final = MethodSpec(
    name="ia3",
    title="IA3",
    rehearsed=True,
    spares_first=True,
    added=num_scales,
    rate=_rate(3e-3, "the IA3 paper's; the documents give none"),
    default_rate=3e-3,
)
BITFIT: Final = MethodSpec(
    name="bitfit",
    title="BitFit",
    rehearsed=True,
    trained=num_biases,
    rate=_rate(4e-4, "the BitFit paper: 1e-4 to 1e-3; the documents give none"),
    default_rate=4e-4,
    unsupported=without_biases,
)
LN_TUNING: Final = MethodSpec(
    name="ln_tuning",
    title="LayerNorm tuning",
    rehearsed=True,
    trained=num_norms,
    rate=_rate(1e-4, "a guess below adapters'; the documents give none"),
    default_rate=1e-4,
)
METHODS: Final = (IA3, BITFIT, LN_TUNING)
