"""Weights come back from a checkpoint as they were, all of them, or not at all."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import mixtures  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from runner.demo_base import make_model  # noqa: E402
from runner.engines import loading  # noqa: E402


def adapted(dtype=torch.float32):
    """A tiny Llama with an adapter that is not zero."""
    torch.manual_seed(0)
    model = get_peft_model(make_model(), LoraConfig(r=4, target_modules="all-linear"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter).to(dtype)
    return model


def tensors_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(model, wanted):
    found = tensors_of(model)
    return all(t.dtype == found[n].dtype and torch.equal(t, found[n]) for n, t in wanted.items())


def wiped(model):
    """The model with other numbers in its trained weights."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(1.0)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_comes_back_in_the_type_it_is_trained_in(tmp_path, dtype):
    """PEFT's own loading makes 16-bit adapters fp32."""
    model = adapted(dtype)
    wanted = tensors_of(model)
    model.save_pretrained(tmp_path)

    loading.load(wiped(model), tmp_path)

    assert same(model, wanted)


@pytest.mark.parametrize("family", sorted(mixtures.FAMILIES))
@pytest.mark.parametrize("shard", ["50GB", "100KB"])
def test_a_mixture_comes_back_with_its_experts_and_its_router(tmp_path, family, shard):
    """From one file and from several."""
    model = mixtures.make(family)
    wanted = tensors_of(model)
    with loading.own_names(model):
        model.save_pretrained(tmp_path, max_shard_size=shard)

    loading.load(wiped(model), tmp_path)

    assert same(model, wanted)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert same(again, wanted)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_a_published_mixture_has_each_expert_on_its_own(tmp_path, family):
    """The public format, after a checkpoint too."""
    model = mixtures.make(family)
    wanted = tensors_of(model)
    with loading.own_names(model):
        model.save_pretrained(tmp_path / "checkpoint")

    model.save_pretrained(tmp_path / "published")

    assert any(
        ".experts.3." in name for name in load_file(tmp_path / "published/model.safetensors")
    )
    assert same(AutoModelForCausalLM.from_pretrained(tmp_path / "published"), wanted)


def test_tied_weights_need_to_be_there_once(tmp_path):
    """The head's weights are the embedding's."""
    model = make_model()
    wanted = tensors_of(model)
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")

    loading.load(wiped(model), tmp_path)

    assert same(model, wanted)


@pytest.mark.parametrize("make", [make_model, adapted])
@pytest.mark.parametrize("change", ["lacks", "has, unknown to the model,"])
def test_a_checkpoint_with_other_tensors_than_the_model_trains_is_refused(tmp_path, make, change):
    """The libraries log it and train on from wherever the weights are."""
    model = make()
    model.save_pretrained(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    tensors = load_file(path)
    first = min(tensors)
    if change == "lacks":
        del tensors[first]
    else:
        tensors[first.replace("layers.0", "layers.7").replace("embed", "imbed")] = (
            tensors[first] * 1
        )
    save_file(tensors, path, metadata={"format": "pt"})

    with pytest.raises(UserError, match="does not hold the weights that are trained") as caught:
        loading.load(model, tmp_path)

    assert caught.value.code is ExitCode.NO_CHECKPOINT
    assert f"it {change} " in caught.value.why


def test_a_mixture_in_the_public_format_is_refused_as_a_checkpoint(tmp_path):
    """Its experts would stay as they were at the start."""
    model = mixtures.make("mixtral")
    model.save_pretrained(tmp_path)

    with pytest.raises(UserError, match="does not hold the weights"):
        loading.load(model, tmp_path)


def test_weights_that_a_library_forgot_to_load_are_named(tmp_path):
    """Whoever loads them: what was not given a value is missing."""
    model = make_model()
    wanted = {name: t for name, t in tensors_of(model).items() if "norm" not in name}

    with pytest.raises(UserError) as caught, loading.complete(model, tmp_path):
        model.load_state_dict(wanted, strict=False)

    assert "it lacks model.layers.0.input_layernorm.weight" in caught.value.why
    assert "2 more" in caught.value.why
