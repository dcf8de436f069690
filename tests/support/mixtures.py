"""Tiny random mixtures of experts, as folders that a recipe can name."""

from __future__ import annotations

DIMENSIONS = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 256,
}
FAMILIES = {
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 48, "head_dim": 16},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 48,
        "shared_expert_intermediate_size": 96,
        "decoder_sparse_step": 1,
    },
    "olmoe": {"num_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16},
}


def make(family):
    """A model of the family with random weights; always the same."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **DIMENSIONS, **FAMILIES[family])
    return AutoModelForCausalLM.from_config(config)


def save(family, folder):
    """Model and tokenizer in a folder; returns it."""
    from runner.demo_base import make_tokenizer
    from runner.demo_text import base_lines

    make(family).save_pretrained(folder)
    make_tokenizer(list(base_lines(300, 0))).save_pretrained(folder)
    return folder
