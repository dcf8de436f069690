"""Rotary positions scaled for longer texts: on the model that trains, and in what is published."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from method_cases import CASES  # noqa: E402
from peft import PeftModel  # noqa: E402
from small_model import CONFIG, recipe_text, small_model  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.positions import Rope  # noqa: E402
from profiles.models.families import FAMILIES  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import methods  # noqa: E402
from runner.checks import positions, preflight  # noqa: E402
from tui.main import run as advisor_here  # noqa: E402

OWN = {"rope_type": "default", "rope_theta": 10_000.0}
WANTED = {
    "linear": ({"rope_type": "linear", "factor": 4.0}, 128),
    "dynamic": ({"rope_type": "dynamic", "factor": 4.0}, 128),
    "yarn": ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
    "llama3": (
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
        512,
    ),
}
"""rope_parameters beside theta, and max_position_embeddings, of a model of 128 positions."""
SHORT, LONG = torch.arange(3, 67)[None], torch.arange(3, 403)[None] % 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama of 128 positions."""
    folder = tmp_path_factory.mktemp("llama") / "model"
    tiny_families.save("llama", folder)
    return folder


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def prepared(folder, rope, method="full", **values):
    plan = CASES[method].plan(seq_len=16, precision="fp32", **values)
    return methods.prepare(plan, folder, 0, rope=rope)


@pytest.mark.parametrize("kind", WANTED)
def test_the_model_computes_with_what_the_recipe_says(folder, kind):
    """As one whose config was written by hand; its theta is the model's own."""
    wanted, most = WANTED[kind]
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = OWN | wanted
    config.max_position_embeddings = most
    by_hand = LlamaForCausalLM.from_pretrained(folder, config=config)

    model = prepared(folder, Rope(kind, 4.0, None))

    assert model.config.rope_parameters == OWN | wanted
    assert model.config.max_position_embeddings == most
    assert model.model.rotary_emb.rope_type == kind
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(model, LONG), logits(by_hand, LONG))
    assert not torch.allclose(logits(model, LONG), logits(plain, LONG), atol=1e-4)
    same_when_short = torch.equal(logits(model, SHORT), logits(plain, SHORT))
    assert same_when_short is (kind == "dynamic")


def test_another_base_of_the_rotations_alone(folder):
    """All else is the model's own."""
    model = prepared(folder, Rope(None, None, 1e6))

    assert model.config.rope_parameters == OWN | {"rope_theta": 1e6}
    assert model.config.max_position_embeddings == 128
    frequencies = model.model.rotary_emb.inv_freq
    assert torch.allclose(frequencies, 1e6 ** -(torch.arange(0, 8, 2) / 8))


def test_a_part_of_each_head_stays_without_rotation(tmp_path):
    """Where the family has it so."""
    tiny_families.save("glm4", tmp_path / "m")
    own = AutoConfig.from_pretrained(tmp_path / "m").rope_parameters

    model = prepared(tmp_path / "m", Rope("linear", 2.0, None))

    assert model.config.rope_parameters == own | {"rope_type": "linear", "factor": 2.0}
    assert "partial_rotary_factor" in own


def test_a_new_head_has_its_labels_too(folder):
    """They go into the same config."""
    plan = CASES["lora"].plan(seq_len=16, task="classify", precision="fp32")
    model = methods.prepare(plan, folder, 0, rope=Rope("yarn", 2.0, None), num_labels=3)

    assert (model.config.num_labels, model.config.rope_parameters["rope_type"]) == (3, "yarn")


@pytest.mark.parametrize("method", ["lora", "houlsby"])
def test_beside_an_adapter_lies_the_config_that_its_base_needs(folder, tmp_path, method):
    """With it plain libraries predict what was trained, and without it something else."""
    rope = Rope("yarn", 4.0, None)
    model = prepared(folder, rope, method)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "out")
    methods.publish(model, CASES[method].plan(seq_len=16), tmp_path / "out")

    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.rope_parameters == OWN | WANTED["yarn"][0]
    if method == "lora":
        for told, is_same in ({"config": config}, True), ({}, False):
            base = AutoModelForCausalLM.from_pretrained(folder, **told)
            again = PeftModel.from_pretrained(base, tmp_path / "out")
            found = torch.allclose(logits(again, LONG), logits(model, LONG), atol=1e-5)
            assert found is is_same
    plain = prepared(folder, None, method)
    plain.save_pretrained(tmp_path / "plain")
    methods.publish(plain, CASES[method].plan(seq_len=16), tmp_path / "plain")
    assert not (tmp_path / "plain" / "config.json").exists()


def test_families_are_known_by_their_positions():
    """Those that the sets do not name have what is scaled, as transformers has it."""
    without, by_layer = set(), set()
    for name in FAMILIES:
        try:
            config = AutoConfig.for_model(name).get_text_config()
        except ValueError:  # code of its own, which is never run
            continue
        own = getattr(config, "rope_parameters", None)
        without |= set() if own else {name}
        by_layer |= {name} if own and "rope_type" not in own else set()

    assert (without, by_layer) == (set(positions.WITHOUT), set(positions.BY_LAYER))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (
            {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}
            | {"max_position_embeddings": 2048, "n_positions": 2048},
            "gpt2",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type linear, factor 2.0"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "rope_type llama3, factor 8"),
    ],
)
def test_positions_that_cannot_be_scaled_are_refused(tmp_path, capsys, config, what):
    """With the keys that are to be left out."""
    small_model(tmp_path / "model", config=CONFIG | config)
    file, text = tmp_path / "r.toml", recipe_text()
    file.write_text(text.replace("[data]", 'rope_type = "yarn"\nrope_factor = 2.0\n[data]'))

    assert advisor_here(["recipe", "check", str(file)]) == 78
    assert what in " ".join(capsys.readouterr().err.split())
    file.write_text(text)
    assert advisor_here(["recipe", "check", str(file)]) == 0


