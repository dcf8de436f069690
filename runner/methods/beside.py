"""What trains beside adapters: copies of embedding, head and norms, which PEFT publishes with them.

Where the head is tied to the embedding both stay one table. Copies are fp32: what an embedding's
puts out is brought back to the type that the frozen layers go on in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from peft.utils.other import EMBEDDING_LAYER_NAMES, ModulesToSaveWrapper

from advisor.plan import Plan
from advisor.registry.beside import EMBEDDING, HEAD, NORMS
from profiles.errors import ExitCode, UserError
from runner.methods import new_tokens


class Named(NamedTuple):
    """Modules that train whole, in PEFT's terms."""

    names: tuple[str, ...] = ()
    ties: bool = False
    """Embedding and head are one table, and are to stay so."""


def named(model: Any, plan: Plan) -> Named:
    """Of a model, by their full names; UserError where a tied head would come apart."""
    whole = plan.settings.whole_modules
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    ties = new_tokens.is_tied(model)
    chosen = [embedding] if EMBEDDING in whole else []
    chosen += [head] if HEAD in whole and head is not None else []
    if ties and chosen:
        chosen = [embedding]
    names = [name for name, module in model.named_modules() if module in chosen]
    if ties and names and names[0].rpartition(".")[2] not in EMBEDDING_LAYER_NAMES:
        raise _would_untie(names[0])
    names += norms(model) if NORMS in whole else []
    return Named(tuple(names), ties and bool(chosen))


def norms(model: Any) -> list[str]:
    """Names of the norms as wide as the model; those of single heads are left as they are."""
    width = model.config.get_text_config().hidden_size

    def is_norm(module: torch.nn.Module) -> bool:
        weight = getattr(module, "weight", None)
        return "Norm" in type(module).__name__ and weight is not None and weight.shape == (width,)

    return [name for name, module in model.named_modules() if is_norm(module)]


def finish(adapted: Any) -> None:
    """An embedding's copy is wider than what the frozen layers go on in."""
    embedding = adapted.get_input_embeddings()
    if isinstance(embedding, ModulesToSaveWrapper):
        kind = embedding.original_module.weight.dtype
        embedding.register_forward_hook(lambda _module, _given, result: result.to(kind))


def _would_untie(name: str) -> UserError:
    return UserError(
        "the embedding of this model cannot train whole beside adapters",
        why=f"it is tied to the head, and PEFT keeps both one table only where it is called "
        f"{' or '.join(EMBEDDING_LAYER_NAMES)}, and not {name}",
        do="take embed_tokens and lm_head out of method.modules_to_save, or take method.name = "
        '"full"',
        where="method.modules_to_save",
        code=ExitCode.BAD_RECIPE,
    )
