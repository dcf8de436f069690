"""Small parts of some layers: what trains, on the objects that PEFT and transformers get."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import tiny_families  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from advisor.cost import weights  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import methods  # noqa: E402

NUM_LAYERS = 12
"""So that 1 is the beginning of 10 and 11."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Qwen2, which has norms, biases and what IA3 scales."""
    folder = tmp_path_factory.mktemp("qwen2")
    tiny_families.save("qwen2", folder, num_hidden_layers=NUM_LAYERS)
    return folder


def trained(folder, method, layers):
    """Names of what trains, and the plan."""
    plan = Plan.of(method, layers=layers, seq_len=8, precision="fp32")
    model = methods.prepare(plan, folder, 0)
    return {n: p for n, p in model.named_parameters() if p.requires_grad}, plan


@pytest.mark.parametrize("layers", [(1,), "last 2", "all"])
@pytest.mark.parametrize("method", ["ia3", "ln_tuning", "bitfit"])
def test_only_in_the_layers_named_something_trains(folder, method, layers):
    """As much as the estimate counts; the final norm is of no layer."""
    found, plan = trained(folder, method, layers)

    inside = [name for name in found if ".layers." in name]
    numbers = {int(name.split(".layers.")[1].split(".")[0]) for name in inside}
    asked = {(1,): [1], "last 2": [10, 11], "all": range(NUM_LAYERS)}[layers]
    assert numbers == set(asked)
    assert (len(inside) == len(found)) == (layers != "all" or method != "ln_tuning")
    counted = weights.trained_params(from_folder(folder), plan)
    assert sum(p.numel() for p in found.values()) == counted
    whole, _ = trained(folder, method, "all")
    in_layers = sum(".layers." in name for name in whole)
    assert len(inside) * NUM_LAYERS == len(asked) * in_layers


@pytest.mark.parametrize("method", ["ia3", "ln_tuning", "bitfit"])
def test_a_new_head_trains_beside_small_parts_and_is_published(folder, method, tmp_path):
    """Whole, in fp32."""
    plan = Plan.of(method, layers=(1,), task="classify", seq_len=8)
    model = methods.prepare(plan, folder, 0, num_labels=3)

    found = {n: p for n, p in model.named_parameters() if p.requires_grad}
    (head,) = (name for name in found if "score" in name)
    assert found[head].shape == (3, model.config.hidden_size)
    assert found[head].dtype is torch.float32
    assert len(found) > 1
    model.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    saved = load_file(file)
    (name,) = (name for name in saved if "score" in name)
    assert torch.equal(saved[name], found[head])
