"""What the result of a method says of itself, what takes it, and what documents say of its worth.

Decides nothing about how: this version publishes, and other tools merge, serve and convert. That
what is "merged" computes the same was seen with PEFT's merge_and_unload (0.21), method by method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Taker = Literal["model", "PEFT", "its own file", "merged", "vLLM", "GGUF"]
"""A whole model for transformers; PEFT beside the base; the loader that is published with it; a
whole model once PEFT has added it to the base; vLLM and llama.cpp, of what is published or of what
was merged. vLLM takes adapters of LoRA alone as they are, and no soft prompt in any way."""
PEFT_AND_MERGED: Final[tuple[Taker, ...]] = ("PEFT", "merged")
WHOLE: Final[tuple[Taker, ...]] = ("vLLM", "GGUF")
"""What a whole model is taken by, of the families that it knows."""

PEFT_CONFIG: Final = "adapter_config.json"


class AdapterFile(NamedTuple):
    """How the adapters of a method say what they are."""

    kind: str
    """`peft_type` of the adapter_config.json; of our own formats, the method's name."""
    settings: Callable[[dict[str, Any]], dict[str, Any]]
    """Takes what it understands out of the content; the settings that a recipe must have."""
    name: str = PEFT_CONFIG
    """Of the file."""
    weights: str = "adapter_model.safetensors"
    """Of the file of tensors."""


class Quoted(NamedTuple):
    """What the documents say of a method, in shares of full fine-tuning: rules of thumb."""

    quality: str
    memory: str
