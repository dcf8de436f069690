"""Adapters that are no low-rank product: bottlenecks in every layer, and LLaMA-Adapter.

LLaMA-Adapter (arXiv 2303.16199) has learned prompts for each layer's attention but the first ones.
PEFT's runs, whose queries for them are computed again. Lit-gpt's, with a gate a head, is not
offered; published runs use it, and the estimate is held against them: in its v2 a scale and a bias
on every linear, and the norms, train too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.continued import BOTTLENECK_FILE
from advisor.registry.handover import Quoted
from advisor.registry.parts import LLAMA_STYLE
from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, Settings, key
from advisor.tape import per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

PLACED: Final = LLAMA_STYLE | frozenset(
    (
        *("phi", "phi3", "gpt2", "gpt_neox", "starcoder2"),
        *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"),
    )
)
"""Families whose layers have attention and an MLP as modules that return what is added."""
PROMPTS: Final = 10
UNPROMPTED: Final = 2
"""LLaMA-Adapter: prompts of a layer, and layers that have none."""
GATED_FAMILIES: Final = ("llama", "mistral")
"""Those that PEFT's was seen to train."""
STATISTIC: Final = 4
"""Bytes of a row's fp32 statistic."""


@dataclass(frozen=True, slots=True)
class Bottleneck(Settings):
    """[method] of bottleneck adapters (arXiv 1902.00751)."""

    reduction: int = key(16, "hidden size over the adapter's width; documents: 4 to 16", ge=1)
    placement: str = key(
        "houlsby",
        "behind attention and MLP (houlsby), behind the MLP (pfeiffer), or beside it (parallel)",
        choices=("houlsby", "pfeiffer", "parallel"),
    )
    activation: str = key("gelu", "between down and up", choices=("gelu", "relu", "silu"))

    @property
    def num_places(self) -> int:
        """Adapters of a layer."""
        return 2 if self.placement == "houlsby" else 1

    def width(self, model: Model) -> int:
        """Of what is between down and up."""
        return max(1, model.hidden_size // self.reduction)


@dataclass(frozen=True, slots=True)
class Gated(Settings):
    """[method] of LLaMA-Adapter as PEFT has it."""

    prompts: int = key(PROMPTS, "of a layer; its authors: 10", ge=1, le=1024)
    skipped_layers: int = key(0, "first layers without prompts; its authors: 2 of 32", ge=0)

    def adapted_layers(self, num_layers: int) -> Sequence[int]:
        """Those behind the skipped ones."""
        return range(self.skipped_layers, num_layers)


@dataclass(frozen=True, slots=True)
class Prompted(Settings):
    """[method] of lit-gpt's LLaMA-Adapter."""

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
    """[method] of lit-gpt's LLaMA-Adapter v2: scales and biases train in every layer."""

    __slots__ = ()

    @property
    def num_frozen_layers(self) -> int:
        """None."""
        return 0


def num_bottlenecks(model: Model, settings: Bottleneck, _matrices: Sequence[Matrix]) -> int:
    """Down and up with biases, in each place of a layer."""
    h, width = model.hidden_size, settings.width(model)
    return model.num_layers * settings.num_places * (2 * h * width + width + h)


def behind(tape: LayerTape, settings: Bottleneck, x: Value, result: Value, name: str) -> Value:
    """Add up(activation(down(.))), from the module's result, or beside it from its input."""
    if name == "attention" and settings.placement != "houlsby":
        return result
    h, width = tape.model.hidden_size, settings.width(tape.model)
    read = x if settings.placement == "parallel" else result
    low = tape.matmul(read, f"{name}.down", h * width, width, tape.trained, trains=True)
    inner = tape.value("activation", (low,), width, low.width, saved=(low,))
    high = tape.matmul(inner, f"{name}.up", h * width, h, tape.trained, trains=True)
    return tape.add(result, tape.cast(high, result.width))


def unknown_names(model: Model, _settings: Bottleneck) -> str:
    """Where the modules of a layer have other names, or add up more than what they return."""
    if model.model_type in PLACED:
        return ""
    return f"where adapters go is known for {', '.join(sorted(PLACED))}, not for {model.model_type}"


def shows(settings: Bottleneck, _model: Model) -> tuple[Hyperparameter, ...]:
    """The adapters' width."""
    return (
        Hyperparameter("reduction", str(settings.reduction), "documents: 4 to 16; 16 is smallest"),
    )


def rate(_model: Model, _settings: Any) -> Rate:
    """Of bottleneck adapters."""
    return Rate(DEFAULT_RATE, "documents: adapters 3e-4 to 1e-3")


def num_gated(model: Model, settings: Gated, _matrices: Sequence[Matrix]) -> int:
    """Prompts and a gate of each layer that has some."""
    layers = model.num_layers - settings.skipped_layers
    return layers * (settings.prompts * model.hidden_size + 1)


def gated(tape: LayerTape, settings: Gated, x: Value, result: Value, matrix: Matrix) -> Value:
    """Beside attention, behind its last linear: queries once more, over the layer's prompts.

    A gate times the softmax of their scores in fp32, times the prompts' values, through that
    linear; autocast makes 16 bits of the shares again. The queries are of the input of attention,
    for which its result stands here: it is as wide.
    """
    if matrix.name != "o_proj":
        return result
    heads, width = tape.model.num_heads, result.width
    pairs = heads * settings.prompts
    q = tape.value("queries", (x,), x.elements, width)
    q = tape.value("rotary", (q,), q.elements, width)
    scores = tape.value("scores", (q,), pairs, width, saved=(q,), weight_flops=1)
    scores = tape.value("scale", (scores,), pairs, width)
    shares = tape.value("softmax", (tape.cast(scores, 4),), pairs, 4, saves_output=True)
    shares = tape.cast(shares, width)
    shares = tape.value("gate", (shares,), pairs, 4, saved=(shares,), weight_flops=1)
    shares = tape.cast(shares, width)
    out = tape.value("values", (shares,), x.elements, width, saved=(shares,), weight_flops=1)
    out = tape.value("contiguous", (out,), out.elements, width)
    return tape.add(result, tape.value("o_proj", (out,), result.elements, width))


def without_gated(model: Model, settings: Gated) -> str:
    """PEFT knows the attention of few families, with heads that make up the hidden size."""
    if model.model_type not in GATED_FAMILIES or model.query_width != model.hidden_size:
        return f"PEFT has LLaMA-Adapter for {', '.join(GATED_FAMILIES)}, not for this model"
    if settings.skipped_layers >= model.num_layers:
        return (
            f"method.skipped_layers = {settings.skipped_layers} leaves none of its "
            f"{model.num_layers} layers with prompts"
        )
    return ""


def shows_gated(settings: Gated, model: Model) -> tuple[Hyperparameter, ...]:
    """Prompts, and which layers have some."""
    words = f"{settings.prompts} in layers {settings.skipped_layers} to {model.num_layers - 1}"
    return (Hyperparameter("prompts", words, "its authors': 10, from the third layer of 32 on"),)


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
    continued=BOTTLENECK_FILE,
    title="adapters",
    family="adapters",
    quoted=Quoted("85-90 %", "15-20 %"),
    takers=("its own file",),
    settings=Bottleneck,
    rehearsed=True,
    builder="bottleneck",
    lm_only=True,
    own_checkpoint=True,
    has_switch=False,
    reaches_input=False,
    asks_for_input=True,
    spares_first=True,
    added=num_bottlenecks,
    behind_module=behind,
    unsupported=unknown_names,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
LLAMA_ADAPTER: Final = MethodSpec(
    name="llama_adapter",
    title="LLaMA-Adapter",
    family="adapters",
    rehearsed=True,
    builder="gated",
    lm_only=True,
    settings=Gated,
    reaches_input=False,
    asks_for_input=True,
    spares_first=True,
    added=num_gated,
    around_linear=gated,
    unsupported=without_gated,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows_gated,
)
LIT_LLAMA_ADAPTER: Final = MethodSpec(
    name="lit_llama_adapter",
    title="lit-gpt's LLaMA-Adapter",
    family="adapters",
    offered=False,
    settings=Prompted,
    reaches_input=False,
    added=num_prompts,
    beside_attention=prompted,
    rate=rate,
    default_rate=DEFAULT_RATE,
)
LIT_LLAMA_ADAPTER_V2: Final = MethodSpec(
    name="lit_llama_adapter_v2",
    title="lit-gpt's LLaMA-Adapter v2",
    family="adapters",
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
METHODS: Final = (ADAPTER, LLAMA_ADAPTER, LIT_LLAMA_ADAPTER, LIT_LLAMA_ADAPTER_V2)
