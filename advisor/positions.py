"""Rotary positions scaled so that a model reads longer texts than it was made for.

Decides what transformers 5.23 is told (`rope_parameters` of a model's config) and how many
positions that gives. Linear: arXiv 2306.15595; dynamic: NTK-aware, by the length of a text; YaRN:
arXiv 2309.00071; llama3: Llama 3.1's (arXiv 2407.21783). Another base alone adds none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

RopeType = Literal["linear", "dynamic", "yarn", "llama3"]
TYPES: Final = get_args(RopeType)
_OF_ORIGINAL: Final = ("yarn", "llama3")
"""They are told how many positions there were, and the config has as many as there are now."""
_LLAMA3: Final = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
"""Llama 3.1's own."""


class Rope(NamedTuple):
    """What a recipe asks for."""

    type: RopeType | None
    """None: as the model has it."""
    factor: float | None
    """Positions over those that the model was made for; with a type alone."""
    theta: float | None
    """Base of the rotations; None: the model's."""

    def parameters(self, own: Mapping[str, Any], num_positions: int) -> dict[str, Any]:
        """`rope_parameters`, from the model's own and its number of positions."""
        found = dict(own)
        if self.theta is not None:
            found["rope_theta"] = self.theta
        if self.type is not None:
            found |= {"rope_type": self.type, "factor": self.factor}
        if self.type in _OF_ORIGINAL:
            found["original_max_position_embeddings"] = num_positions
        return found | (_LLAMA3 if self.type == "llama3" else {})

    def num_positions(self, own: int) -> int:
        """Of a text that can be read then."""
        return int(own * (self.factor or 1))

    def configured_positions(self, own: int) -> int:
        """`max_position_embeddings` beside them.

        The others are by the number that the model was made for: dynamic scaling begins there.
        """
        return self.num_positions(own) if self.type in _OF_ORIGINAL else own
