"""Fine-tuning of the model's own weights: all of them, or those of some layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.spec import Fault, Hyperparameter, MethodSpec, Rate, Settings, key, numbers_of

if TYPE_CHECKING:
    from advisor.tape import Matrix
    from profiles.facts import Model

FIRST: Final = 1
"""Frozen layers where nobody says otherwise."""
_LARGE, _SMALL = 30_000_000_000, 1_000_000_000
_NORMS: Final = {"rms": 1, "layer": 2, "layer_no_bias": 1, "layer_bare": 0}
"""Weights of a norm over the width that it has."""
_RANGE: Final = "documents: full fine-tuning 5e-6 to 2e-5"


@dataclass(frozen=True, slots=True)
class Freeze(Settings):
    """[method] of training some layers only, with the final norm and a head of its own."""

    frozen_layers: int = key(
        FIRST, "first layers that stay as they are, with the embedding; all others train", ge=1
    )
    layers: str | tuple[int, ...] = key(
        "all",
        "numbers of the layers that train, from 0 on, in place of frozen_layers",
        choices=("all",),
        layers=True,
    )

    def adapted_layers(self, num_layers: int) -> Sequence[int]:
        """Those that train."""
        if self.layers == "all":
            return range(self.frozen_layers, num_layers)
        return numbers_of(self.layers, num_layers)

    def faults(self) -> Iterator[Fault]:
        """Both keys say which layers train."""
        if self.layers != "all" and self.frozen_layers != FIRST:
            yield Fault("frozen_layers", "method.layers names those that train: leave it out")


def num_all(model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """All weights but those of a vision tower."""
    return model.num_params - model.vision_params


def num_above(model: Model, settings: Freeze, matrices: Sequence[Matrix]) -> int:
    """The layers that train, the final norm, and a head that is not the embedding.

    What a layer has beside its matrices, norms and biases, is taken to be alike in all layers.
    """
    h, wide = model.hidden_size, model.vocab_size * model.hidden_size
    norm = _NORMS[model.norm] * h
    head = (0 if model.tied_embeddings else wide) + (model.vocab_size if model.head_bias else 0)
    before = wide + model.num_positions * h
    before += model.other_params if model.is_encoder or model.model_type == "bloom" else 0
    sizes = [(m.n_in * m.n_out * m.copies, m.trains) for m in matrices]
    small = num_all(model, settings, matrices) - before - norm - head - sum(n for n, _ in sizes)
    num_trained = len(settings.adapted_layers(model.num_layers))
    inside = sum(n for n, trains in sizes if trains) + small * num_trained // model.num_layers
    return inside + head + (0 if model.is_encoder else norm)  # an encoder's is the embedding's


def rate(model: Model, _settings: Any) -> Rate:
    """Large models want lower learning rates, small ones bear higher ones."""
    if model.num_params >= _LARGE:
        return Rate(5e-6, f"{_RANGE}; the lower end for a large model")
    if model.num_params <= _SMALL:
        return Rate(2e-5, f"{_RANGE}; the upper end for a small model")
    return Rate(DEFAULT_RATE, _RANGE)


def shows(settings: Freeze, model: Model) -> tuple[Hyperparameter, ...]:
    """Which layers stay as they are, or which train."""
    if settings.layers != "all":
        number = len(settings.adapted_layers(model.num_layers))
        words = f"{number} of {model.num_layers}"
        return (Hyperparameter("trained layers", words, "as asked"),)
    words = f"the first {settings.frozen_layers} of {model.num_layers}"
    return (Hyperparameter("frozen layers", words, "as few as fit, by halves"),)


DEFAULT_RATE: Final = 1e-5
FULL: Final = MethodSpec(
    name="full",
    title="full fine-tuning",
    family="full",
    rehearsed=True,
    builder="whole",
    trains_base=True,
    trains_embedding=True,
    trains_norms=True,
    trained=num_all,
    rate=rate,
    default_rate=DEFAULT_RATE,
)
FREEZE: Final = MethodSpec(
    name="freeze",
    title="last layers only",
    family="full",
    settings=Freeze,
    rehearsed=True,
    builder="whole",
    trains_base=True,
    trains_norms=True,
    reaches_input=False,
    spares_first=True,
    trained=num_above,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
METHODS: Final = (FULL, FREEZE)
