"""What trains beside adapters: embedding, head and norms as copies, and biases (PEFT 0.21)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from advisor.registry.spec import Fault

if TYPE_CHECKING:
    from advisor.tape import Matrix
    from profiles.facts import Model

EMBEDDING: Final = "embed_tokens"
HEAD: Final = "lm_head"
NORMS: Final = "norms"
WHOLE: Final = (EMBEDDING, HEAD, NORMS)
"""The first two whatever a family calls its own; the third are all norms as wide as the model."""
BIASES: Final = ("none", "all", "lora_only")
"""Which of the model's own biases train: none, all, or those of adapted linears."""
_OF_ATTENTION: Final = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj"})
_OF_MLP: Final = frozenset({"gate_proj", "up_proj", "down_proj", "gate_up_proj"})


def faults(whole: Sequence[str], bias: str, layers: object) -> Iterable[Fault]:
    """What cannot be asked for."""
    what = f"is none of {', '.join(WHOLE)}: write some of these, or leave it out"
    for name in whole:
        if name not in WHOLE:
            yield Fault("modules_to_save", f"{name[:40]!r} {what}")
    if len(set(whole)) < len(whole):
        yield Fault("modules_to_save", "names the same twice: write it once, or leave it out")
    if layers != "all" and NORMS in whole:
        why = "trains the norms of all layers, and method.layers names some"
        yield Fault("modules_to_save", f"{why}: take norms out, or leave it out")
    if layers != "all" and bias == "all":
        why = "trains the biases of all layers, and method.layers names some"
        yield Fault("bias", f'{why}: take method.bias = "lora_only"')


def num_tables(model: Model, whole: Sequence[str], *, has_head: bool) -> int:
    """Weights of copies of the embedding and of a head of its own; tied, they are one table."""
    if not has_head or model.tied_embeddings:
        count = int(EMBEDDING in whole or (HEAD in whole and has_head))
    else:
        count = (EMBEDDING in whole) + (HEAD in whole)
    return count * model.vocab_size * model.hidden_size


def num_norms(model: Model, whole: Sequence[str]) -> int:
    """Weights of copies of the norms, and biases where they have some."""
    if NORMS not in whole or model.norm == "layer_bare":
        return 0
    each = model.hidden_size * (2 if model.norm == "layer" else 1)
    return each * (model.num_layers * model.norms_per_layer + 1)


def num_biases(model: Model, bias: str, matrices: Sequence[Matrix]) -> int:
    """Of the linears, or the adapted ones; with all also those of norms and of the head."""
    if bias == "none":
        return 0
    chosen = [m for m in matrices if (m.rank or bias == "all") and _has_bias(model, m.name)]
    count = sum([m.n_out * m.copies for m in chosen])
    if bias == "all":
        count += model.vocab_size if model.head_bias else 0
        norms = model.num_layers * model.norms_per_layer + 1
        count += model.hidden_size * norms if model.norm == "layer" else 0
    return count


def without_biases(model: Model, bias: str) -> str:
    """Why a model has no bias to train; empty if it has, or none is asked for."""
    if bias == "none":
        return ""
    if model.experts is not None:
        return f'method.bias = "{bias}" is not for mixtures of experts, whose biases lie together'
    of_linears = model.attention_bias or model.output_bias or model.mlp_bias
    if of_linears or (bias == "all" and (model.norm == "layer" or model.head_bias)):
        return ""
    return f'method.bias = "{bias}" has nothing to train: the linears of this model have no biases'


def _has_bias(model: Model, name: str) -> bool:
    if name in _OF_ATTENTION:
        return model.attention_bias
    return model.mlp_bias if name in _OF_MLP else name == "o_proj" and model.output_bias
