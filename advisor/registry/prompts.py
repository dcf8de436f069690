"""Soft prompts: vectors before the input, or before every layer's keys and values (PEFT 0.21)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from advisor.registry.continued import PROMPT_FILE
from advisor.registry.handover import Quoted
from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, Settings, key

if TYPE_CHECKING:
    from advisor.tape import Matrix
    from profiles.facts import Model

DEFAULT_RATE: Final = 4e-3
VECTORS_RATE: Final = 0.3
"""Of vectors alone (arXiv 2104.08691, section 3)."""
OTHER_CACHES: Final = frozenset({"falcon", "mpt", "jetmoe", "lfm2", "qwen3_next"})
"""Families in whose layers PEFT 0.21's prefix does not fit, beside those of latent attention."""
ENCODER_WIDTH: Final = 1
"""Hidden size of P-tuning's encoder over the model's (PEFT's default)."""


@dataclass(frozen=True, slots=True)
class SoftPrompt(Settings):
    """[method] of prompt tuning, prefix tuning and P-tuning."""

    virtual_tokens: int = key(20, "length of the prompt; documents: 10 to 20", ge=1, le=4096)
    bits: int = key(16, "of the frozen weights", choices=(16, 8, 4), not_yet=(8,))

    @property
    def base_bits(self) -> int:
        """Backward still passes every layer, so only a quantized base makes a prompt small."""
        return self.bits

    @property
    def num_virtual_tokens(self) -> int:
        """As set."""
        return self.virtual_tokens


@dataclass(frozen=True, slots=True)
class Words(SoftPrompt):
    """[method] of prompt tuning."""

    init_text: str = key(
        "", "words that the prompt starts as, cut or repeated to its length; else it is drawn"
    )

    def without_numbers(self) -> Words:
        """Drawn, for which no tokenizer is needed."""
        return replace(self, init_text="")


@dataclass(frozen=True, slots=True)
class Prefix(SoftPrompt):
    """[method] of prefix tuning: a row stays as long as it is, each layer reads more keys."""

    @property
    def num_virtual_tokens(self) -> int:
        """None in the rows."""
        return 0

    @property
    def num_prefix_keys(self) -> int:
        """As set."""
        return self.virtual_tokens


@dataclass(frozen=True, slots=True)
class EncodedPrefix(Prefix):
    """[method] of P-tuning v2."""

    encoder_width: int = key(512, "of the MLP that makes the prefix; its authors: 512", ge=1)


def num_prompt(model: Model, settings: SoftPrompt, _matrices: Sequence[Matrix]) -> int:
    """One vector a token."""
    return settings.virtual_tokens * model.hidden_size


def num_prefix(model: Model, settings: SoftPrompt, _matrices: Sequence[Matrix]) -> int:
    """Keys and values for every layer."""
    return settings.virtual_tokens * model.num_layers * 2 * model.kv_width


def num_projected(model: Model, settings: EncodedPrefix, _matrices: Sequence[Matrix]) -> int:
    """A vector a token, and an MLP that makes keys and values for every layer of it."""
    kv, wide = model.kv_width, settings.encoder_width
    return settings.virtual_tokens * kv + (kv + 1) * wide + (wide + 1) * 2 * model.num_layers * kv


def num_encoded(model: Model, settings: SoftPrompt, matrices: Sequence[Matrix]) -> int:
    """A prompt with the MLP of three linears that encodes it."""
    h = model.hidden_size
    wide = ENCODER_WIDTH * h
    return num_prompt(model, settings, matrices) + 2 * h * wide + wide * wide + 2 * wide + h


def without_cache(model: Model, _settings: Prefix) -> str:
    """Each layer reads the prefix from a cache, in the form that PEFT gives it there."""
    if model.latent is None and model.model_type not in OTHER_CACHES:
        return ""
    return f"PEFT's prefix is not of the form of the keys and values of {model.model_type}"


def rate(_model: Model, _settings: SoftPrompt) -> Rate:
    """The middle of the range."""
    return Rate(DEFAULT_RATE, "documents: soft prompts 3e-3 to 5e-3")


def rate_of_vectors(_model: Model, _settings: SoftPrompt) -> Rate:
    """Far above the documents' range, at which nothing moved."""
    reason = "its authors'; a small model learnt at it and not at the documents' 3e-3 to 5e-3"
    return Rate(VECTORS_RATE, reason)


def shows(settings: SoftPrompt, _model: Model) -> tuple[Hyperparameter, ...]:
    """The prompt's length, and the base's bits where it is quantized."""
    bits = f", base in {settings.bits} bits" if settings.bits < 16 else ""
    return (
        Hyperparameter("virtual tokens", f"{settings.virtual_tokens}{bits}", "documents: 10 to 20"),
    )


PROMPT_TUNING: Final = MethodSpec(
    name="prompt_tuning",
    continued=PROMPT_FILE,
    title="prompt tuning",
    family="soft prompts",
    quoted=Quoted("75-85 %", "1-2 %"),
    rehearsed=True,
    builder="prompts",
    lm_only=True,
    own_checkpoint=True,
    settings=Words,
    added=num_prompt,
    added_fp32=True,
    rate=rate_of_vectors,
    default_rate=VECTORS_RATE,
    shows=shows,
)
PREFIX_TUNING: Final = MethodSpec(
    name="prefix_tuning",
    title="prefix tuning",
    family="soft prompts",
    rehearsed=True,
    builder="prompts",
    lm_only=True,
    own_checkpoint=True,
    recomputes=False,
    spares_first=True,
    unsupported=without_cache,
    settings=Prefix,
    added=num_prefix,
    added_fp32=True,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
P_TUNING_V2: Final = MethodSpec(
    name="p_tuning_v2",
    title="P-tuning v2",
    family="soft prompts",
    quoted=Quoted("85-90 %", "5-10 %"),
    published=num_prefix,
    rehearsed=True,
    builder="prompts",
    lm_only=True,
    own_checkpoint=True,
    recomputes=False,
    spares_first=True,
    unsupported=without_cache,
    settings=EncodedPrefix,
    added=num_projected,
    added_fp32=True,
    added_casts=True,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
P_TUNING: Final = MethodSpec(
    name="p_tuning",
    title="P-tuning",
    family="soft prompts",
    published=num_prompt,
    rehearsed=True,
    builder="prompts",
    lm_only=True,
    own_checkpoint=True,
    settings=SoftPrompt,
    added=num_encoded,
    added_fp32=True,
    added_casts=True,
    rate=rate,
    default_rate=DEFAULT_RATE,
    shows=shows,
)
METHODS: Final = (PROMPT_TUNING, PREFIX_TUNING, P_TUNING, P_TUNING_V2)
