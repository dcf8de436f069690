"""What a method hands to the trainer."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import bitsandbytes  # noqa: E402  # after the check for torch
import real_runs  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402
from transformers.integrations import sdpa_attention  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.framework import OURS  # noqa: E402
from runner import methods  # noqa: E402
from runner.methods import base  # noqa: E402


@pytest.mark.parametrize(("capability", "shares"), [((7, 5), False), ((8, 0), True)])
def test_key_heads_are_repeated_before_ampere(monkeypatch, capability, shares):
    """SDPA's kernel there would take whole scores rather than shared heads."""
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    base._repeat_heads_where_needed()

    key = torch.zeros(1, 2, 4, 64)
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key) is shares


SMALL = {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
STEADY = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
"""Of GPT-2, which drops out by default."""


@pytest.fixture
def repacks(monkeypatch):
    """A CPU with AVX512-BF16, as far as bitsandbytes is concerned."""
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)


def quantized(folder, family):
    """A model of a family as QLoRA trains it, with an adapter that is not zero."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL, **(STEADY if family == "gpt2" else {}))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    text = f'schema = 1\nname = "q"\n[model]\nid = "{folder}"\n[data]\ntrain = "rows.json"\n'
    recipe = recipes.parse(text + '[method]\nname = "qlora"\n', where="test")
    model = methods.prepare(recipe.to_plan(OURS), folder, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def gradients(model):
    """Of one batch, by name."""
    ids = torch.arange(40).reshape(2, 20)
    model.train().zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_an_evaluation_leaves_4_bit_gradients_as_they_were(tmp_path, repacks, family):
    """Weights repacked in evaluation mode are read wrongly afterwards."""
    model = quantized(tmp_path / "model", family)
    before = gradients(model)

    with torch.no_grad():
        model.eval()(input_ids=torch.arange(20)[None])

    after = gradients(model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_qlora_learns_after_an_evaluation_as_lora_does(tiny_model, orders, repacks):
    """The base is evaluated first; then the loss falls and every adapter moves."""
    settings = {"adapter": "rank = 8\nalpha = 16", "steps": 6, "split": "8:2:0"}
    run, lora = (
        real_runs.new_run(tiny_model, orders, method=method, **settings)
        for method in ("qlora", "lora")
    )

    real_runs.attempt(run)
    real_runs.attempt(lora)

    assert real_runs.losses(run) == pytest.approx(real_runs.losses(lora), abs=0.05)
    moved = {n: bool(t.any()) for n, t in real_runs.weights(run).items() if "lora_B" in n}
    assert moved
    assert all(moved.values())
