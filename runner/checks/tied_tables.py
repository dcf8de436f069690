"""Whether an adapter changes the head or the embedding where a model has one table for both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.quantities import some_of

_TABLE: Final = re.compile(
    r".*\.(?:lm_head|embed_tokens|embed_in|embed_out|wte|word_embeddings)\.(.+)"
)
"""A tensor on the head or on the embedding."""
_TOKENS: Final = "trainable_token_indices"
"""Rows of both, which are judged elsewhere."""


def check(base: Model, folder: Path, config: Mapping[str, Any], names: Iterable[str]) -> None:
    """UserError for tensors on one of two tied tables; `names`: those of the adapter's tensors.

    PEFT would add them to both, or part the tables: another model, in silence. Whole copies that
    it keeps one (`ensure_weight_tying`) are right.
    """
    is_kept = bool(config.get("ensure_weight_tying"))
    found = [(name, _TABLE.fullmatch(name)) for name in names]
    wrong = [name for name, one in found if one and not (is_kept and one[1] == "weight")]
    if base.tied_embeddings and wrong and not config.get(_TOKENS):
        raise UserError(
            f"the adapter changes the head or the embedding, which are one table in {base.id}",
            why=f"it has {printable(some_of(wrong, 2), 200)}, and neither could be changed alone",
            do="train it anew without them; or save the model with tie_word_embeddings = false "
            "and a copy of the embedding as its head, and name that folder in model.id",
            where=str(folder),
            code=ExitCode.BAD_RECIPE,
        )
