"""What a method leaves: how large it is, what takes it, and what is told of both."""

from __future__ import annotations

import pytest
from known import model

from advisor.choice import storage
from advisor.plan import Plan
from advisor.registry.lookup import METHODS, hands_to, is_ready
from profiles.errors import UserError
from tui.commands import checks
from tui.pages import method, method_facts, methods

H, LAYERS, KV = 4096, 32, 1024
LORA = 16 * LAYERS * (2 * (H + H) + 2 * (H + KV) + 3 * (H + 14336))
PUBLISHED = {
    "lora": 4 * LORA,
    "qlora": 2 * LORA,
    "p_tuning": 4 * 20 * H,
    "p_tuning_v2": 4 * 20 * LAYERS * 2 * KV,
    "adalora": 4 * (LORA // 4 + 4 * 7 * LAYERS),
    "full": 4 * 8_030_261_248,
}
"""Bytes for Llama 3.1 8B: no encoder of a prompt, ranks as they end."""


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_what_is_published_has_its_own_size(name, expected):
    """Which is not that of what is added while it trains."""
    plan = Plan.of(name, seq_len=64)

    assert storage.disk(model(), plan).artefact_bytes == expected


def test_adapters_that_began_in_the_weights_are_published_at_twice_the_rank():
    """Magnitudes are there once."""
    plain, begun = (Plan.of("lora", seq_len=64, init=init) for init in ("kaiming", "pissa"))

    assert storage.published_bytes(model(), begun) == 2 * storage.published_bytes(model(), plain)
    dora = storage.published_bytes(model(), begun.with_settings(dora=True))
    more = storage.published_bytes(model(), plain.with_settings(dora=True))
    assert dora - more == 4 * LORA


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("full", ("model", "vLLM", "GGUF")),
        ("bitfit", ("model", "vLLM", "GGUF")),
        ("lora", ("PEFT", "vLLM", "merged", "GGUF")),
        ("adalora", ("PEFT", "merged", "vLLM", "GGUF")),
        ("p_tuning", ("PEFT",)),
        ("adapter", ("its own file",)),
        ("lit_llama_adapter", ()),
    ],
)
def test_what_a_result_can_be_handed_to(name, expected):
    """Whole models and what merges go everywhere, soft prompts to PEFT alone."""
    assert hands_to(METHODS[name]) == expected
    assert method_facts.document(METHODS[name])["hands_to"] == list(expected)


def test_figures_are_of_a_model_that_the_method_can_train():
    """BitFit finds biases in Qwen2.5, none in Llama."""
    assert method_facts.figures(METHODS["lora"]).model.id == "meta-llama/Llama-3.1-8B"
    assert method_facts.figures(METHODS["bitfit"]).model.id == "Qwen/Qwen2.5-7B"
    assert method_facts.figures(METHODS["lora"]).share == pytest.approx(LORA / 8_030_261_248)
    assert all(method_facts.figures(spec) for spec in METHODS)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("spec", list(METHODS), ids=str)
def test_a_method_in_full_has_every_key_and_fits(spec, width):
    """With its state, and as JSON says it."""
    rows = method.lines(spec, width)

    assert max(map(len, rows)) <= width
    told = methods.one(spec)
    assert all(f"  {name} " in "\n".join(rows) for name in told["keys"])
    assert any(row.startswith("runs") and ("yes" in row) == is_ready(spec) for row in rows)


def test_a_method_in_full_says_ranges_reasons_conflicts_and_what_is_quoted():
    """In words."""
    text = " ".join("\n".join(method.lines(METHODS["qlora"], 120)).split())

    assert "rank 16 width of the adapters; 1 to 1024" in text
    assert "twice the rank, the usual choice" in text
    assert "quality 90-95 % of full fine-tuning; memory 2-5 % of its (documents" in text
    assert "strategy" not in text.partition("does not go with")[2]
    assert "optimizer lomo LOMO spares the gradients" in text
    assert "bitsandbytes" in text


def test_an_unknown_method_is_refused_with_the_nearest():
    """Before anything is printed."""
    with pytest.raises(UserError) as error:
        checks.methods(name="prompt_tunin", as_json=False)

    assert "did you mean `prompt_tuning`?" in error.value.why
