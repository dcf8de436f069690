"""The experts of a base of 4 bits have 4 bits too: how they are loaded, held, trained and told."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

import tiny_families  # noqa: E402
from bitsandbytes.functional import dequantize_4bit, quantize_4bit  # noqa: E402
from bitsandbytes.nn import Linear4bit  # noqa: E402
from bitsandbytes.nn.parametrize import Bnb4bitParametrization  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from advisor.cost import memory, weights  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models.dimensions import from_config  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import methods  # noqa: E402
from runner.methods import four_bit_experts  # noqa: E402
from runner.methods.expert_targets import experts_of  # noqa: E402
from runner.rehearsal_main import settings_of  # noqa: E402
from runner.rehearse import rehearse  # noqa: E402
from runner.training import finite  # noqa: E402

QUICK = ("mixtral",)
OTHERS = (
    *("qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "deepseek_v2", "deepseek_v3", "gpt_oss"),
    *("phimoe", "ernie4_5_moe", "minimax_m2", "glm4_moe", "llama4_text"),
)
"""Of some the files have each expert on its own, of some the stack that the model has."""
EVERY = [*QUICK, *(pytest.param(family, marks=pytest.mark.long) for family in OTHERS)]
IDS = torch.arange(3, 25)[None]
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "moe_intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "vocab_size": 4000,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}


def plan_of(**changes):
    """QLoRA on attention."""
    return Plan.of("qlora", **{"rank": 4, "targets": "attention", "seq_len": 64} | changes)


def held(model):
    """Bytes of all weights of the base, and of what turns packed ones back."""
    count = 0
    for name, weight in model.named_parameters():
        if "lora_" in name:
            continue
        count += weight.nbytes
        if (state := getattr(weight, "quant_state", None)) is not None:
            count += state.absmax.nbytes + state.state2.absmax.nbytes
    return count


@pytest.mark.parametrize("family", EVERY)
def test_experts_are_quantized_as_they_are_read(family, tmp_path, monkeypatch):
    """None is there in 16 bits when the next is packed; they are what bitsandbytes makes of all."""
    folder = tiny_families.save(family, tmp_path)
    whole = {n: p for n, p in tiny_families.make(family).named_parameters() if p.ndim == 3}
    plan, sixteen = plan_of(), []

    def packed(value, **options):
        there = (p for m in models for _, module, _ in experts_of(m) for p in module.parameters())
        sixteen.append(sum(p.ndim == 3 and p.device.type != "meta" for p in there))
        return quantize_4bit(value, **options)

    models, needs = [], four_bit_experts.FourBitExperts.param_needs_quantization

    def asked(quantizer, model, name, **options):
        models[:] = [model]
        return needs(quantizer, model, name, **options)

    monkeypatch.setattr(four_bit_experts, "quantize_4bit", packed)
    monkeypatch.setattr(four_bit_experts.FourBitExperts, "param_needs_quantization", asked)
    model = methods.prepare(plan, folder, 0).get_base_model()

    assert sixteen == [0] * len(whole)
    for name, module, names in experts_of(model):
        for one in names:
            wanted, state = quantize_4bit(
                whole[f"{name}.{one}"].data.bfloat16(), compress_statistics=True, quant_type="nf4"
            )
            assert torch.equal(getattr(module, one), dequantize_4bit(wanted, state))
    assert held(model) == pytest.approx(weights.base_bytes(from_folder(folder), plan), rel=0.01)


def test_other_bases_keep_their_experts_in_16_bits(tmp_path):
    """Of 8 bits, and where weights are divided; in any order."""
    folder = tiny_families.save("mixtral", tmp_path)
    for changes, bits in (
        ({}, 4),
        ({"bits": 8}, 16),
        ({}, 4),
        ({"targets": "all"}, 4),
        ({"num_gpus": 2, "strategy": "fsdp"}, 16),
        ({"num_gpus": 2, "strategy": "ddp"}, 4),
    ):
        plan = plan_of(**changes)
        model = methods.prepare(plan, folder, 0)
        packed = any("parametrizations" in name for name, _ in model.named_parameters())

        assert packed == (bits == 4) == plan.quantizes_experts


def test_gradients_reach_attention_through_packed_experts_with_checkpoints_and_without(tmp_path):
    """The same ones, as torch's parametrization is cached for a pass and let go after it."""
    folder, found = tiny_families.save("mixtral", tmp_path), []
    for checkpointing in (False, True):
        model = methods.prepare(plan_of(precision="fp32"), folder, 0).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name:
                    parameter.fill_(0.01)
        model(input_ids=IDS, labels=IDS).loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert not torch.nn.utils.parametrize._cache

    kept, again = found
    assert len(kept) == 16
    assert all(kept[name].abs().sum() > 0 for name in kept)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_an_expert_that_is_not_finite_is_told_by_its_name(tmp_path):
    """Packed, its scales say so."""
    folder = tiny_families.save("mixtral", tmp_path)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if ".experts.2.w1." in name)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})

    with pytest.raises(UserError, match="not finite") as told:
        finite.refuse_base(methods.prepare(plan_of(), folder, 0), folder)

    assert told.value.code is ExitCode.BAD_DATA
    assert "experts.gate_up_proj holds NaN" in told.value.why


