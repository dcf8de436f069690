"""Fine-tuning of some layers: which weights train, what is spared, and what is refused."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import tiny_families
import torch
from known import RECIPE

from advisor import recipe as recipes
from advisor.cost import memory, weights
from advisor.framework import OURS
from advisor.plan import Plan
from profiles.errors import ExitCode, UserError
from profiles.models.dimensions import from_config
from runner.checks import pairing
from runner.methods import whole
from runner.methods.base import layers_of
from runner.rehearsal_main import settings_of
from runner.rehearse import rehearse

FAMILIES = ("llama", "gemma2", "phi", "gpt2", "bloom", "mixtral", "deepseek_v3")
SECOND = Plan.of("freeze", layers=(1,), seq_len=16)
SMALL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}


def recipe_of(settings):
    """A recipe of freezing with these lines."""
    return recipes.parse(RECIPE.replace('name = "lora"', f'name = "freeze"\n{settings}'), where="r")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_named_layer_trains_with_norm_and_head_and_nothing_before_it(family):
    """In fp32; tables of tokens and positions stay, in 16 bits, and so does a tied head."""
    model = tiny_families.make(family).to(torch.bfloat16)
    first, second = layers_of(model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()

    whole.adapt(model, SECOND)

    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kept = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    inside = {id(p) for p in [*first.parameters(), *second.parameters()]}
    assert all(p.requires_grad for p in second.parameters())
    assert not any(p.requires_grad for p in first.parameters())
    assert not embedding.weight.requires_grad
    assert head.weight.requires_grad == (head.weight is not embedding.weight)
    assert any("norm" in n or "ln_f" in n for n, p in trained.items() if id(p) not in inside)
    assert not any("wpe" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert {p.dtype for p in kept.values()} == {torch.bfloat16}
    facts = from_config(model.config.to_dict(), name="tiny", where="test")
    assert sum(p.numel() for p in trained.values()) == weights.trained_params(facts, SECOND)


def test_layers_before_the_first_that_trains_are_not_gone_back_through():
    """Nor computed again with recomputed activations; the gradients are the same."""
    ids, found = torch.arange(3, 19)[None], []
    for recomputes in (False, True):
        model = whole.adapt(tiny_families.make("llama"), SECOND).train()
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        passes = []
        layers_of(model)[0].mlp.register_forward_hook(lambda *said: passes.append(said[-1]))  # noqa: B023
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        assert [out.requires_grad for out in passes] == [False]
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})

    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_the_estimate_knows_which_layers_have_no_graph(*, tied, checkpointing):
    """Below, between and above those that train: within one percent of the rehearsal."""
    config = SMALL | {"tie_word_embeddings": tied}
    plan = Plan.of("freeze", layers=(2, 5), seq_len=512, checkpointing=checkpointing)

    told = rehearse(config, settings_of(plan), seq_len=512)
    facts = from_config(config, name="tiny", where="test")

    assert weights.trained_params(facts, plan) == told.num_trainable
    found = memory.estimate(facts, plan)
    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01)


def test_both_ways_to_say_which_layers_train_are_not_taken_together():
    """Without one of them either is."""
    with pytest.raises(UserError, match=r"not valid|recipe") as told:
        recipe_of("frozen_layers = 2\nlayers = [3]")

    assert "`method.frozen_layers`: method.layers names those" in told.value.why
    assert recipe_of("layers = [5, 3]").to_plan(OURS).settings.adapted_layers(8) == [3, 5]
    assert recipe_of("frozen_layers = 2").to_plan(OURS).settings.adapted_layers(4) == range(2, 4)


@pytest.mark.parametrize(
    ("settings", "instead"),
    [
        ("layers = [0, 8]", "layers=[0]"),
        ('layers = "last 9"', 'layers="last 8"'),
        ("frozen_layers = 8", "frozen_layers=7"),
    ],
)
def test_layers_that_a_model_does_not_have_are_refused_with_advice_that_works(settings, instead):
    """Before anything is loaded."""
    facts = from_config(SMALL, name="tiny", where="test")

    with pytest.raises(UserError, match="does not fit the model") as told:
        pairing.check_model(recipe_of(settings), facts)

    assert told.value.code is ExitCode.BAD_RECIPE
    assert f"method.{instead}" in told.value.do
    pairing.check_model(recipe_of(instead), facts)
