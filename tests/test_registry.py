"""The registry: what holds for every entry, and what an unknown name gets, wherever it comes in."""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib import import_module
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from known import model

from advisor import recipe
from advisor.cost import memory
from advisor.framework import OURS
from advisor.plan import Plan
from advisor.recipe_sections import method_section
from advisor.registry import lookup
from advisor.registry.conflicts import conflict
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, PRESETS, TASKS
from advisor.registry.results import EXPORTS, METRICS
from advisor.registry.spec import MethodSpec, keys_of
from profiles.data import formats
from profiles.errors import ExitCode, UserError
from profiles.runs import parents

REGISTRIES = (METHODS, PRESETS, OPTIMIZERS, ENGINES, TASKS, METRICS, EXPORTS)
NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd", "Pc"]), min_size=1)
SOUND = """\
schema = 1
name = "a"
task = "sft"
[model]
id = "m"
[data]
train = "d.jsonl"
format = "text"
[method]
name = "lora"
[train]
optimizer = "adamw"
[hardware]
strategy = "single"
"""
KEYS = {
    "task": ("sft", TASKS),
    "method.name": ("lora", METHODS),
    "train.optimizer": ("adamw", OPTIMIZERS),
    "hardware.strategy": ("single", ENGINES),
}


def refusal(call, *arguments, **named):
    """The error that this call raises."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    return caught.value


def values_of(spec: MethodSpec):
    """For each key of a method, a value that is not its default."""
    found = {}
    for name, (field, key) in keys_of(spec.settings).items():
        others = [choice for choice in key.choices if choice != field.default]
        others += ["last 2"] if key.layers else []
        others += [(("k_proj", 4),)] if key.table else []
        others += [("k_proj",)] if key.names and not key.choices else []
        found[name] = others[0] if others else field.default + type(field.default)(1)
        if key.lt == 1:
            found[name] = 0.25
    return found


@given(name=NAMES)
@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_an_unknown_name_raises_at_look_up(registry, name):
    """With the kind of thing that was looked for."""
    assume(name not in registry)

    error = refusal(registry.__getitem__, name)

    assert (error.code, registry.kind in error.what) == (ExitCode.BAD_RECIPE, True)


@pytest.mark.parametrize("key", KEYS)
@given(name=NAMES)
def test_an_unknown_name_in_a_recipe_or_on_the_command_line_is_refused(key, name):
    """By the file and by --set, with the line and the nearest name where one is near."""
    known, registry = KEYS[key]
    assume(name not in registry)
    quoted = f'"{known}"'
    text = SOUND.replace(quoted, f'"{name}"', 1)

    for error in (
        refusal(recipe.parse, text, where="r"),
        refusal(recipe.with_changes, SOUND, {key: f'"{name}"'}, where="r"),
    ):
        assert error.code == ExitCode.BAD_RECIPE
        assert registry.unknown(name) in error.why


@given(name=NAMES)
def test_an_unknown_data_format_in_a_recipe_is_refused(name):
    """With the nearest one."""
    assume(all(name != one.name for one in formats.FORMATS))

    error = refusal(recipe.parse, SOUND.replace('"text"', f'"{name}"'), where="r")

    assert "line 8: `data.format`: there is no data format" in error.why


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("qlroa", "did you mean `qlora`?"),
        ("zzz", "there are full, freeze, lora"),
    ],
)
def test_the_nearest_name_is_told_or_all_of_them(typed, meant):
    """For a person who mistyped, and for one who guessed."""
    assert meant in refusal(METHODS.__getitem__, typed).why


@given(name=NAMES)
def test_a_plan_cannot_be_made_of_an_unknown_name(name):
    """Neither by names nor by handing the name over in place of a spec."""
    assume(name not in METHODS)
    sound = Plan.of("lora", seq_len=64)

    refusal(Plan.of, name, seq_len=64)
    for field in ("method", "optimizer", "engine", "task"):
        refusal(replace, sound, **{field: name})


@pytest.mark.parametrize(
    ("field", "value"),
    [("precision", "fp8"), ("loss", "dpo"), ("attention", "fa3"), ("offload", "nvme")],
)
def test_a_plan_cannot_hold_a_word_outside_of_a_closed_set(field, value):
    """Instead of the memory of something else."""
    assert field in refusal(Plan.of, "full", seq_len=64, **{field: value}).what


def test_a_plan_takes_the_settings_of_its_own_method_alone():
    """LoRA's settings are not those of full fine-tuning."""
    lora = Plan.of("lora", seq_len=64)

    assert "LowRank" in refusal(replace, Plan.of("full", seq_len=64), settings=lora.settings).what
    refusal(replace, lora, settings=METHODS["full"].settings())


