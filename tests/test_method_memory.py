"""The memory formula against the rehearsal of the real code, for every method that runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("trl")

from method_cases import CASES, EXPERTS, Case

from advisor.cost import memory, weights
from advisor.registry.lookup import METHODS
from profiles.models.dimensions import from_config
from runner.rehearsal_main import settings_of
from runner.rehearse import rehearse

LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
LONG = pytest.mark.long
ALIKE = (
    "rslora",
    "gaussian",
    "olora",
    "lora+",
    "lora, some biases",
    "lora, experts",
    "lora, router",
)
"""They keep what LoRA keeps; mixtures are looked at in test_expert_targets.py."""
TABLES = ("lora, whole modules", "lora, biases")
"""Looked at below."""


def test_every_method_that_runs_has_a_case():
    """QLoRA is LoRA's code on another base, which takes a GPU to be worth its while."""
    assert {case.method for case in CASES.values()} == set(METHODS.ready) - {"qlora"}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] * (name in ALIKE))
        for name in CASES
        if METHODS[CASES[name].method].rehearsed and name not in TABLES
    ],
)
def test_the_formula_is_within_one_percent_of_the_rehearsal(name, checkpointing):
    """Of the worker's own code, with the method's settings."""
    plan = CASES[name].plan(seq_len=512, checkpointing=checkpointing)
    if checkpointing and not plan.method.recomputes:
        pytest.skip("refused before the start")

    family = CASES[name].family
    config = LLAMA | {"model_type": family} | (EXPERTS if family == "mixtral" else {})
    told = rehearse(config, settings_of(plan), seq_len=plan.seq_len, micro_batch=plan.micro_batch)
    found = memory.estimate(from_config(config, name="tiny", where="test"), plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01), (
        f"{told.winner}, against {found.winner} at {found.peak.place}"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"micro_batch": 3},
        {"precision": "fp32"},
        {"attention": "eager"},
        {"micro_batch": 4, "seq_len": 64},
        {"loss": "full", "seq_len": 128},
    ],
    ids=str,
)
def test_a_prefix_takes_what_every_layer_joins_and_keeps(values):
    """Its keys and values lie before a row's, in a cache that lives through the forward pass."""
    case = Case("prefix_tuning", "virtual_tokens = 100")
    plan = case.plan(**{"seq_len": 512} | values)

    told = rehearse(LLAMA, settings_of(plan), seq_len=plan.seq_len, micro_batch=plan.micro_batch)
    found = memory.estimate(from_config(LLAMA, name="tiny", where="test"), plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01)


def compared(plan):
    """Bytes of the formula and of the rehearsal, and where the formula has its peak."""
    told = rehearse(LLAMA, settings_of(plan), seq_len=plan.seq_len, micro_batch=plan.micro_batch)
    found = memory.estimate(from_config(LLAMA, name="tiny", where="test"), plan)
    return found.allocated_bytes, told.peak_bytes, found.peak.place


@pytest.mark.parametrize(
    ("settings", "precision"),
    [("freeze_a = true", "bf16"), ("freeze_a = false", "bf16"), ("freeze_a = true", "bf16_pure")],
)
def test_the_norms_that_dora_takes_of_whole_weights_are_counted(settings, precision):
    """On short rows nothing else is as large; A's gradient would need the unit matrix."""
    case = Case("lora", f"dora = true\n{settings}")

    ours, theirs, place = compared(case.plan(seq_len=16, precision=precision))

    assert place == "dora_norms"
    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_weights_of_8_bits_keep_their_inputs_though_activations_are_recomputed(checkpointing):
    """Bitsandbytes holds them where no checkpoint finds them."""
    case = Case("qlora", "bits = 8\ndropout = 0.1")

    ours, theirs, _ = compared(case.plan(seq_len=512, checkpointing=checkpointing))

    assert ours == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize(
    ("name", "tied", "values"),
    [
        ("lora", False, {"checkpointing": True}),
        ("adalora", True, {}),
        ("lora", True, {"loss": "full", "seq_len": 64}),
        pytest.param("lora", False, {"precision": "bf16_pure"}, marks=pytest.mark.long),
        pytest.param("full", True, {}, marks=pytest.mark.long),
    ],
)
def test_rows_of_new_tokens_cost_a_gradient_of_the_whole_table(name, tied, values):
    """PEFT makes embedding and head anew for each pass, and takes the rows' gradient of theirs."""
    config = LLAMA | {"tie_word_embeddings": tied, "vocab_size": 20_000}
    case = Case(name, "tinit = 3\ntfinal = 4" if name == "adalora" else "")
    plan = case.plan(**{"seq_len": 512, "num_new_tokens": 40} | values)
    model = from_config(config, name="tiny", where="test")

    told = rehearse(config, settings_of(plan), seq_len=plan.seq_len, micro_batch=1)
    found = memory.estimate(model, plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01)
    assert told.num_trainable == weights.trained_params(model, plan)
    if name != "full":
        without = memory.estimate(model, replace(plan, num_new_tokens=0))
        assert found.allocated_bytes > without.allocated_bytes + 2 * 20_000 * 256


@pytest.mark.parametrize(
    ("whole", "tied", "values", "near"),
    [
        ('["embed_tokens", "norms"]', False, {"checkpointing": True}, 0.01),
        ('["lm_head"]', True, {"precision": "bf16_pure"}, 0.01),
        pytest.param('["lm_head"]', False, {"optimizer": "adamw_8bit"}, 0.06, marks=LONG),
        pytest.param('["embed_tokens"]', False, {"num_new_tokens": 30}, 0.01, marks=LONG),
        pytest.param('["embed_tokens"]', True, {"accumulation": 2}, 0.05, marks=LONG),
        pytest.param('["norms"]', True, {}, 0.01, marks=LONG),
    ],
)
def test_copies_of_whole_modules_are_counted(whole, tied, values, near):
    """With their gradients, and 32-bit states for an embedding's.

    A head's gradient in fp32 is taken to lie beside the 16-bit copy that it is cast from, as it is
    of full fine-tuning: somewhat more than there is.
    """
    config = LLAMA | {"tie_word_embeddings": tied, "vocab_size": 20_000}
    plan = Case("lora", f"modules_to_save = {whole}").plan(**{"seq_len": 512} | values)
    model = from_config(config, name="tiny", where="test")

    told = rehearse(config, settings_of(plan), seq_len=plan.seq_len, micro_batch=1)
    found = memory.estimate(model, plan)

    assert told.num_trainable == weights.trained_params(model, plan)
    assert -0.01 < found.allocated_bytes / told.peak_bytes - 1 < near
    states = sum(weights.optimizer_bytes(model, plan))
    assert states == pytest.approx(told.optimizer_state_bytes, rel=0.02)