@pytest.mark.parametrize("key", ['rope_type = "yarn"', "rope_factor = 2.0"])
def test_a_kind_and_a_factor_go_together(tmp_path, capsys, key):
    """One alone says nothing."""
    file = tmp_path / "r.toml"
    file.write_text(recipe_text().replace("[data]", f"{key}\n[data]"))

    assert advisor_here(["recipe", "check", str(file)]) == 78
    assert "it takes both" in " ".join(capsys.readouterr().err.split())


def test_alibi_is_found_out_when_the_model_loads(tmp_path):
    """Of a family that has both; no step is made."""
    tiny_families.save("falcon", tmp_path / "m", alibi=True)

    with pytest.raises(methods.UserError, match="no rotary positions"):
        prepared(tmp_path / "m", Rope("yarn", 2.0, None))


def ready(folder, data, **changes):
    """What the check before a run of LoRA finds."""
    text = recipe_text(model=str(folder), train=str(data)) + "[train]\nmax_steps = 2\n"
    told = {"data.max_length": "400", "data.chat_template": "plain"} | changes
    return preflight.check(recipes.with_changes(text, told, where="r"), folder)


def test_rows_longer_than_the_model_reads_are_told_with_both_ways_out(folder, tmp_path):
    """Each of which works; what loads the adapter is told then."""
    data = tmp_path / "rows.jsonl"
    rows = [{"instruction": "count", "output": " one two" * 90} for _ in range(8)]
    data.write_text("\n".join(map(json.dumps, rows)))

    (told,) = [w for w in ready(folder, data).warnings if "what lies beyond" in w]
    assert "Lower data.max_length to 128, or set model.rope_type" in told
    assert not any(
        "lies beyond" in w for w in ready(folder, data, **{"data.max_length": "128"}).warnings
    )
    factor = told.split("model.rope_factor = ")[1]
    scaled = ready(folder, data, **{"model.rope_type": "yarn", "model.rope_factor": factor})
    assert not any("lies beyond" in warning for warning in scaled.warnings)
    assert any("load the base with the config.json" in warning for warning in scaled.warnings)
    assert scaled.model.max_positions == 128 * float(factor)


@pytest.mark.long
@pytest.mark.slow
def test_a_run_publishes_the_positions_that_it_was_trained_with(tiny_model, orders):
    """A whole model loads so by itself."""
    run = real_runs.new_run(tiny_model, orders, method="full", steps=1, accumulation=1)
    text = run.recipe.read_text()
    run.recipe.write_text(
        text.replace("[data]", 'rope_type = "linear"\nrope_factor = 2.0\nrope_theta = 5e4\n[data]')
    )
    real_runs.attempt(run)

    config = AutoConfig.from_pretrained(run.model)
    assert config.rope_parameters == {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4}
    assert positions._own(from_folder(run.model)) == "rope_type linear, factor 2.0"


@pytest.mark.parametrize(
    ("asked", "is_sound"), [({}, False), (("yarn", 4.0), True), (("yarn", 2.0), False)]
)
def test_an_adapter_goes_on_with_the_positions_that_it_was_trained_with(tmp_path, asked, is_sound):
    """Other ones are refused, with those that it has."""
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    (tmp_path / "config.json").write_text(json.dumps({"rope_parameters": scaling}))
    text = recipe_text().replace("[data]", 'adapter = "a"\n[data]')
    if asked:
        text = text.replace("[data]", f'rope_type = "{asked[0]}"\nrope_factor = {asked[1]}\n[data]')
    recipe = recipes.parse(text, where="r")

    base = from_folder(small_model(tmp_path / "m"))
    if is_sound:
        positions.check_adapter(recipe, base, tmp_path)
    else:
        with pytest.raises(methods.UserError, match="trained with other positions") as told:
            positions.check_adapter(recipe, base, tmp_path)
        assert "rope_type yarn, factor 4.0" in told.value.why


@pytest.mark.parametrize(("asked", "is_sound"), [(None, False), (5e4, False), (1e6, True)])
def test_an_adapter_goes_on_with_the_base_of_rotations_that_it_was_trained_with(
    tmp_path, asked, is_sound
):
    """Which alone adds no positions."""
    base = from_folder(small_model(tmp_path / "m", config=CONFIG | {"rope_theta": 1e4}))
    (tmp_path / "config.json").write_text(
        json.dumps({"rope_parameters": OWN | {"rope_theta": 1e6}})
    )
    text = recipe_text().replace("[data]", 'adapter = "a"\n[data]')
    if asked:
        text = text.replace("[data]", f"rope_theta = {asked}\n[data]")
    recipe = recipes.parse(text, where="r")

    if is_sound:
        positions.check_adapter(recipe, base, tmp_path)
    else:
        with pytest.raises(methods.UserError, match="trained with other positions") as told:
            positions.check_adapter(recipe, base, tmp_path)
        assert told.value.why.endswith("has rope_theta 1000000.0")


def test_an_adapter_with_the_config_of_a_base_that_is_scaled_goes_on(tmp_path):
    """As of Llama 3.1: it was trained with those."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8}
    base = from_folder(small_model(tmp_path / "m", config=CONFIG | {"rope_scaling": scaling}))
    (tmp_path / "config.json").write_text((tmp_path / "m" / "config.json").read_text())
    text = recipe_text().replace("[data]", 'adapter = "a"\n[data]')

    positions.check_adapter(recipes.parse(text, where="r"), base, tmp_path)
