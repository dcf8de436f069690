"""A model as lines."""

from __future__ import annotations

from profiles.facts import Model
from tui.plain import facts
from tui.terminal import bytes_text, count_text


def lines(model: Model, width: int) -> list[str]:
    """Size, shape and what it brings along."""
    heads = f"{model.num_heads} heads, {model.num_kv_heads} key/value heads of {model.head_dim}"
    template = {True: "yes", False: "no: a base model", None: "not known"}
    return facts(
        [
            ("model", model.id),
            ("kind", f"{model.architecture} ({model.model_type}), dense"),
            ("parameters", f"{count_text(model.num_params)} ({model.params_origin})"),
            ("weights", _weights(model)),
            ("shape", f"{model.num_layers} layers of {model.hidden_size}, {heads}"),
            ("mlp", str(model.intermediate_size)),
            ("vocabulary", f"{count_text(model.vocab_size)}{_tied(model)}"),
            ("reads", f"{count_text(model.max_positions)} tokens"),
            ("template", template[model.has_chat_template]),
        ],
        width,
    )


def _weights(model: Model) -> str:
    size = f"{bytes_text(model.weight_bytes)} on disk, " if model.weight_bytes else ""
    return f"{size}{model.dtype}"


def _tied(model: Model) -> str:
    return ", embedding and head tied" if model.tied_embeddings else ""