@pytest.mark.parametrize("spec", tuple(METHODS), ids=str)
def test_a_plan_is_the_same_after_a_round_trip_through_names(spec):
    """As a rehearsal in another process takes it."""
    plan = Plan.of(
        spec.name,
        seq_len=64,
        **values_of(spec),
        optimizer="lion",
        strategy="zero2",
        num_gpus=2,
        precision="fp16",
        offload="optimizer",
    )

    assert Plan.of(**plan.as_names()) == plan


@pytest.mark.parametrize("spec", tuple(METHODS), ids=str)
def test_the_keys_of_a_recipe_are_the_settings_of_its_method(spec):
    """Written, read back, and handed on without loss; no key more, no key less."""
    section = method_section(spec).model_validate({"name": spec.name, **values_of(spec)})

    assert section.settings == spec.settings(**values_of(spec))
    assert set(type(section).model_fields) == {"name", *keys_of(spec.settings)}
    assert method_section(spec)(name=spec.name).settings == spec.settings()


@pytest.mark.parametrize("spec", tuple(METHODS), ids=str)
def test_a_bound_of_a_setting_is_a_bound_of_its_recipe_key(spec):
    """What is out of bounds is no value."""
    section = method_section(spec)
    for name, (field, key) in keys_of(spec.settings).items():
        beyond = [key.ge - 1] if key.ge is not None else []
        beyond += [key.le + 1] if key.le is not None else []
        beyond += [key.lt] if key.lt is not None else []
        beyond += ["no such word"] if key.choices or key.names else []
        beyond += [1] if isinstance(field.default, str) else []
        assert beyond, f"{name} has no bound at all"
        for value in beyond:
            with pytest.raises(ValueError, match=name):
                section.model_validate({"name": spec.name, name: value})


@pytest.mark.parametrize("spec", [spec for spec in METHODS if not lookup.is_ready(spec)], ids=str)
def test_what_has_no_builder_can_be_estimated_and_not_started(spec):
    """The recipe is told so, before anything is loaded."""
    plan = Plan.of(spec.name, seq_len=64)
    text = SOUND.replace('"lora"', f'"{spec.name}"')

    assert memory.estimate(model("qwen2.5-0.5b"), plan).high_bytes > 0
    assert "does not run" in refusal(recipe.parse, text, where="r").why


def test_a_value_that_no_builder_takes_is_not_yet():
    """The estimate knows prompts beside 8 bits."""
    text = SOUND.replace('"lora"', '"prompt_tuning"\nbits = 8')

    assert (
        "`method.bits`: this version does not run 8 yet"
        in refusal(recipe.parse, text, where="r").why
    )


@pytest.mark.parametrize("preset", lookup.all_presets(), ids=str)
def test_a_preset_names_what_there_is(preset):
    """Its method, its optimizer, and settings that the method has."""
    method = METHODS[preset.method]
    variants = preset.variants(model()) if preset.variants else ({},)

    assert preset.optimizer in OPTIMIZERS
    assert not preset.lighter or preset.lighter in PRESETS
    for variant in variants:
        method.settings(**{**preset.changes, **variant})


def test_every_method_that_is_offered_is_a_preset():
    """Registered or not: a method needs no second entry."""
    shown = {preset.method for preset in lookup.all_presets()}

    assert shown == {method.name for method in METHODS if method.offered}


INCOMPATIBLE = [
    ("full", {}, "galore", "zero1", "projects whole gradients"),
    ("full", {}, "apollo", "fsdp", "projects whole gradients"),
    ("full", {}, "adamw_8bit", "fsdp", "cannot divide the states of 8-bit AdamW"),
    ("full", {}, "paged_adamw_8bit", "fsdp", "cannot divide the states"),
    ("lora", {}, "galore", "single", "LoRA has none"),
    ("full", {}, "muon", "fsdp", "updates whole matrices"),
    ("full", {}, "lion", "fsdp", "cannot divide the states of Lion"),
    ("full", {}, "lomo", "ddp", "before processes could add up"),
    ("lora", {}, "lomo", "single", 'few weights; take train.optimizer = "adamw"'),
    ("qlora", {"bits": 8}, "adamw", "fsdp", "cannot divide 8-bit weights"),
    ("qlora", {"bits": 8}, "adamw", "zero3", "cannot divide 8-bit weights"),
    ("qlora", {"bits": 8, "dora": True}, "adamw", "single", "take method.bits = 4"),
    ("lora", {"dora": True}, "adamw", "fsdp", "norms of whole weights"),
    ("prompt_tuning", {"bits": 4}, "adamw", "fsdp", "a quantized base with a soft prompt"),
    ("qlora", {"init": "pissa"}, "adamw", "single", "cannot start from quantized weights"),
    ("p_tuning", {}, "adamw", "fsdp", "cannot gather what P-tuning goes on from"),
    ("prompt_tuning", {}, "adamw", "zero3", "cannot gather what prompt tuning goes on from"),
    ("prefix_tuning", {"bits": 4}, "adamw", "fsdp", "a quantized base with a soft prompt"),
    ("p_tuning_v2", {}, "adamw", "fsdp", "cannot gather what P-tuning v2 goes on from"),
    ("qlora", {"init": "olora"}, "adamw", "single", "cannot start from quantized weights"),
]


