"""What tasks cost: the formula against a rehearsal of the libraries' own code, within 1 or 2 %."""

from __future__ import annotations

import pytest

from advisor.cost import memory
from advisor.plan import Plan
from advisor.registry.lookup import TASKS
from profiles.models.dimensions import from_config

rehearse = pytest.importorskip("runner.rehearse").rehearse
settings_of = pytest.importorskip("runner.rehearsal_main").settings_of

CONFIG = {
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
FAMILIES = {"llama": {}, "qwen2": {"tie_word_embeddings": True}}
PLANS = {
    "lora": {"method": "lora", "rank": 8, "targets": "all"},
    "lora, recomputed": {"method": "lora", "rank": 8, "targets": "all", "checkpointing": True},
    "full": {"method": "full"},
    "full, 16 bits": {"method": "full", "precision": "bf16_pure", "accumulation": 2},
}


CASES = [
    *(("dpo", "llama", name) for name in PLANS),
    *(("reward", "llama", name) for name in PLANS),
    *(("reward", "qwen2", name) for name in ("lora", "full")),  # a head that would be tied
    *(("orpo", "qwen2", "lora"), ("kto", "llama", "lora")),
    *((task, "llama", name) for task in ("classify", "pretrain") for name in ("lora", "full")),
]


@pytest.mark.parametrize(("task", "family", "name"), CASES)
def test_the_formula_is_that_of_the_task(task, family, name):
    """Two sequences a pair, a frozen copy where the base trains, no LM head under a score head."""
    config = CONFIG | {"model_type": family} | FAMILIES[family]
    rows = 2 if TASKS[task].sequences_per_row == 1 else 1
    plan = Plan.of(**PLANS[name], task=task, seq_len=512, micro_batch=rows)
    told = rehearse(config, settings_of(plan), seq_len=512, micro_batch=plan.sequences)

    found = memory.estimate(from_config(config, name=family, where="test"), plan)

    assert found.allocated_bytes == pytest.approx(
        told.peak_bytes, rel=0.02 if name == "full" else 0.01
    ), f"{told.winner}, against {found.winner} at {found.peak.place}"
