"""Adapters that are no low-rank product: bottlenecks in every layer, and LLaMA-Adapter.

LLaMA-Adapter is lit-gpt's, ten learned prompts for each layer's attention from the third on; in v2
a scale and a bias on every linear, and the norms, train too. It is not offered; published runs use
it, and the estimate is held against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, Settings, key
from advisor.tape import per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

PROMPTS: Final = 10
UNPROMPTED: Final = 2
"""LLaMA-Adapter: prompts of a layer, and layers that have none."""
STATISTIC: Final = 4
"""Bytes of a row's fp32 statistic."""


@dataclass(frozen=True, slots=True)
class Bottleneck(Settings):
    """[method] of bottleneck adapters (arXiv 1902.00751)."""

    reduction: int = key(16, "hidden size over the adapter's width; documents: 4 to 16", ge=1)


@dataclass(frozen=True, slots=True)
class Prompted(Settings):
    """[method] of LLaMA-Adapter."""

    bits: int = key(16, "of the frozen weights", choices=(16, 8, 4))

    @property
    def base_bits(self) -> int:
        """As set."""
        return self.bits

    @property
    def num_frozen_layers(self) -> int:
        """Before the first prompts nothing trains."""
        return UNPROMPTED


class Scaled(Prompted):
    """[method] of LLaMA-Adapter v2: scales and biases train in every layer."""

    __slots__ = ()

    @property
    def num_frozen_layers(self) -> int:
        """None."""
        return 0


def num_bottlenecks(model: Model, settings: Bottleneck, _matrices: Sequence[Matrix]) -> int:
    """Down and up with biases, twice a layer."""
    h = model.hidden_size
    width = max(1, h // settings.reduction)
    return model.num_layers * 2 * (2 * h * width + width + h)


def shows(settings: Bottleneck, _model: Model) -> tuple[Hyperparameter, ...]:
    """The adapters' width."""
    return (
        Hyperparameter("reduction", str(settings.reduction), "documents: 4 to 16; 16 is smallest"),
    )


def rate(_model: Model, _settings: Any) -> Rate:
    """Of bottleneck adapters."""
    return Rate(DEFAULT_RATE, "documents: adapters 3e-4 to 1e-3")


def num_prompts(model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """Prompts and gates of the layers that have some."""
    return (model.num_layers - UNPROMPTED) * (PROMPTS * model.hidden_size + model.num_heads)


def num_scaled(model: Model, settings: Any, matrices: Sequence[Matrix]) -> int:
    """A scale and a bias for each output of a linear too, the head's included."""
    outputs = sum([m.n_out * m.copies for m in matrices]) + model.vocab_size
    return num_prompts(model, settings, matrices) + 2 * outputs


def prompted(tape: LayerTape, _settings: Any, q: Value, out: Value) -> Value:
    """Attention to the layer's own prompts, times a gate, beside the usual one."""
    beside = tape.value(
        name="prompts",
        inputs=(q,),
        size=q.elements,
        width=q.width,
        saved=(q,),
        saves_output=True,
        kept=per_token(STATISTIC * tape.model.num_heads),
        weight_flops=1,
    )
    return tape.add(out, beside)


def scaled(tape: LayerTape, _settings: Any, _x: Value, result: Value, _matrix: Matrix) -> Value:
    """(Wx + bias) * scale, both trained."""
    n, width = result.elements, result.width
    result = tape.value("bias", (result,), n, width, hands_on=True, weight_flops=1)
    return tape.value("scale", (result,), n, width, saved=(result,), weight_flops=1)


DEFAULT_RATE: Final = 5e-4
ADAPTER: Final = MethodSpec(
    name="adapter",
    title="adapters",
    settings=Bottleneck,
    spares_first=True,
    added=num_bottlenecks,
    added_linears=True,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
LLAMA_ADAPTER: Final = MethodSpec(
    name="llama_adapter",
    title="LLaMA-Adapter",
    offered=False,
    settings=Prompted,
    reaches_input=False,
    added=num_prompts,
    beside_attention=prompted,
    rate=rate,
    default_rate=DEFAULT_RATE,
)
LLAMA_ADAPTER_V2: Final = MethodSpec(
    name="llama_adapter_v2",
    title="LLaMA-Adapter v2",
    settings=Scaled,
    offered=False,
    trains_norms=True,
    reaches_input=False,
    added=num_scaled,
    around_linear=scaled,
    beside_attention=prompted,
    rate=rate,
    default_rate=DEFAULT_RATE,
)
METHODS: Final = (ADAPTER, LLAMA_ADAPTER, LLAMA_ADAPTER_V2)
