"""How far adapters have moved: as their products say, which are never made."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from data_files import write_rows  # noqa: E402
from method_cases import CASES, QUANTIZED, Case  # noqa: E402
from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.layers import LayerLog  # noqa: E402
from profiles.runs.records.layers import Moved  # noqa: E402
from runner import methods  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402
from runner.methods import products  # noqa: E402
from runner.training.layers import Norms, _summed, interval  # noqa: E402

QUICK = ("rslora", "pissa", "adalora", "vera", "lokr", "shira", "lora, first layers")
REST = ("olora", "dora", "lora-fa", "lora, last layers", "eva", "dora, pissa")
ADAPTED = pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in REST)]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tiny models."""
    place = tmp_path_factory.mktemp("norms")
    for family in ("llama", "mixtral"):
        tiny_families.save(family, place / family)
    return place


def prepared(folder, case, **values):
    """A model with its adapters, and the plan."""
    plan = case.plan(seq_len=64, **({"precision": "fp32"} | values))
    return methods.prepare(plan, folder / case.family, 0), plan


def move(model, *, by=0.1):
    """Every trained weight, by random numbers."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += by * torch.randn_like(parameter)


def deltas(model):
    """What each adapter adds, as PEFT makes it for a merge."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "get_delta_weight"):
            added = module.get_delta_weight("default").detach()
            parameter = getattr(module, "parameter_name", "")
            path = name.replace(".base_layer", "") + (f".{parameter}" if parameter else "")
            found[path] = added.to_dense() if added.is_sparse else added
    return found


def by_name(linears):
    """Norm, and relative norm, of each adapter."""
    return {
        (n, one.name): (norm, share)
        for one in linears
        for n, norm, share in zip(one.layers, one.norms, one.relative, strict=True)
    }


def place_of(path):
    """Layer and name."""
    number, _, name = path.split("layers.")[1].partition(".")
    return int(number), name


@ADAPTED
def test_norms_are_those_of_the_product(folder, name):
    """Of what was added since the start; relative to the weight that the untouched base has."""
    model, plan = prepared(folder, CASES[name])
    before = deltas(model)
    start = by_name(Norms().look(model, plan))
    move(model)
    after = deltas(model)

    found = by_name(Norms().look(model, plan))

    assert len(found) == len(after)
    assert {norm for norm, _ in start.values()} == {0.0}
    family = folder / CASES[name].family
    weights = AutoModelForCausalLM.from_pretrained(family).state_dict()
    for path, added in after.items():
        norm, relative = found[place_of(path)]
        wanted = float((added - before[path]).norm())
        assert norm == pytest.approx(wanted, rel=1e-3)
        base = float(weights[f"{path.removeprefix('base_model.model.')}.weight"].norm())
        assert relative == pytest.approx(wanted / base, rel=1e-3)


def test_norms_of_adapters_on_experts_are_over_all_of_them(folder):
    """PEFT keeps the factors of all experts in one pair of matrices."""
    targets = 'rank = 4\nalpha = 8\ntargets = "all"'
    model, plan = prepared(folder, Case("lora", targets, family="mixtral"))
    move(model)

    found = by_name(Norms().look(model, plan))

    wanted = deltas(model)
    experts = model.get_base_model().model.layers[1].mlp.experts
    for name in ("gate_up_proj", "down_proj"):
        (path,) = (path for path in wanted if path.endswith(f"layers.1.mlp.experts.{name}"))
        norm, relative = found[1, f"mlp.experts.{name}"]
        assert norm == pytest.approx(float(wanted[path].norm()), rel=1e-3)
        base = dict(experts.named_parameters())
        (weight,) = (w for n, w in base.items() if n.endswith(name) and w.dim() == 3)
        assert relative == pytest.approx(norm / float(weight.norm()), rel=1e-3)


