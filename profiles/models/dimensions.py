"""A configuration as `Model`: the one parser for local folders, the hub and the catalog.

Decides the dimensions of the text model and how its layers are built. The parameters are counted;
the weights of towers (`is_wrapped`), and of layers that the dimensions do not describe
(`Model.unmodelled`), are the caller's to add. Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from profiles.facts import Experts, Model, Origin
from profiles.models.config_keys import dimension, flag, number, plain
from profiles.models.families import WRAPPERS, Family, family_of, untrainable
from profiles.models.layer_kinds import latent_of, sliding_of, unmodelled
from profiles.models.mixture import experts_of
from profiles.models.parameters import count_params
from profiles.models.safe_config import bad_file, names_code

MAX_LAYERS: Final = 1_000
_DEFAULT_POSITIONS: Final = 2048
_ORIGINAL: Final = "fetch the original config.json of the model"


def from_config(config: dict[str, Any], *, name: str, where: str) -> Model:
    """Facts of a model by its configuration; raises UserError for what is not known here."""
    text, model_type = text_part(config)
    if config.get("is_encoder_decoder") is True:
        raise bad_file(
            f"{model_type} is an encoder-decoder model",
            where,
            why="its two halves work on different texts; only decoders are estimated and trained",
            do="choose a decoder-only model",
        )
    family = family_of(model_type, where)
    values = plain(text, model_type)
    if isinstance(config.get("tie_word_embeddings"), bool):
        # A wrapper's own word on tying goes before that of the text model inside
        values["tie_word_embeddings"] = config["tie_word_embeddings"]
    model = _dimensions(values, family, model_type, where)
    model = replace(
        model,
        id=name,
        architecture=_architecture(config, family),
        dtype=declared_dtype(config) or declared_dtype(text) or "bfloat16",
        other_params=_small_extras(model) + _beside_layers(values, model),
        untrainable=untrainable(str(config["model_type"])),
        ignores_code=names_code(config),
    )
    return replace(model, num_params=count_params(model))


def text_part(config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The text model's own configuration and its model type."""
    outer = str(config["model_type"])
    if outer not in WRAPPERS:
        return config, outer
    inner = config.get("text_config")
    if not isinstance(inner, dict):  # Qwen2-VL writes the text model's values flat
        return config, WRAPPERS[outer]
    said = inner.get("model_type")
    return inner, said if isinstance(said, str) and said != outer else WRAPPERS[outer]


def is_wrapped(config: dict[str, Any]) -> bool:
    """The model has towers beside its text model."""
    return config.get("model_type") in WRAPPERS


def declared_dtype(config: dict[str, Any]) -> str | None:
    """The type that the configuration says the weights have."""
    value = config.get("dtype") or config.get("torch_dtype")
    return value if value in {"bfloat16", "float16", "float32"} else None


