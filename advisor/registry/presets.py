"""The rungs: methods with the settings that make them a choice of their own, in order.

The ladder goes from the most to the least device memory, as the documents order it; what stands
beside it trains a small addition or a small part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.spec import PresetSpec

if TYPE_CHECKING:
    from profiles.facts import Model

_OF_FULL: Final = "of full quality, LoRA 90-98 %"


def freezing(model: Model) -> tuple[Mapping[str, Any], ...]:
    """Half of the layers, or three quarters."""
    layers = model.num_layers
    return tuple({"frozen_layers": k} for k in sorted({layers // 2, layers * 3 // 4} - {0}))


def fewer_bits(_model: Model) -> tuple[Mapping[str, Any], ...]:
    """The base as it is, then quantized: backward still passes every layer."""
    return ({}, {"bits": 8}, {"bits": 4})


PRESETS: Final = (
    PresetSpec(
        name="lora_on_experts",
        title="LoRA, experts too",
        method="lora",
        place="mixture",
        why_not="fits, but adapters on the experts cost as much as their weights",
        changes={"targets": "all"},
        is_ranked=True,
        for_experts=True,
    ),
    PresetSpec(
        name="moe_upcycling",
        title="sparse upcycling",
        method="full",
        place="mixture",
        upcycles=True,
        lighter="moe_upcycling_8bit",
    ),
    PresetSpec(
        name="moe_upcycling_8bit",
        title="sparse upcycling, 8-bit AdamW",
        method="full",
        place="mixture",
        upcycles=True,
        optimizer="adamw_8bit",
    ),
    PresetSpec(
        name="lora_experts",
        title="mixture of LoRA experts",
        method="lora_experts",
        place="mixture",
        is_ranked=True,
        many_adapters=True,
    ),
    PresetSpec(
        name="full",
        title="full fine-tuning",
        method="full",
        place="ladder",
        lighter="full_8bit",
    ),
    PresetSpec(
        name="full_offload",
        title="full, optimizer states in RAM",
        method="full",
        place="row",
        why_not="fits, but its optimizer step waits for RAM and PCIe",
        offload="optimizer",
        like_chosen=True,
    ),
    PresetSpec(
        name="full_8bit",
        title="full, 8-bit AdamW",
        method="full",
        place="ladder",
        why_not="fits, but AdamW in full precision fits too",
        optimizer="adamw_8bit",
    ),
    PresetSpec(
        name="galore",
        title="full, GaLore",
        method="full",
        place="ladder",
        why_not="fits, but learns in projected directions only",
        optimizer="galore",
    ),
    PresetSpec(
        name="apollo",
        title="full, APOLLO",
        method="full",
        place="ladder",
        why_not="fits, but scales its steps from projected gradients only",
        optimizer="apollo",
    ),
    PresetSpec(
        name="freeze",
        title="last layers only (freeze)",
        method="freeze",
        place="ladder",
        why_not="fits, but the first layers learn nothing",
        variants=freezing,
    ),
    PresetSpec(
        name="lora",
        title="LoRA",
        method="lora",
        place="ladder",
        why_not="fits, but the tree asks for another method",
        is_ranked=True,
    ),
    PresetSpec(
        name="qlora_8bit",
        title="QLoRA 8-bit",
        method="qlora",
        place="row",
        why_not="fits, but 4 bits learn as well in half the memory (arXiv 2305.14314)",
        changes={"bits": 8},
        is_ranked=True,
    ),
    PresetSpec(
        name="qlora",
        title="QLoRA 4-bit",
        method="qlora",
        place="ladder",
        why_not="fits, but so do wider weights",
        changes={"bits": 4},
        is_ranked=True,
    ),
    PresetSpec(
        name="offload",
        title="LoRA, weights in RAM",
        method="lora",
        place="ladder",
        why_not="fits, but every layer waits for PCIe",
        offload="parameters",
        is_ranked=True,
        like_chosen=True,
    ),
    PresetSpec(
        name="adapter",
        title="adapters",
        method="adapter",
        place="beside",
        why_not=f"fits; documents: 85-90 % {_OF_FULL}",
        like_chosen=True,
    ),
    PresetSpec(
        name="shira",
        title="SHiRA",
        method="shira",
        place="beside",
        why_not="fits, but every linear copies its weights in each pass; documents: no number",
        like_chosen=True,
    ),
    PresetSpec(
        name="p_tuning",
        title="P-tuning",
        method="p_tuning",
        place="beside",
        why_not="fits; documents: 85-90 % of full quality (P-tuning v2), LoRA 90-98 %",
        variants=fewer_bits,
        like_chosen=True,
    ),
    PresetSpec(
        name="prefix_tuning",
        title="prefix tuning",
        method="prefix_tuning",
        place="beside",
        variants=fewer_bits,
        like_chosen=True,
    ),
    PresetSpec(
        name="p_tuning_v2",
        title="P-tuning v2",
        method="p_tuning_v2",
        place="beside",
        why_not=f"fits; documents: 85-90 % {_OF_FULL}",
        variants=fewer_bits,
        like_chosen=True,
    ),
    PresetSpec(
        name="prompt_tuning",
        title="prompt tuning",
        method="prompt_tuning",
        place="beside",
        why_not=f"fits; documents: 75-85 % {_OF_FULL}",
        variants=fewer_bits,
        like_chosen=True,
    ),
    PresetSpec(
        name="bitfit",
        title="BitFit",
        method="bitfit",
        place="beside",
        why_not=f"fits; documents: 70-80 % {_OF_FULL}",
        like_chosen=True,
    ),
)
