"""Rows for tokens that a model is to learn, in its embedding and its head.

Each starts as the mean of the rows that its text was read as before. Where the embedding is
frozen, PEFT trains these rows alone (`trainable_token_indices`), and publishes no other.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

OF_ROWS = ".trainable_tokens_delta."
"""In the names of rows that train by themselves; fp32, as a new head's weights."""


def make_rows(model: Any, pieces: Mapping[int, Sequence[int]]) -> None:
    """Enlarge what is too small for these ids, and set their rows.

    `pieces`: id of each token -> ids of what it was read as.
    """
    if not pieces:
        return
    if max(pieces) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(pieces) + 1, mean_resizing=False)
    with torch.no_grad():
        for table in _tables(model):
            for token, read_as in pieces.items():
                table[token] = table[list(read_as)].float().mean(0).to(table.dtype)
    model.new_tokens = tuple(pieces)


def pretend(model: Any, number: int) -> None:
    """The last rows are those of new tokens: for a model without weights or a tokenizer."""
    size = model.get_input_embeddings().num_embeddings
    model.new_tokens = tuple(range(size - number, size))


def is_tied(model: Any) -> bool:
    """Embedding and head are one table."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def indices(model: Any, whole: Collection[str] = ()) -> dict[str, list[int]] | None:
    """PEFT's `trainable_token_indices` for a frozen model: those of its modules; None for none.

    A head that is tied to the embedding follows it. `whole`: modules of which all rows train.
    """
    tokens = list(getattr(model, "new_tokens", ()))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    chosen = [embedding] + ([head] if head is not None and not is_tied(model) else [])
    named = (name for name, module in model.named_modules() if module in chosen)
    return {name: tokens for name in named if tokens and name not in whole} or None


def finish(adapted: Any) -> None:
    """What PEFT leaves open where rows train: the head's bias, which TRL asks for, and the file.

    Of an embedding that was enlarged it would write all rows beside the adapter.
    """
    if not getattr(adapted.get_base_model(), "new_tokens", ()):
        return
    head = adapted.get_output_embeddings()
    if head is not None and not hasattr(head, "bias"):
        head.bias = None
    adapted.save_pretrained = functools.partial(
        adapted.save_pretrained, save_embedding_layers=False
    )


def _tables(model: Any) -> list[torch.Tensor]:
    """Weights, and a head's bias, with a row for each token; of a tied head none of its own."""
    head = model.get_output_embeddings()
    found = [model.get_input_embeddings().weight]
    if head is not None:
        found += [one for one in (head.weight, getattr(head, "bias", None)) if one is not None]
    return [one for i, one in enumerate(found) if all(one is not other for other in found[:i])]
