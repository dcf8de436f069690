"""The load-balancing loss of a mixture of experts counts once a step, however it is divided."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: E402

from profiles.runs import durable  # noqa: E402


@pytest.fixture(scope="module")
def mixture(tiny_model, tmp_path_factory):
    """A tiny random mixture of experts that asks for its router's loss, strongly."""
    folder = tmp_path_factory.mktemp("mixture")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


def first_loss(model, data, micro_batch, accumulation, loss):
    """Of the first step, over the same eight rows."""
    run = real_runs.new_run(
        model,
        data,
        method="full",
        steps=1,
        micro_batch=micro_batch,
        accumulation=accumulation,
        more=f'loss = "{loss}"\n',
    )
    durable.write_atomic(run.attempt_file, b"1\n")
    real_runs.attempt(run)
    return real_runs.losses(run)[1]


@pytest.mark.parametrize("loss", ["chunked", "full"])
def test_the_routers_loss_does_not_grow_with_accumulation(mixture, orders, loss):
    """Eight rows at once, or one by one: it would be eight times as strong."""
    at_once = first_loss(mixture, orders, 8, 1, loss)
    one_by_one = first_loss(mixture, orders, 1, 8, loss)

    assert one_by_one == pytest.approx(at_once, rel=0.02)
