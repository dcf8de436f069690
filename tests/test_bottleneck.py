"""Bottleneck adapters: where they stand, what they add, and what is published of them."""

from __future__ import annotations

import runpy

import pytest

pytest.importorskip("torch")

import copy

import tiny_families
import torch
from transformers import AutoModelForCausalLM

from advisor.cost import weights
from advisor.plan import Plan
from advisor.registry.adapters import PLACED, unknown_names
from advisor.registry.conflicts import conflict
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS
from profiles.models.dimensions import from_config
from runner.methods import bottleneck
from runner.methods.bottleneck_layers import Bottleneck, weights_of

IDS = torch.arange(3, 19)[None]
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
FAMILIES = sorted(PLACED & set(tiny_families.FAMILIES))


def adapted(family, placement, *, seed=1):
    """A tiny model with adapters that are not at their start."""
    plan = Plan.of("adapter", seq_len=16, placement=placement, reduction=4, precision="fp32")
    model = bottleneck.adapt(tiny_families.make(family).eval(), plan)
    torch.manual_seed(seed)
    for weight in weights_of(model).values():
        weight.data.normal_(std=0.3)
    return model, plan


def logits(model):
    """Of a few tokens."""
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_of_a_known_family_learns_and_nothing_else(family):
    """As many weights as the formula counts; at the start the model is the base."""
    plan = Plan.of("adapter", seq_len=16, reduction=4, precision="fp32")
    base = tiny_families.make(family).eval()
    before = logits(base)
    model = bottleneck.adapt(base, plan)
    assert torch.equal(logits(model), before)
    for weight in weights_of(model).values():
        weight.data.normal_(std=0.3)

    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()

    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    facts = from_config(model.config.to_dict(), name="tiny", where="test")
    assert touched == set(weights_of(model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == weights.trained_params(facts, plan)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_adapter_adds_what_the_papers_say_to_what_its_module_returns(placement):
    """Up(gelu(down(.))) of the module's result, or of its input beside it; in one place or two."""
    model, _ = adapted("llama", placement)
    layer, seen = model.model.layers[0], {}
    layer.mlp.down_proj.register_forward_hook(lambda _m, _a, out: seen.update(bare=out))
    layer.mlp.register_forward_hook(lambda _m, args, out: seen.update(read=args[0], total=out))

    logits(model)

    own = layer.mlp.bottleneck
    read = seen["read"] if placement == "parallel" else seen["bare"]
    inner = torch.nn.functional.gelu(read @ own.down.weight.T + own.down.bias)
    wanted = seen["bare"] + inner @ own.up.weight.T + own.up.bias
    assert torch.allclose(seen["total"], wanted, atol=1e-5)
    assert hasattr(layer.self_attn, "bottleneck") == (placement == "houlsby")
    number = sum(isinstance(module, Bottleneck) for module in model.modules())
    assert number == 2 * (2 if placement == "houlsby" else 1)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_is_published_loads_by_the_file_beside_it_and_by_nothing_else(tmp_path, placement):
    """To equal logits; transformers and PEFT find no model and no adapter of theirs in it."""
    model, _ = adapted("llama", placement)
    model.save_pretrained(tmp_path)
    load = runpy.run_path(str(tmp_path / "load_bottleneck.py"))["load"]

    found = load(tiny_families.make("llama").eval(), tmp_path)

    assert torch.equal(logits(found), logits(model))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("bottleneck_config.json", "bottleneck_weights.safetensors", "load_bottleneck.py"),
    }
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)


def test_an_adapter_of_another_base_is_refused(tmp_path):
    """Of another family, or with another number of layers."""
    model, _ = adapted("llama", "pfeiffer")
    model.save_pretrained(tmp_path)
    load = runpy.run_path(str(tmp_path / "load_bottleneck.py"))["load"]

    with pytest.raises(ValueError, match="this model is"):
        load(tiny_families.make("mistral"), tmp_path)
    with pytest.raises(ValueError, match="this model is"):
        load(tiny_families.make("llama", num_hidden_layers=3), tmp_path)


def test_a_copy_of_a_model_has_adapters_of_its_own():
    """A hook that held on to the first one's would train both."""
    model, _ = adapted("llama", "houlsby")
    before, other = logits(model), copy.deepcopy(model)

    for weight in weights_of(other).values():
        weight.data.zero_()

    assert torch.equal(logits(model), before)
    assert not torch.equal(logits(other), before)


def test_a_family_whose_modules_are_not_known_is_refused():
    """OPT's layers have no MLP of their own, BLOOM's add up what comes in as well."""
    for family in ("opt", "bloom", "mpt"):
        config = tiny_families.make(family).config.to_dict()
        facts = from_config(config, name="tiny", where="test")
        assert f"not for {family}" in unknown_names(facts, METHODS["adapter"].settings())


def test_a_task_that_compares_with_the_base_is_refused():
    """These adapters have no switch."""
    spec = METHODS["adapter"]
    chosen = spec, spec.settings(), OPTIMIZERS["adamw"], ENGINES["single"]

    assert "without what adapters add" in conflict(*chosen, TASKS["dpo"])
    assert not conflict(*chosen, TASKS["orpo"])
