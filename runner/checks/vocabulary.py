"""Whether a model has an embedding for every token that its tokenizer makes.

A token past the end would be an index error in the middle of training. Loads no torch.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiles.data.new_tokens import Added
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import chat_template, parameters

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_OF_MEDIA: Final = re.compile(r"image|img|vision|video|audio|sound", re.IGNORECASE)
"""Gemma 3's models of text alone share the tokenizer of those that see, one token longer."""
_NUM_SHOWN: Final = 3


def check(base: Model, tokenizer: Tokenizer) -> dict[str, int]:
    """All tokens with their numbers; UserError (78) if one has no row in the embedding.

    Stand-ins for pictures need none.
    """
    assert base.path is not None  # the tokenizer lies there
    found = _tokens(Path(base.path), tokenizer)
    beyond = [text for text, number in found.items() if number >= base.vocab_size]
    texts = [text for text in beyond if not _OF_MEDIA.search(text)]
    if not texts:
        return found
    more = f" and {len(texts) - _NUM_SHOWN} more" if len(texts) > _NUM_SHOWN else ""
    shown = ", ".join(repr(text[:40]) for text in texts[:_NUM_SHOWN])
    raise UserError(
        f"the tokenizer of {base.id} has more tokens than the model has embeddings",
        why=f"the model has {base.vocab_size}, and none for {shown}{more}",
        do="take the tokenizer that was published with these weights, or enlarge the embedding "
        f"first: model.resize_token_embeddings({max(found.values()) + 1}), then save the model",
        where=str(Path(base.path) / "tokenizer.json"),
        code=ExitCode.BAD_RECIPE,
    )


def enlarged(base: Model, added: Added | None) -> Model:
    """The model with rows for the tokens that it is to learn, where its embedding has none free."""
    if added is None or added.least_vocabulary <= base.vocab_size:
        return base
    larger = replace(base, vocab_size=added.least_vocabulary)
    more = parameters.text_params(larger) - parameters.text_params(base)
    return replace(larger, num_params=base.num_params + more)


def _tokens(folder: Path, tokenizer: Tokenizer) -> dict[str, int]:
    """Every token and its number, those that transformers adds when it loads among them."""
    tokens: dict[str, int] = tokenizer.get_vocab()
    extra = chat_template.tokenizer_config(folder).get("added_tokens_decoder")
    added = extra.values() if isinstance(extra, dict) else ()
    named = [str(one["content"]) for one in added if isinstance(one, dict) and "content" in one]
    for text in [*named, *chat_template.special_tokens(folder).values()]:
        tokens.setdefault(text, max(tokens.values(), default=-1) + 1)
    return tokens
