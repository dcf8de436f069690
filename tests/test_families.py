"""Every family against transformers itself: counts of small models, windows, defaults."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from profiles.errors import ExitCode, UserError
from profiles.models import catalog, config_keys
from profiles.models.config_keys import ALIASES
from profiles.models.dimensions import from_config
from profiles.models.families import FAMILIES, WRAPPERS
from profiles.models.parameters import count_params

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
HEADS = {"head_dim": 24}
GPT: dict[str, Any] = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}
LATENT = {
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
    "num_key_value_heads": 4,
}
ROUTED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "n_shared_experts": 2,
    "n_group": 1,
    "topk_group": 1,
}
BIASED = {"attention_bias": True}
MIXED = {"num_experts_per_tok": 2}
OLD = {"gpt_neox", "gptj", "gpt2", "gpt_bigcode", "falcon", "mpt", "bloom", "opt"}
"""Families that have other keys, or none, for the MLP's width and the key/value heads."""
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {**BIASED, "mlp_bias": True, "tie_word_embeddings": True}),
    ("mistral", HEADS),
    ("ministral", HEADS),
    ("ministral3", HEADS),
    ("mixtral", {"num_local_experts": 4}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen2_moe", {"num_experts": 4, "mlp_only_layers": [1], "moe_intermediate_size": 48}),
    ("qwen3", {**HEADS, **BIASED}),
    ("qwen3_moe", {**HEADS, **MIXED, "num_experts": 4, "decoder_sparse_step": 2}),
    ("smollm3", {}),
    ("granite", {**BIASED, "mlp_bias": True}),
    ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    (
        "granitemoehybrid",
        {
            "num_local_experts": 0,
            "shared_intermediate_size": 96,
            "layer_types": ["attention"] * 4,
            "position_embedding_type": "rope",
        },
    ),
    ("seed_oss", HEADS),
    ("gemma", {**HEADS, "tie_word_embeddings": True}),
    ("gemma2", {**HEADS, "tie_word_embeddings": True}),
    ("gemma3_text", {**HEADS, "tie_word_embeddings": True}),
    ("phi", {}),
    ("phi3", {}),
    ("phimoe", {**BIASED, "num_local_experts": 4, "lm_head_bias": True}),
    ("gpt_neox", {"intermediate_size": 160}),
    ("gpt_neox", {"intermediate_size": 160, "attention_bias": False}),
    ("gptj", {**GPT, "rotary_dim": 8}),
    ("gpt2", GPT),
    ("gpt2", {**GPT, "n_inner": 100}),
    ("gpt_bigcode", GPT),
    ("gpt_bigcode", {**GPT, "multi_query": False}),
    ("falcon", {"new_decoder_architecture": False, "ffn_hidden_size": None}),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", {"parallel_attn": False, "multi_query": False}),
    ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
    ("mpt", {"d_model": 64, "n_heads": 4, "n_layers": 3, "expansion_ratio": 3}),
    ("bloom", {"n_layer": 3, "n_head": 4}),
    ("opt", {"ffn_dim": 200, "word_embed_proj_dim": 64}),
    ("olmo", BIASED),
    ("olmo2", {}),
    ("olmo3", {}),
    ("olmoe", {**MIXED, "num_experts": 4}),
    ("starcoder2", {"tie_word_embeddings": True}),
    ("starcoder2", {"use_bias": False}),
    ("stablelm", {"use_qkv_bias": True}),
    ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    ("cohere", {"tie_word_embeddings": True, "use_qk_norm": True}),
    ("cohere2", {"tie_word_embeddings": True}),
    ("nemotron", {**HEADS, **BIASED, "mlp_bias": True}),
    ("minicpm3", LATENT),
    ("internlm3", {**HEADS, **BIASED, "mlp_bias": True}),
    ("glm", {**HEADS, **BIASED}),
    ("glm4", {**HEADS, "attention_bias": False}),
    ("glm4_moe", {**HEADS, **ROUTED, **BIASED, "use_qk_norm": True, "first_k_dense_replace": 2}),
    ("glm4_moe_lite", {**LATENT, **ROUTED}),
    ("deepseek_v2", {**LATENT, **ROUTED, "first_k_dense_replace": 1}),
    ("deepseek_v3", {**LATENT, **ROUTED, "first_k_dense_replace": 2}),
    ("deepseek_v3", {**LATENT, **ROUTED, "q_lora_rank": None}),
    ("gpt_oss", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("exaone4", {**HEADS, "sliding_window": 32, "sliding_window_pattern": 4}),
    ("ernie4_5", {**HEADS, "use_bias": True}),
    ("ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1}),
    ("minimax_m2", {**HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("arcee", {**BIASED, "mlp_bias": True}),
    ("apertus", {}),
    (
        "dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 3,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 500000.0},
            "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    ("dots1", {**ROUTED, "first_k_dense_replace": 1}),
    ("hunyuan_v1_dense", HEADS),
    ("hunyuan_v1_moe", {**HEADS, "num_experts": 4, "moe_topk": 2}),
    (
        "hy_v3",
        {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40},
    ),
]
"""Small models of the families that the dimensions describe."""

WINDOWED: list[tuple[str, dict[str, Any]]] = [
    ("mistral", {"sliding_window": 32}),
    ("gemma2", {"sliding_window": 32}),
    ("gemma3_text", {"num_hidden_layers": 13}),
    ("gemma3_text", {"num_hidden_layers": 7, "sliding_window_pattern": 3}),
    ("gemma3n_text", {"num_hidden_layers": 10}),
    ("cohere2", {"num_hidden_layers": 6}),
    ("olmo3", {"num_hidden_layers": 7}),
    ("exaone4", {"sliding_window": 32}),
    ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 4}),
    ("gpt_oss", {"num_hidden_layers": 5}),
    ("llama4_text", {"num_hidden_layers": 9}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 3}),
    ("qwen2", {"sliding_window": 32, "max_window_layers": 3}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 1}),
    ("qwen2_moe", {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 3}),
    ("smollm3", {"use_sliding_window": True, "sliding_window": 32, "num_hidden_layers": 9}),
    ("dots1", {"sliding_window": 32, "max_window_layers": 3}),
    ("ministral", {"sliding_window": 32}),
]


def small(model_type: str, extra: dict[str, Any]) -> dict[str, Any]:
    """A configuration of small dimensions under the family's own names."""
    dropped = {"intermediate_size", "num_key_value_heads"} if model_type in OLD else set()
    dropped |= {name for name in SMALL if any(other in extra for other in ALIASES.get(name, ()))}
    own = {name: value for name, value in SMALL.items() if name not in dropped}
    return {**own, "model_type": model_type, "pad_token_id": 0, **extra}


@pytest.mark.parametrize(("model_type", "extra"), MODELS)
def test_count_equals_the_built_model(model_type: str, extra: dict[str, Any]) -> None:
    """Every family's count is exact, on the meta device."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = small(model_type, extra)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config)
        )
    model = from_config(config, name=model_type, where="test")
    assert not model.unmodelled
    assert sum(weights.numel() for weights in built.parameters()) == count_params(model)


def test_every_family_is_built_here_or_counted_in_the_catalog() -> None:
    """A family whose count is checked nowhere would be a guess."""
    known = {model.model_type for name in catalog.ids() if (model := catalog.find(name))}
    encoders = {name for name, family in FAMILIES.items() if family.is_encoder}  # test_encoders
    assert set(FAMILIES) - encoders <= {name for name, _ in MODELS} | known


@pytest.mark.parametrize(("model_type", "extra"), WINDOWED)
def test_windows_are_those_of_transformers(model_type: str, extra: dict[str, Any]) -> None:
    """The number of sliding layers is the library's own, listed or not."""
    transformers = pytest.importorskip("transformers")
    config = {**SMALL, "head_dim": 16, "model_type": model_type, **extra}
    real = transformers.AutoConfig.for_model(**config)
    listed = getattr(real, "layer_types", None)
    if listed is None:
        expected = real.num_hidden_layers if real.sliding_window else 0
    else:
        expected = sum(kind in {"sliding_attention", "chunked_attention"} for kind in listed)
    assert expected == from_config(config, name="x", where="test").num_sliding_layers


def strings(module: str) -> set[str]:
    """Every string of a module of profiles/models, and so every key that it reads."""
    tree = ast.parse(Path(config_keys.__file__).with_name(module).read_text())
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in values if isinstance(value, str)}


