"""What the result of a method can be handed to, and what documents say of its worth.

Decides nothing about how: this version publishes, and other tools merge, serve and convert. That
what is "merged" computes the same was seen with PEFT's merge_and_unload (0.21), method by method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from advisor.registry.spec import MethodSpec

Taker = Literal["model", "PEFT", "its own file", "merged", "vLLM", "GGUF"]
"""A whole model for transformers; PEFT beside the base; the loader that is published with it; a
whole model once PEFT has added it to the base; vLLM and llama.cpp, of what is published or of what
was merged. vLLM takes adapters of LoRA alone as they are, and no soft prompt in any way."""
PEFT_AND_MERGED: Final[tuple[Taker, ...]] = ("PEFT", "merged")
_WHOLE: Final[tuple[Taker, ...]] = ("vLLM", "GGUF")
"""What a whole model is taken by, of the families that it knows."""


class Quoted(NamedTuple):
    """What the documents say of a method, in shares of full fine-tuning: rules of thumb."""

    quality: str
    memory: str


def hands_to(spec: MethodSpec) -> tuple[Taker, ...]:
    """What can take the result, as it is or after merging; nothing of what cannot be started."""
    from advisor.registry.spec import nothing_added  # noqa: PLC0415  # specs name what is here

    if not spec.builder:
        return ()
    if spec.added is nothing_added:
        return ("model", *_WHOLE)
    taken = spec.takers
    return taken + tuple(one for one in _WHOLE if "merged" in taken and one not in taken)
