"""The formula against the meta rehearsal of the real model code, family by family.

Small models with unlike widths: what a family's layer keeps or makes is as large a share of the
peak as in a real one. The grid of real sizes is tests/bench/formula_vs_meta.py.
"""

from __future__ import annotations

import pytest
from plans import made

from advisor.cost import memory
from profiles.models.dimensions import from_config

rehearse = pytest.importorskip("runner.rehearse").rehearse
settings_of = pytest.importorskip("runner.rehearsal_main").settings_of

DENSE = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
LATENT = {
    "kv_lora_rank": 64,
    "q_lora_rank": 96,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "num_key_value_heads": 8,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 192,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
FAMILIES = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 48},
    "gemma2": {"head_dim": 32, "tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 32, "sliding_window": 256, "tie_word_embeddings": True},
    "phi3": {},
    "phi": {"num_key_value_heads": 8},
    "olmo2": {},
    "granite": {},
    "cohere": {"tie_word_embeddings": True},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"head_dim": 32, **EXPERTS},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 192},
    "deepseek_v3": LATENT,
}
PLANS = {
    "full": made("full", seq_len=512),
    "full, bf16, accumulated": made(
        "full", seq_len=512, precision="bf16_pure", loss="full", accumulation=2
    ),
    "lora": made("lora", rank=8, targets="all", seq_len=512),
    "lora, recomputed": made("lora", rank=8, targets="all", seq_len=512, checkpointing=True),
    "lora, padded rows": made("lora", rank=8, targets="attention", seq_len=256, micro_batch=2),
    "qlora, recomputed": made("qlora", rank=8, targets="all", seq_len=512, checkpointing=True),
}


EVERY_FAMILY, EVERY_PLAN = ("full", "lora, recomputed"), ("llama", "mixtral")
"""What `make test` has of the grid: of each family all that it computes, kept and made again."""


def grid():
    """Each family with each plan."""
    for family in FAMILIES:
        for name in PLANS:
            is_long = name not in EVERY_FAMILY and family not in EVERY_PLAN
            yield pytest.param(family, name, marks=[pytest.mark.long] * is_long)


@pytest.mark.parametrize(("family", "name"), grid())
def test_formula_is_near_the_rehearsal(family, name):
    """Within 5 %, whatever the family, the method, and the moment that wins."""
    config, plan = DENSE | {"model_type": family} | FAMILIES[family], PLANS[name]
    told = rehearse(config, settings_of(plan), seq_len=plan.seq_len, micro_batch=plan.micro_batch)
    model = from_config(config, name=family, where="test")

    found = memory.estimate(model, plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.05), (
        f"{told.winner}, against {found.winner} at {found.peak.place}"
    )
