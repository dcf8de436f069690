"""Mixtures of LoRA experts: what they add, who weighs them, and what is published of them."""

from __future__ import annotations

import copy
import json
import runpy

import pytest

torch = pytest.importorskip("torch")

import tiny_families  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from advisor.cost import memory, weights  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from advisor.registry.conflicts import conflict  # noqa: E402
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS  # noqa: E402
from profiles.models.dimensions import from_config  # noqa: E402
from runner.methods import lora_experts  # noqa: E402
from runner.methods.lora_experts_layers import LoraExperts, weights_of  # noqa: E402
from runner.rehearsal_main import settings_of  # noqa: E402
from runner.rehearse import rehearse  # noqa: E402

IDS = torch.arange(3, 19)[None]
FILES = ("lora_experts_config.json", "lora_experts_weights.safetensors", "load_lora_experts.py")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 4000,
    "pad_token_id": 0,
}
FAMILIES = ("llama", "gpt2", "phi3", "bloom")


def plan(**settings):
    """Three experts of rank 2."""
    values = {"experts": 3, "rank": 2, "alpha": 6, "precision": "fp32"} | settings
    return Plan.of("lora_experts", seq_len=16, **values)


def adapted(family, *, seed=1, **settings):
    """A tiny model with experts and routers that are not at their start."""
    model = lora_experts.adapt(tiny_families.make(family).eval(), plan(**settings))
    torch.manual_seed(seed)
    for weight in weights_of(model).values():
        weight.data.normal_(std=0.3)
    return model


def logits(model):
    """Of a few tokens."""
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(f, marks=pytest.mark.long) for f in FAMILIES[1:])]
)
def test_every_expert_and_router_learns_and_nothing_else(family):
    """As many weights as the formula counts; at the start the model is the base."""
    base = tiny_families.make(family).eval()
    before = logits(base)
    model = lora_experts.adapt(base, plan())
    assert torch.equal(logits(model), before)
    for weight in weights_of(model).values():
        weight.data.normal_(std=0.3)

    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()

    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    facts = from_config(model.config.to_dict(), name="tiny", where="test")
    assert touched == set(weights_of(model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == weights.trained_params(facts, plan())


def test_experts_add_what_the_paper_says_to_what_a_linear_gives():
    """Each B A x as often as its share of the softmax, and alpha / rank times."""
    model, seen = adapted("llama"), {}
    linear = model.model.layers[1].mlp.up_proj
    linear.register_forward_hook(lambda _m, args, out: seen.update(x=args[0], total=out))

    logits(model)

    own, x = linear.lora_experts, seen["x"]
    shares = torch.softmax(x @ own.router.weight.T, dim=-1)
    wanted = x @ linear.weight.T
    for number in range(3):
        rows = slice(2 * number, 2 * number + 2)
        a, b = own.down.weight[rows], own.up.weight[:, rows]
        wanted = wanted + shares[..., number : number + 1] * 3 * (x @ a.T @ b.T)
    assert torch.allclose(seen["total"], wanted, atol=1e-5)
    assert shares.std() > 0.01  # else their order would not show


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("all", 14),
        ("attention", 8),
        (("q_proj", "down_proj"), 4),
    ],
)
def test_the_linears_of_the_layers_get_experts(targets, names):
    """All, those of attention, or as named; never the head."""
    model = lora_experts.adapt(tiny_families.make("llama"), plan(targets=targets))

    assert sum(isinstance(module, LoraExperts) for module in model.modules()) == names


def test_of_the_experts_inputs_a_share_is_dropped_in_training_alone():
    """The router sees them all."""
    model = adapted("llama", dropout=0.5)
    module = model.model.layers[0].self_attn.q_proj.lora_experts
    seen = []
    module.router.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    same = logits(model)

    model.train()
    other = logits(model)

    assert torch.equal(logits(model.eval()), same)
    assert not torch.equal(other, same)
    assert torch.equal(seen[0], seen[1])


def test_what_is_published_loads_by_the_file_beside_it_and_by_nothing_else(tmp_path):
    """To equal logits; transformers and PEFT find no model and no adapter of theirs in it."""
    model = adapted("llama", dropout=0.5, targets=("q_proj", "up_proj"))
    model.save_pretrained(tmp_path)
    load = runpy.run_path(str(tmp_path / FILES[2]))["load"]

    found = load(tiny_families.make("llama").eval(), tmp_path)

    assert torch.equal(logits(found), logits(model))
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)
    told = json.loads((tmp_path / FILES[0]).read_text())
    assert told["settings"] == {"experts": 3, "rank": 2, "alpha": 6, "dropout": 0.0}
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    for other in ("mistral", "qwen2"):
        with pytest.raises(ValueError, match="this model is"):
            load(tiny_families.make(other), tmp_path)


def test_a_copy_of_a_model_has_experts_of_its_own():
    """A hook that held on to the first one's would train both."""
    model = adapted("llama")
    before, other = logits(model), copy.deepcopy(model)

    for weight in weights_of(other).values():
        weight.data.zero_()

    assert torch.equal(logits(model), before)
    assert not torch.equal(logits(other), before)


def test_in_16_bits_the_shares_are_exact_and_the_stream_keeps_its_type():
    """Under autocast the softmax is in fp32."""
    model = lora_experts.adapt(tiny_families.make("llama").bfloat16(), plan(precision="bf16"))
    module = model.model.layers[0].self_attn.q_proj.lora_experts
    assert {p.dtype for p in weights_of(model).values()} == {torch.float32}

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(torch.randn(1, 4, 32, dtype=torch.bfloat16))
        whole = model(input_ids=IDS).logits

    assert (found.dtype, whole.dtype) == (torch.bfloat16, torch.bfloat16)
    pure = lora_experts.adapt(tiny_families.make("llama").bfloat16(), plan(precision="bf16_pure"))
    assert {p.dtype for p in weights_of(pure).values()} == {torch.bfloat16}


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"freeze_experts": True}, {"dropout": 0.1}], ids=str)
def test_wide_experts_take_the_memory_that_the_formula_says(settings):
    """Where their own numbers are no small part of what is kept."""
    chosen = Plan.of("lora_experts", seq_len=512, experts=8, rank=64, **settings)
    config = LLAMA | {"num_hidden_layers": 4}

    told = rehearse(config, settings_of(chosen), seq_len=512, micro_batch=1)
    found = memory.estimate(from_config(config, name="tiny", where="test"), chosen)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01)


def test_what_it_does_not_go_with_is_refused():
    """A mixture has experts already; what compares with the base needs a switch."""
    spec, chosen = METHODS["lora_experts"], plan().settings
    dense = from_config(tiny_families.make("llama").config.to_dict(), name="x", where="x")
    mixed = from_config(tiny_families.make("mixtral").config.to_dict(), name="x", where="x")

    assert spec.unsupported(dense, chosen) == ""
    assert "a mixture of experts already" in spec.unsupported(mixed, chosen)
    for task, engine, word in (
        ("dpo", "single", "compares with"),
        ("sft", "fsdp", "cannot gather"),
        ("sft", "ddp", ""),
    ):
        why = conflict(spec, chosen, OPTIMIZERS["adamw"], ENGINES[engine], TASKS[task])
        assert word in why
        assert bool(why) == bool(word)