@pytest.mark.parametrize("name", ["qlora", "qlora, 8 bit"])
def test_of_quantized_weights_the_norm_is_that_of_4_bits(folder, name):
    """As they are computed with; of 8 bits none is told, and nothing of the weights changes."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model, plan = prepared(folder, QUANTIZED[name], precision="bf16")
    move(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}

    linears = Norms().look(model, plan)

    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    if name == "qlora, 8 bit":
        assert {one.relative for one in linears} == {()}
        assert all(norm > 0 for one in linears for norm in one.norms)
        return
    weight = model.get_base_model().model.layers[1].mlp.up_proj.get_base_layer().weight
    computed = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    norm, relative = by_name(linears)[1, "mlp.up_proj"]
    assert norm / relative == pytest.approx(float(computed.float().norm()), rel=1e-3)


def test_bits_that_are_divided_among_ranks_are_no_weights(folder):
    """FSDP holds 4-bit weights as numbers of 16 bits, whose norm says nothing."""
    pytest.importorskip("bitsandbytes")
    model, _ = prepared(folder, QUANTIZED["qlora"], precision="bf16")
    linear = model.get_base_model().model.layers[0].mlp.up_proj.get_base_layer()
    linear.weight = torch.nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16), False)

    assert products.weight_of(linear) is None
    assert products.norm_of(None) is None


def test_a_little_that_was_learnt_of_much_that_there_was_is_not_lost(folder):
    """Of PiSSA, whose start is a large part of the weight: within 1 % of a millionth of it."""
    model, plan = prepared(folder, CASES["pissa"])
    before = {n: d.double() for n, d in deltas(model).items()}
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "lora_B"):
            module.lora_B["default"].weight.data[0, 0] += 1e-4
    moved = methods.updates(model, plan)

    for one, norm in zip(moved, products.norms(moved), strict=True):
        assert 0 < norm < 1e-3 * float(before[one.name].norm())
        row = one.right[: len(one.right) // 2][0]
        assert norm == pytest.approx(1e-4 * one.scale * float(row.norm()), rel=0.02)


def test_methods_without_small_products_tell_nothing(folder):
    """Full fine-tuning, LoHa, prompts."""
    for name in ("full", "loha", "prompt tuning"):
        assert Norms().look(*prepared(folder, CASES[name])) == []


def test_numbers_that_are_none_are_told_as_none(folder):
    """And the others of the same linear stay."""
    model, plan = prepared(folder, CASES["rslora"])
    move(model)
    model.get_base_model().model.layers[0].mlp.up_proj.lora_B["default"].weight.data[0] = torch.nan

    found = by_name(Norms().look(model, plan))

    assert found[0, "mlp.up_proj"] == (None, None)
    assert found[1, "mlp.up_proj"][0] > 0


@pytest.mark.parametrize(
    ("every", "steps", "wanted"), [(None, 60, 10), (None, 5001, 51), (3, 5001, 3), (500, 20, 500)]
)
def test_records_are_a_hundred_in_a_run(every, steps, wanted):
    """Unless the recipe says otherwise; of a short one every ten steps."""
    assert interval(every, steps) == wanted


def test_what_ranks_have_seen_is_added_up():
    """A layer without a token on one of them is the other's."""
    from profiles.layer_facts import ExpertUse

    first = ExpertUse(layer=1, tokens=2, counts=(4, 0), entropy=0.1)
    second = ExpertUse(layer=1, tokens=6, counts=(2, 10), entropy=0.5)
    alone = ExpertUse(layer=0, tokens=1, counts=(1, 1), entropy=0.2)

    found = _summed([[first], [alone, second]])

    assert found[0] == alone
    assert (found[1].tokens, found[1].counts) == (8, (6, 10))
    assert found[1].entropy == pytest.approx(0.4)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """LoRA for five steps, told every two."""
    home = tmp_path_factory.mktemp("home")
    rows = write_rows(home, instruction_rows(40, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_HOME", str(home / "home"))
        more = "stats_every = 2\n"
        made = real_runs.new_run(folder / "llama", rows, steps=5, save_every=100, more=more)
        real_runs.attempt(made)
        yield made


def test_a_run_tells_the_norms_of_what_it_publishes(run, folder):
    """Layer by layer, at the last step those of the adapter that is published."""
    moved = [r for r in read_all(run.layers) if isinstance(r, Moved)]
    assert sorted({r.step for r in moved}) == [2, 4, 5]
    newest = LayerLog().add(moved).norms
    assert newest.step == 5
    assert {one.layers for one in newest.linears} == {(0, 1)}
    assert newest.num_adapters == 14

    tensors = real_runs.weights(run)
    for one in newest.linears:
        for layer, norm in zip(one.layers, one.norms, strict=True):
            (low,) = (t for n, t in tensors.items() if f"{layer}.{one.name}.lora_A" in n)
            (high,) = (t for n, t in tensors.items() if f"{layer}.{one.name}.lora_B" in n)
            assert norm == pytest.approx(2 * float((high @ low).norm()), rel=1e-3)
