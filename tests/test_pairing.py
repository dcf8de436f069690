"""What does not go together is refused before anything is loaded, with a change that works."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import mixtures

from advisor import recipe as recipes
from advisor.plan import Plan
from profiles.errors import ExitCode, UserError
from profiles.machines import machine
from profiles.models import model
from runner.checks import pairing, preflight
from runner.methods import low_rank


@pytest.fixture
def recipe_of(tmp_path, orders):
    """A recipe's path, for a mixture's folder and the settings of its method."""

    def write(family, settings, more=""):
        folder = mixtures.save(family, tmp_path / family)
        path = tmp_path / "r.toml"
        path.write_text(
            f'schema = 1\nname = "r"\n[model]\nid = "{folder}"\n[data]\ntrain = "{orders}"\n'
            f"[method]\n{settings}\n{more}"
        )
        return path

    return write


def refused(path):
    """What preflight says of a recipe; None if it may start."""
    try:
        preflight.check(recipes.parse(path.read_text(), where="r"), path.parent)
    except UserError as error:
        return error
    return None


@pytest.mark.parametrize("family", sorted(mixtures.FAMILIES))
def test_dropout_on_experts_is_refused_as_peft_refuses_it(recipe_of, family):
    """In every family."""
    path = recipe_of(family, 'name = "lora"\nrank = 4\ndropout = 0.1')
    plan = Plan.of("lora", rank=4, dropout=0.1, seq_len=8)
    with pytest.raises(ValueError, match="lora_dropout"):
        low_rank.adapt(mixtures.make(family), plan)

    found = refused(path)

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, "method.dropout")


@pytest.mark.parametrize("name", ["lora", "qlora"])
@pytest.mark.parametrize("change", ["dropout = 0.0", 'dropout = 0.1\ntargets = "attention"'])
def test_both_changes_that_are_offered_may_start(recipe_of, name, change):
    """Dropout goes, or the experts' adapters."""
    assert refused(recipe_of("mixtral", f'name = "{name}"\ndropout = 0.1'))
    assert refused(recipe_of("mixtral", f'name = "{name}"\n{change}')) is None


@pytest.mark.parametrize("method", ["bitfit", "ia3"])
def test_a_method_that_finds_nothing_to_train_is_refused(recipe_of, method):
    """A Mixtral has neither biases nor a plain MLP; its norms can be trained."""
    found = refused(recipe_of("mixtral", f'name = "{method}"'))

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, "method.name")
    assert "--set method.name=lora" in found.do
    assert refused(recipe_of("mixtral", 'name = "ln_tuning"')) is None


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_adapters_on_experts_cannot_start_from_weights(recipe_of, init):
    """Of which they have none of their own; attention's can."""
    found = refused(recipe_of("mixtral", f'name = "lora"\ninit = "{init}"'))

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, "method.init")
    assert "--set method.init=kaiming" in found.do
    for settings in ('init = "gaussian"', f'init = "{init}"\ntargets = "attention"'):
        assert refused(recipe_of("mixtral", f'name = "lora"\n{settings}')) is None


def test_magnitudes_on_experts_are_refused(recipe_of):
    """PEFT adds to their weights, and has no norm of them; attention's linears have one."""
    found = refused(recipe_of("mixtral", 'name = "lora"\ndora = true'))

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, "method.dora")
    for settings in ("dora = false", 'dora = true\ntargets = "attention"'):
        assert refused(recipe_of("mixtral", f'name = "lora"\n{settings}')) is None


@pytest.mark.parametrize(
    ("key", "given", "beside_attention"),
    [
        ("exclude", '["gate_proj"]', '["k_proj"]'),
        ("layers", "[0]", "[0]"),
        ("ranks", "{ up_proj = 4 }", "{ k_proj = 4 }"),
    ],
)
def test_experts_are_adapted_alike_in_all_layers(recipe_of, key, given, beside_attention):
    """PEFT passes over layers and names where it adds to the weights of experts."""
    found = refused(recipe_of("mixtral", f'name = "lora"\n{key} = {given}'))

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, f"method.{key}")
    settings = f'{key} = {beside_attention}\ntargets = "attention"'
    assert refused(recipe_of("mixtral", f'name = "lora"\n{settings}')) is None


def test_a_recipe_is_checked_against_its_model_if_that_is_there(recipe_of, advisor):
    """`recipe check` says the same, with the same code; without the model it cannot know."""
    path = recipe_of("mixtral", 'name = "lora"\ndropout = 0.1')

    there = advisor("recipe", "check", path)
    gone = advisor("recipe", "check", path, "--set", "model.id=nowhere")
    mended = advisor("recipe", "check", path, "--set", "method.dropout=0")

    assert there.returncode == ExitCode.BAD_RECIPE
    assert "adapters on the experts of a mixture cannot have dropout" in there.stderr
    assert (gone.returncode, mended.returncode) == (0, 0)


def test_sharding_without_gpus_is_refused_and_ddp_is_not(recipe_of):
    """It would be DDP without a word."""
    hardware = '[hardware]\nstrategy = "{}"\ngpus = 2\n'

    found = refused(recipe_of("mixtral", 'name = "lora"', hardware.format("fsdp")))

    assert found.code is ExitCode.BAD_RECIPE
    assert "--set hardware.strategy=ddp" in found.do
    assert refused(recipe_of("mixtral", 'name = "lora"', hardware.format("ddp"))) is None


@pytest.mark.parametrize("method", ["prefix_tuning", "p_tuning_v2"])
def test_a_prefix_is_refused_before_a_router_whose_mask_it_would_lengthen(recipe_of, method):
    """The loss of the router failed at the first step; LoRA has no mask of its own."""
    told = refused(recipe_of("mixtral", f'name = "{method}"\nvirtual_tokens = 4'))

    assert "takes no prefix" in told.what
    assert refused(recipe_of("mixtral", 'name = "lora"')) is None


def test_fp16_is_refused_where_it_would_have_neither_autocast_nor_a_scaler(recipe_of):
    """A CPU; there bf16 is autocast."""
    told = refused(recipe_of("mixtral", 'name = "lora"', '[train]\nprecision = "fp16"\n'))

    assert "--set train.precision=bf16" in told.do
    assert refused(recipe_of("mixtral", 'name = "lora"', '[train]\nprecision = "bf16"\n')) is None


def test_sharding_is_accepted_where_there_are_gpus(recipe_of):
    """Whether they are enough is another check's business."""
    path = recipe_of("mixtral", 'name = "lora"', '[hardware]\nstrategy = "fsdp"\ngpus = 2\n')
    recipe = recipes.parse(path.read_text(), where="r")
    here = machine.probe(path.parent)

    with pytest.raises(UserError, match="FSDP needs GPUs"):
        pairing.check_engine(recipe, replace(here, gpus=()))
    pairing.check_engine(recipe, replace(here, gpus=(object(), object())))


def test_the_facts_of_each_tiny_mixture_are_known(tmp_path):
    """Or nothing above would be tested."""
    for family in mixtures.FAMILIES:
        found = model.from_folder(mixtures.save(family, tmp_path / family))
        kind = json.loads((tmp_path / family / "config.json").read_text())["model_type"]
        assert found.experts is not None
        assert found.model_type == kind