GRID = [
    pytest.param(family, changes, marks=[pytest.mark.long] * (n > 0))
    for n, (family, changes) in enumerate(
        (family, changes)
        for family in ("mixtral", "qwen3_moe", "qwen2_moe", "deepseek_v3", "granitemoe")
        for changes in (
            {"checkpointing": True, "seq_len": 32},
            {"checkpointing": True, "seq_len": 512},
            {"seq_len": 512},
            {"checkpointing": True, "precision": "bf16_pure", "micro_batch": 2},
            {"checkpointing": True, "precision": "fp32", "seq_len": 32},
            {"checkpointing": True, "targets": "all", "seq_len": 32, "rank": 16},
            {"targets": "all", "seq_len": 512},
        )
    )
]


@pytest.mark.parametrize(("family", "changes"), GRID)
def test_the_estimate_is_the_rehearsal_s(family, changes):
    """A layer is made whole in 16 bits; without checkpoints all layers are, and kept."""
    config = tiny_families.FAMILIES[family] | SIZES | {"model_type": family}
    config |= {"num_key_value_heads": 8} if "kv_lora_rank" in config else {}
    plan = plan_of(**changes)

    told = rehearse(config, settings_of(plan), seq_len=plan.seq_len, micro_batch=plan.micro_batch)
    found = memory.estimate(from_config(config, name="tiny", where="test"), plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01), (
        f"{told.winner}, against {found.winner} at {found.peak.place}"
    )
    if family == "mixtral" and changes == {"checkpointing": True, "seq_len": 32}:
        assert found.peak.place == "recomputed restore"


def as_16_bits(packed, folder, plan):
    """PEFT's own adapters on the weights that the packed ones stand for, in fp32."""
    names = {"targets": plan.settings.targets, "router": plan.settings.router}
    usual = Plan.of("lora", rank=4, seq_len=64, precision="fp32", **names)
    model = methods.prepare(usual, folder, 0)
    base, ours = packed.get_base_model(), model.get_base_model()
    whole = {}
    for name, module in base.named_modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            whole[f"{name}.weight"] = dequantize_4bit(module.weight, state)
        elif isinstance(module, Bnb4bitParametrization):
            path, _, _ = name.replace("parametrizations.", "").rpartition(".")
            whole[path] = module(base.get_submodule(name.rpartition(".")[0]).original)
    trained = {n: p for n, p in packed.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            if name in whole:
                weight.copy_(whole.pop(name))
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(trained.pop(name))
    assert not whole
    assert not trained
    return model


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", EVERY)
def test_adapters_on_packed_experts_are_peft_s(family, checkpointing, tmp_path):
    """The same predictions and gradients as on weights of 16 bits; and the base without them."""
    folder = tiny_families.save(family, tmp_path)
    plan = plan_of(precision="fp32", targets="all", router="adapted")
    packed = methods.prepare(plan, folder, 0)
    with torch.no_grad():
        for parameter in packed.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.float().normal_(std=0.05)
    models = packed.train(), as_16_bits(packed, folder, plan).train()
    found, gradients, plain = [], [], []
    for model in models:
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        torch.manual_seed(0)  # of a router that draws in training
        result = model(input_ids=IDS, labels=IDS)
        result.loss.backward()
        found.append(result.logits.detach())
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        torch.manual_seed(0)
        with torch.no_grad(), model.disable_adapter():
            plain.append(model(input_ids=IDS).logits)
    ours, theirs = gradients

    assert (found[0] - found[1]).abs().max() < 1e-5
    assert (plain[0] - plain[1]).abs().max() < 1e-5
    assert (plain[0] - found[0]).abs().max() > 1e-2
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).abs().max() <= 1e-4 * theirs[name].abs().max() + 1e-7
    assert not torch.nn.utils.parametrize._cache