def test_defaults_are_those_of_transformers() -> None:
    """config_defaults.json holds what the configuration classes say of each key that is read."""
    readers = ("config_keys.py", "dimensions.py", "families.py", "layer_kinds.py", "mixture.py")
    read = set[str]().union(*map(strings, readers)) - {"is_encoder_decoder"}  # False in all of them
    auto = pytest.importorskip("transformers.models.auto.configuration_auto")
    kept = json.loads(Path(config_keys.__file__).with_name("config_defaults.json").read_text())
    outer = {text: wrapper for wrapper, text in WRAPPERS.items() if text not in auto.CONFIG_MAPPING}
    assert set(FAMILIES) - {"phi3small", "nemotron-nas", "bailing_moe"} == set(kept)
    for model_type, values in kept.items():
        if model_type in outer:
            kind = type(auto.CONFIG_MAPPING[outer[model_type]]().get_text_config())
        else:
            kind = auto.CONFIG_MAPPING[model_type]
        real = {our_name(f.name): f.default for f in dataclasses.fields(kind)}
        plain = {k: v for k, v in real.items() if k in read and isinstance(v, int | str)}
        assert plain == {k: v for k, v in values.items() if k in plain}, model_type
        assert set(values) - set(plain) <= {"tie_word_embeddings"}, model_type


def our_name(name: str) -> str:
    return next((ours for ours, others in ALIASES.items() if name in others), name)


def test_an_unknown_type_is_refused() -> None:
    """Dimensions that look like Llama's do not make a family."""
    with pytest.raises(UserError) as caught:
        from_config(small("mamba", {}), name="x", where="config.json")
    assert "not a family known here" in caught.value.what
    assert ExitCode.BAD_DATA is caught.value.code
