"""Tiny random models of many families, as folders that a recipe can name."""

from __future__ import annotations

from functools import cache

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_WIDE = _LLAMA | {"head_dim": 16}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
_DEEPSEEK = (
    _LLAMA
    | _EXPERTS
    | {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    }
)
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _WIDE,
    "gemma": _WIDE,
    "gemma2": _WIDE | {"sliding_window": 16},
    "gemma3_text": _WIDE | {"sliding_window": 16},
    "phi": _LLAMA,
    "phi3": _LLAMA,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gptj": _GPT2 | {"rotary_dim": 8},
    "gpt_neox": _LLAMA,
    "opt": _LLAMA | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": _LLAMA,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "starcoder2": _LLAMA,
    "stablelm": _LLAMA,
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "cohere": _LLAMA,
    "cohere2": _LLAMA,
    "granite": _LLAMA,
    "glm4": _WIDE,
    "smollm3": _LLAMA,
    "nemotron": _LLAMA,
    "ernie4_5": _WIDE,
    "mixtral": _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": _LLAMA
    | _EXPERTS
    | {"num_experts": 4, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1},
    "qwen3_moe": _WIDE | _EXPERTS | {"num_experts": 4},
    "olmoe": _LLAMA | {"num_experts": 4, "num_experts_per_tok": 2},
    "granitemoe": _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "gpt_oss": _WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
    "phimoe": _LLAMA | {"num_local_experts": 4},
    "ernie4_5_moe": _WIDE | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24},
    "minimax_m2": _WIDE | {"num_local_experts": 4, "num_experts_per_tok": 2, "rotary_dim": 8},
    "glm4_moe": _WIDE
    | _EXPERTS
    | {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    "llama4_text": _WIDE
    | {
        "intermediate_size_mlp": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1,
        "attention_chunk_size": 32,
    },
    "jetmoe": _LLAMA | {"num_local_experts": 4, "kv_channels": 16},
    "arcee": _LLAMA,
    "apertus": _LLAMA,
    "seed_oss": _WIDE,
    "exaone4": _WIDE | {"sliding_window": 16},
    "hunyuan_v1_dense": _WIDE,
    "olmo3": _LLAMA,
    "glm": _WIDE,
    "qwen3_next": _WIDE
    | _EXPERTS
    | {
        "num_experts": 4,
        "shared_expert_intermediate_size": 24,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    "lfm2": _LLAMA | {"layer_types": ["conv", "full_attention"]},
}
"""Dimensions by model type."""


@cache
def tokenizer():
    """One for all of them."""
    from runner.demo_base import make_tokenizer
    from runner.demo_text import base_lines

    return make_tokenizer(list(base_lines(300, 0)))


def make(family, **changes):
    """A model of the family with random weights; always the same."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    words = tokenizer()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **FAMILIES[family] | changes,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def save(family, folder, **changes):
    """Model and tokenizer in a folder; returns it."""
    make(family, **changes).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
