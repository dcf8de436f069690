"""A model as lines."""

from __future__ import annotations

from advisor.choice import words
from profiles.facts import Model, Origin
from profiles.models.parameters import active_params
from profiles.quantities import bytes_text, count_text
from tui.plain import facts

_COUNTED = {
    Origin.MEASURED: "as its weight files say",
    Origin.TABLE: "as the catalog says",
    Origin.PREDICTED: "counted from its config",
    Origin.USER: "as you say",
    Origin.DEFAULT: "assumed",
}


def lines(model: Model, width: int) -> list[str]:
    """Size, shape and what it brings along."""
    heads = f"{model.num_heads} heads, {model.num_kv_heads} key/value heads of {model.head_dim}"
    template = {True: "yes", False: "no: a base model", None: "not known"}
    return facts(
        [
            ("model", model.id),
            ("folder", model.path or "none: it can be planned with, and trained once downloaded"),
            ("kind", f"{model.architecture} ({model.model_type}), {_kind(model)}"),
            ("parameters", f"{count_text(model.num_params)}, {_COUNTED[model.params_origin]}"),
            ("  active", _active(model)),
            ("  towers", _towers(model)),
            ("weights", _weights(model)),
            ("shape", f"{model.num_layers} layers of {model.hidden_size}, {heads}"),
            ("  latent", _latent(model)),
            ("  window", _window(model)),
            ("mlp", str(model.intermediate_size or "")),
            ("experts", _experts(model)),
            ("vocabulary", f"{count_text(model.vocab_size)}{_tied(model)}"),
            ("reads", f"{count_text(model.max_positions)} tokens"),
            ("template", template[model.has_chat_template]),
            ("gated", "yes: the hub asks you to accept a licence" if model.gated else ""),
            ("code", words.IGNORED_CODE if model.ignores_code else ""),
            ("caution", _caution(model)),
        ],
        width,
    )


def size(model: Model) -> str:
    """Like "46.7 B parameters, 12.9 B active"."""
    active = f", {_in_words(active_params(model))} active" if model.experts else ""
    return f"{_in_words(model.num_params)} parameters{active}"


def _in_words(number: int) -> str:
    """Like 8.03 B or 494 M."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return count_text(number)


def _kind(model: Model) -> str:
    return "a mixture of experts" if model.experts else "dense"


def _active(model: Model) -> str:
    return f"{count_text(active_params(model))} meet one token" if model.experts else ""


def _towers(model: Model) -> str:
    if not model.vision_params:
        return ""
    return f"{count_text(model.vision_params)} for images or sound, frozen while text is trained"


def _weights(model: Model) -> str:
    size = f"{bytes_text(model.weight_bytes)} on disk, " if model.weight_bytes else ""
    return f"{size}{model.dtype}"


def _latent(model: Model) -> str:
    """The ranks of latent attention."""
    if model.latent is None:
        return ""
    queries = f"{model.latent.query_rank} for queries, " if model.latent.query_rank else ""
    return f"low ranks: {queries}{model.latent.kv_rank} for keys and values"


def _window(model: Model) -> str:
    if model.sliding_window is None:
        return ""
    layers = f"{model.num_sliding_layers} of {model.num_layers} layers"
    return f"{count_text(model.sliding_window)} tokens in {layers}"


def _experts(model: Model) -> str:
    experts = model.experts
    if experts is None:
        return ""
    shared = f", shared ones of {experts.shared_width}" if experts.shared_width else ""
    layers = f"in {experts.num_layers} of {model.num_layers} layers"
    return f"{experts.num_experts} of {experts.width}, {experts.top_k} a token{shared}; {layers}"


def _tied(model: Model) -> str:
    return ", embedding and head tied" if model.tied_embeddings else ""


def _caution(model: Model) -> str:
    """Why no run can train this model, or why there is no estimate for it but a rehearsal."""
    if model.untrainable:
        return f"no run can train it: {model.untrainable}"
    if not model.unmodelled:
        return ""
    return f"{model.unmodelled}: no formula holds; `advisor recommend --rehearse` counts its memory"
