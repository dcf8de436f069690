"""What a model is for, with the method and settings that the documents take for it (§4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from advisor.registry.spec import Named


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DomainSpec(Named):
    """A field or a situation, and what the documents start from there."""

    name: str
    title: str
    words: str
    """The documents' settings."""
    rungs: tuple[str, ...]
    """Presets in the order to try them; the first is the documents'."""
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Settings with the ends of their ranges: the upper one is for much data."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings with one value."""
    afterwards: str = ""
    """What is done with the result."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all settings that the documents name."""
        return (*self.ranges, *self.settings)


_QUANTIZED: Final = ("qlora", "lora")
"""16-bit weights where a machine cannot quantize."""

DOMAINS: Final = (
    DomainSpec(
        name="finance",
        title="finance",
        words="LoRA, rank 16 to 32",
        rungs=("lora",),
        ranges={"rank": (16, 32)},
    ),
    DomainSpec(
        name="medical",
        title="medicine",
        words="QLoRA, rank 64",
        rungs=_QUANTIZED,
        ranges={"rank": (64, 64)},
    ),
    DomainSpec(
        name="law",
        title="law",
        words="LoRA, rank 16",
        rungs=("lora",),
        ranges={"rank": (16, 16)},
    ),
    DomainSpec(
        name="education",
        title="education",
        words="LoRA, rank 8",
        rungs=("lora",),
        ranges={"rank": (8, 8)},
    ),
    DomainSpec(
        name="research",
        title="research",
        words="LoRA, rank 16 to 32, alpha 32",
        rungs=("lora",),
        ranges={"rank": (16, 32)},
        settings={"alpha": 32},
    ),
    DomainSpec(
        name="enterprise",
        title="a company's own use",
        words="LoRA, rank 8 to 16, all targets",
        rungs=("lora",),
        ranges={"rank": (8, 16)},
        settings={"targets": "all"},
    ),
    DomainSpec(
        name="personal",
        title="one's own computer",
        words="QLoRA 4-bit, rank 64",
        rungs=_QUANTIZED,
        ranges={"rank": (64, 64)},
    ),
    DomainSpec(
        name="prototype",
        title="a rapid prototype",
        words="prompt tuning, 10 to 20 tokens",
        rungs=("prompt_tuning",),
        ranges={"virtual_tokens": (10, 20)},
    ),
    DomainSpec(
        name="production",
        title="production",
        words="LoRA, merged to deploy",
        rungs=("lora",),
        afterwards="merge the adapter into the base",
    ),
)