@pytest.mark.parametrize(("method", "settings", "optimizer", "engine", "words"), INCOMPATIBLE)
def test_what_does_not_go_together_is_refused_with_the_reason(
    method, settings, optimizer, engine, words
):
    """By traits, whatever the names."""
    spec = METHODS[method]

    reason = conflict(spec, spec.settings(**settings), OPTIMIZERS[optimizer], ENGINES[engine])

    assert words in reason


def test_everything_else_goes_together():
    """The rules refuse no more than they say."""
    refused = {(row[0], tuple(row[1].items()), *row[2:4]) for row in INCOMPATIBLE}
    free = []
    for spec, optimizer, engine in product(METHODS, OPTIMIZERS, ENGINES):
        if not conflict(spec, spec.settings(), optimizer, engine):
            free.append((spec.name, (), optimizer.name, engine.name))

    assert not set(free) & refused
    ready = {row for row in free if row[0] in METHODS.ready and row[2] in OPTIMIZERS.ready}
    assert {("lora", (), "adamw", "fsdp"), ("qlora", (), "paged_adamw_8bit", "ddp")} <= ready
    assert ("full", (), "adamw_8bit", "zero3") in free


def test_what_is_published_in_a_file_of_its_own_is_known_for_an_adapter(tmp_path):
    """Another run would begin with it as with a whole model that was never trained."""
    pytest.importorskip("torch")
    for spec in METHODS:
        if "its own file" in spec.takers:
            layers = import_module(f"runner.methods.{spec.builder}_layers")
            folder = tmp_path / layers.CONFIG.partition(".")[0]
            folder.mkdir()
            (folder / layers.CONFIG).write_text("{}")
            assert parents.is_adapter(folder)
    assert len(list(tmp_path.iterdir())) > 1


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_took_a_part_of_the_base_leaves_no_reference_behind(init):
    """Switched off it would compare with another model than the base."""
    spec, alone = METHODS["lora"], (OPTIMIZERS["adamw"], ENGINES["single"])

    def told(task):
        return conflict(spec, spec.settings(init=init), *alone, TASKS[task])

    assert "not the base model" in told("dpo")
    assert "not the base model" in told("kto")
    assert (told("sft"), told("orpo")) == ("", "")
    assert not conflict(spec, spec.settings(init="gaussian"), *alone, TASKS["dpo"])


def test_a_recipe_of_what_does_not_go_together_is_refused():
    """Before anything is loaded."""
    text = SOUND.replace('"single"', '"fsdp"\ngpus = 2').replace('"adamw"', '"adamw_8bit"')

    assert "cannot divide the states" in refusal(recipe.parse, text, where="r").why


def test_a_list_of_names_is_a_recipe_s_targets_and_comes_back_as_it_is():
    """Neither widened to all nor narrowed to attention."""
    text = SOUND.replace('"lora"', '"lora"\ntargets = ["q_proj", "v_proj"]')
    found = recipe.parse(text, where="r")

    assert found.to_plan(OURS).settings.target_names == ("q_proj", "v_proj")
    assert recipe.parse(found.to_toml(), where="again").method == found.method
    assert asdict(found.to_plan(OURS).settings)["targets"] == ("q_proj", "v_proj")


@pytest.mark.parametrize("value", ["[]", '["q proj"]', "3", '"some"', '["a", 1]'])
def test_targets_that_are_no_names_are_told(value):
    """With what would be."""
    text = SOUND.replace('"lora"', f'"lora"\ntargets = {value}')

    assert '"all", "attention" or a list of names' in refusal(recipe.parse, text, where="r").why
