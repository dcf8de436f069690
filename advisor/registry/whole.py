"""Fine-tuning of the model's own weights: all of them, or those from one layer on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, Settings, key

if TYPE_CHECKING:
    from advisor.tape import Matrix
    from profiles.facts import Model

_LARGE, _SMALL = 30_000_000_000, 1_000_000_000
_RANGE: Final = "documents: full fine-tuning 5e-6 to 2e-5"


@dataclass(frozen=True, slots=True)
class Freeze(Settings):
    """[method] of training the last layers only."""

    frozen_layers: int = key(1, "first layers that stay as they are, with the embedding", ge=1)

    @property
    def num_frozen_layers(self) -> int:
        """As set."""
        return self.frozen_layers


def num_all(model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """All weights but those of a vision tower."""
    return model.num_params - model.vision_params


def num_above(model: Model, settings: Freeze, matrices: Sequence[Matrix]) -> int:
    """The layers that are not frozen, final norm and head."""
    outside = model.vocab_size * model.hidden_size * (1 if model.tied_embeddings else 2)
    inside = num_all(model, settings, matrices) - outside
    return inside * (model.num_layers - settings.frozen_layers) // model.num_layers + outside // 2


def rate(model: Model, _settings: Any) -> Rate:
    """Large models want lower learning rates, small ones bear higher ones."""
    if model.num_params >= _LARGE:
        return Rate(5e-6, f"{_RANGE}; the lower end for a large model")
    if model.num_params <= _SMALL:
        return Rate(2e-5, f"{_RANGE}; the upper end for a small model")
    return Rate(DEFAULT_RATE, _RANGE)


def shows(settings: Freeze, model: Model) -> tuple[Hyperparameter, ...]:
    """How many layers stay as they are."""
    words = f"the first {settings.frozen_layers} of {model.num_layers}"
    return (Hyperparameter("frozen layers", words, "as few as fit, by halves"),)


DEFAULT_RATE: Final = 1e-5
FULL: Final = MethodSpec(
    name="full",
    title="full fine-tuning",
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
    settings=Freeze,
    trains_base=True,
    trains_norms=True,
    reaches_input=False,
    trained=num_above,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
METHODS: Final = (FULL, FREEZE)