def _dimensions(values: dict[str, Any], family: Family, model_type: str, where: str) -> Model:
    hidden = dimension(values, "hidden_size", where)
    layers = dimension(values, "num_hidden_layers", where, limit=MAX_LAYERS)
    heads, kv_heads = _heads(values, model_type, where)
    latent = latent_of(values, where)
    head_dim = dimension(values, "head_dim", where, default=max(1, hidden // heads))
    experts = experts_of(values, model_type, layers, where)
    positions = _positions(values, family, where)
    window, num_sliding = sliding_of(values, family, layers)
    return Model(
        id="",
        path=None,
        architecture="",
        model_type=model_type,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=latent.nope_dim + latent.rope_dim if latent else head_dim,
        intermediate_size=_dense_width(values, family, experts, model_type, where),
        vocab_size=dimension(values, "vocab_size", where),
        max_positions=positions,
        tied_embeddings=flag(values, "tie_word_embeddings"),
        attention_bias=flag(values, family.attention_bias),
        output_bias=flag(values, family.output_bias),
        mlp_bias=flag(values, family.mlp_bias),
        head_bias=flag(values, family.head_bias),
        qk_norm=family.qk_norm if flag(values, family.qk_norm_switch) and not latent else "",
        norm=family.norm,
        norms_per_layer=_norms(values, family, model_type),
        parallel=flag(values, family.parallel),
        gated_mlp=family.gated_mlp,
        fused_qkv=family.fused_qkv,
        fused_gate_up=family.fused_gate_up,
        sliding_window=window,
        num_sliding_layers=num_sliding,
        is_bounded=family.is_bounded,
        is_encoder=family.is_encoder,
        num_positions=0 if family.extra_positions is None else positions + family.extra_positions,
        experts=experts,
        latent=latent,
        unmodelled=unmodelled(values, model_type, layers),
        num_params=0,
        params_origin=Origin.PREDICTED,
    )


def _positions(values: dict[str, Any], family: Family, where: str) -> int:
    """Tokens of the longest text."""
    said = dimension(values, "max_position_embeddings", where, default=_DEFAULT_POSITIONS)
    return said - 2 if family.counts_padding else said


def _heads(values: dict[str, Any], model_type: str, where: str) -> tuple[int, int]:
    """Query heads and key/value heads."""
    if model_type == "jetmoe":  # its queries are experts: each visited one brings all heads
        kv_heads = dimension(values, "num_key_value_heads", where)
        return kv_heads * dimension(values, "num_experts_per_tok", where), kv_heads
    heads = dimension(values, "num_attention_heads", where)
    kv_heads = dimension(values, "num_key_value_heads", where, default=heads)
    old_falcon = model_type == "falcon" and not flag(values, "new_decoder_architecture")
    if old_falcon or model_type == "gpt_bigcode":
        kv_heads = 1 if flag(values, "multi_query") else heads
    if heads % kv_heads:
        raise bad_file(
            "the attention dimensions in config.json do not fit together",
            where,
            why=f"{heads} heads cannot share {kv_heads} key/value heads evenly",
            do=_ORIGINAL,
        )
    return heads, kv_heads


def _dense_width(
    values: dict[str, Any], family: Family, experts: Experts | None, model_type: str, where: str
) -> int:
    """Width of the MLP of the layers without experts; 0 where there are none."""
    if experts and experts.num_layers == number(values, "num_hidden_layers"):
        return 0
    if model_type == "llama4_text":
        return dimension(values, "intermediate_size_mlp", where)
    if model_type == "granitemoehybrid":
        return dimension(values, "shared_expert_intermediate_size", where)
    # GPT-2's kind says nothing where the MLP is four times as wide as the model
    default = None if family.gated_mlp else 4 * number(values, "hidden_size")
    return dimension(values, "intermediate_size", where, default=default)


def _norms(values: dict[str, Any], family: Family, model_type: str) -> int:
    if model_type == "falcon" and flag(values, "parallel_attn"):
        usual = 2 if flag(values, "new_decoder_architecture") else 1
        return number(values, "num_ln_in_parallel_attn") or usual
    if model_type == "stablelm" and flag(values, family.parallel):
        return 1
    return family.norms


def _small_extras(model: Model) -> int:
    """Weights too few to be a dimension of `Model`, but part of the count."""
    match model.model_type:
        case "bloom":
            return 2 * model.hidden_size  # a norm after the embedding
        case "gpt_oss":
            return model.num_layers * model.num_heads  # attention sinks
        case "apertus":
            return 2 * model.num_layers  # slopes of xIELU
        case "ernie4_5_moe" if model.experts:
            return model.experts.num_layers * model.experts.num_experts  # balance of the router
        case _:
            return 0


def _beside_layers(values: dict[str, Any], model: Model) -> int:
    """An encoder's table of parts of a text, and BERT's linear on the first token."""
    h = model.hidden_size
    if not model.is_encoder:
        return 0
    return number(values, "type_vocab_size") * h + (h * h + h if model.model_type == "bert" else 0)


def _architecture(config: dict[str, Any], family: Family) -> str:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    return first if isinstance(first, str) and first.isidentifier() else family.architecture
