"""Adapters that are there: what their files say, and whether a recipe goes on with them."""

from __future__ import annotations

import json
import shlex
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import mixtures  # noqa: E402
from method_cases import CASES, QUANTIZED  # noqa: E402
from peft import EvaConfig, LoraConfig, PromptEncoderConfig, get_peft_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.framework import OURS  # noqa: E402
from advisor.registry.continued import understood  # noqa: E402
from advisor.registry.handover import PEFT_CONFIG  # noqa: E402
from advisor.registry.lookup import METHODS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models import chat_template  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import methods  # noqa: E402
from runner.checks import adapters, chat_templates  # noqa: E402
from runner.engines import loading  # noqa: E402

SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    *("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)
GOES_ON = {name: case for name, case in CASES.items() if METHODS[case.method].continued}
QUICK = ("rslora", "dora", "lora, last layers", "ia3, one layer", "oft", "houlsby")
"""One of each kind of file, and of what can be told of modules."""
EACH = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.long)
    for name in GOES_ON
    if "init =" not in GOES_ON[name].settings
]


@pytest.fixture(scope="module")
def base(tiny_model):
    """Facts of the tiny model."""
    return from_folder(tiny_model)


@pytest.fixture(scope="module")
def bases(tiny_model, tmp_path_factory):
    """Family -> folder of a tiny model with the same tokenizer, made when it is asked for."""
    place = tmp_path_factory.mktemp("bases")

    @cache
    def make(family):
        if family == "llama":
            return tiny_model
        if family in mixtures.FAMILIES:
            return mixtures.save(family, place / family)
        shutil.copytree(tiny_model, place / family)
        told = json.loads((tiny_model / "config.json").read_text())
        sizes = {key: told[key] for key in SIZES}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes))
        model.save_pretrained(place / family)
        return place / family

    return make


@pytest.fixture(scope="module")
def published(bases, tmp_path_factory):
    """Make the adapter of a case, with weights that are not those of a start; its folder."""
    place = tmp_path_factory.mktemp("published")

    def publish(name):
        folder, case = place / name, GOES_ON[name]
        if not folder.exists():
            plan = case.plan(precision="fp32", seq_len=96)
            model = methods.prepare(plan, bases(case.family), 0)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data.normal_(std=0.01)
            model.save_pretrained(folder)
        return folder

    return publish


def asked(base, folder, method="lora", settings="", use="continue", task="sft"):
    """A recipe that begins with the adapter."""
    return recipes.parse(
        f'schema = 1\nname = "on"\ntask = "{task}"\n[model]\nid = {json.dumps(base.path)}\n'
        f'adapter = {json.dumps(str(folder))}\nadapter_use = "{use}"\n'
        f'[data]\ntrain = "rows.json"\n[method]\nname = "{method}"\n{settings}\n',
        where="r",
    )


def refused(recipe, base):
    """The error of the check."""
    with pytest.raises(UserError) as caught:
        adapters.check(recipe, base, Path("/"))
    assert caught.value.code is ExitCode.BAD_RECIPE
    return caught.value


def minded(recipe, base):
    """What is told of the adapter, but for formats of ours, which name no base."""
    return [told for told in adapters.check(recipe, base, Path("/")) if "does not say" not in told]


def without_start(settings):
    """The lines of [method] that an adapter which is there leaves a use for."""
    return "\n".join(line for line in settings.split("\n") if not line.startswith("init_text"))


@pytest.mark.parametrize("name", EACH)
def test_what_a_method_saves_is_read_as_it_was_set(published, bases, name):
    """Every setting that its weights depend on; and the weights are taken as they are."""
    folder, case = published(name), GOES_ON[name]
    base = from_folder(bases(case.family))
    recipe = asked(base, folder, case.method, without_start(case.settings))

    assert minded(recipe, base) == []
    plan = recipe.to_plan(OURS)
    model = methods.prepare(plan, bases(case.family), 7)
    loading.begin_with(model, folder, METHODS[case.method].continued.weights)
    model.save_pretrained(folder.parent / "again")
    name = METHODS[case.method].continued.weights
    ours, theirs = (load_file(place / name) for place in (folder.parent / "again", folder))
    shutil.rmtree(folder.parent / "again")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("rslora", "rank = 8\nalpha = 16", "rank is 16; alpha is 32; rslora is True"),
        ("rslora", "rslora = true\ntargets = 'attention'", "targets is down_proj, gate_proj"),
        ("lora, last layers", "", "layers is 1; targets is down_proj"),
        ("dora", "", "dora is True"),
        ("rslora", "rslora = true\nranks = { q_proj = 4 }", "ranks is none"),
        ("rslora", 'rslora = true\nbias = "all"', "bias is none"),
        ("parallel", "", "reduction is 8; placement is parallel"),
        ("lora, whole modules", "", "modules_to_save is embed_tokens, norms"),
    ],
)
def test_a_recipe_that_says_otherwise_is_refused_and_its_change_works(
    published, base, name, settings, told
):
    """A rank or a scale that differs would be another adapter, in silence where shapes allow."""
    recipe = asked(base, published(name), GOES_ON[name].method, settings)

    error = refused(recipe, base)

    assert told in error.why
    text, changes = recipe.to_toml(), shlex.split(error.do.removeprefix("add "))
    pairs = dict(change.split("=", 1) for change in changes if change != "--set")
    mended = recipes.with_changes(text, pairs, where="r")
    assert minded(mended, base) == []


def test_the_kind_is_told_with_the_method_that_goes_on_with_it(published, base):
    """IA3's vectors are no LoRA's."""
    error = refused(asked(base, published("ia3, one layer")), base)

    assert "one of IA3" in error.why
    assert error.do == "add --set method.name=ia3"


def saved(model, config, folder):
    """An adapter of PEFT's, as somebody else has made it."""
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture
def plain_base(tiny_model):
    """The tiny model to put something on."""
    return AutoModelForCausalLM.from_pretrained(tiny_model)


LINEARS = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"modules_to_save": ["mlp"]}, "modules_to_save = ['mlp']"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern = {'q_proj': 3}"),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 3}}, "rank_pattern"),
        ({"lora_alpha": 11.5}, "alpha = 11.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_no_recipe_can_say_is_refused_unless_merged(plain_base, base, tmp_path, more, named):
    """PEFT knows how to add it, and we do not know how to make it."""
    folder = saved(plain_base, LoraConfig(**LINEARS | {"r": 4} | more), tmp_path / "theirs")

    error = refused(asked(base, folder, settings="rank = 4\nalpha = 8"), base)

    assert named in error.why
    assert "--set model.adapter_use=merge" in error.do
    assert adapters.check(asked(base, folder, use="merge"), base, Path("/")) == []


def test_an_adapter_of_peft_alone_is_gone_on_with(plain_base, base, tmp_path):
    """The documents' targets; its base is not known by a run, but by its name."""
    folder = saved(plain_base, LoraConfig(**LINEARS, r=4, lora_alpha=8), tmp_path / "theirs")
    settings = "rank = 4\nalpha = 8\ntargets = ['q_proj', 'v_proj']"

    assert adapters.check(asked(base, folder, settings=settings), base, Path("/")) == []
    write(folder, base_model_name_or_path="org/other")
    (told,) = adapters.check(asked(base, folder, settings=settings), base, Path("/"))
    assert "trained on org/other" in told
    write(folder, base_model_name_or_path=None)
    (told,) = adapters.check(asked(base, folder, settings=settings), base, Path("/"))
    assert "does not say which model" in told


def write(folder, **changes):
    """Other content of the adapter's configuration."""
    path = folder / PEFT_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "loftq"])
@pytest.mark.parametrize("use", ["continue", "merge"])
def test_an_adapter_of_a_changed_base_is_refused(published, base, tmp_path, start, use):
    """Put on the untouched base it would be wrong by as much as it began with."""
    folder = shutil.copytree(published("rslora"), tmp_path / "theirs")
    write(folder, init_lora_weights=start)

    error = refused(asked(base, folder, settings="rslora = true", use=use), base)

    assert start in error.why


def test_an_adapter_of_another_model_is_refused_by_its_shapes(published, base, tmp_path):
    """Libraries say it after the model has loaded, in hundreds of lines."""
    folder = shutil.copytree(published("rslora"), tmp_path / "theirs")
    tensors = load_file(folder / adapters.WEIGHTS)
    name = next(name for name in tensors if name.endswith("q_proj.lora_A.weight"))
    save_file(tensors | {name: torch.zeros(16, 3)}, folder / adapters.WEIGHTS)

    assert "of [16, 3]" in refused(asked(base, folder, settings="rslora = true"), base).why

    moved = {n.replace("layers.1", "layers.9"): tensor for n, tensor in tensors.items()}
    save_file(moved, folder / adapters.WEIGHTS)
    assert "no such linear" in refused(asked(base, folder, use="merge"), base).why


def test_a_prompt_cannot_be_merged(plain_base, base, tmp_path):
    """It is no change of weights; and P-tuning's encoder is not in what is published."""
    config = PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    folder = saved(plain_base, config, tmp_path / "theirs")

    assert "P_TUNING cannot be merged" in refused(asked(base, folder, use="merge"), base).what
    assert "one of P_TUNING" in refused(asked(base, folder), base).why


def test_an_adapter_of_our_own_says_which_model_it_is_for(published, base, tmp_path):
    """By its type and size, where no run tells more."""
    folder = shutil.copytree(published("houlsby"), tmp_path / "theirs")
    path = folder / "bottleneck_config.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"base": told["base"] | {"hidden_size": 999}}))

    error = refused(asked(base, folder, "adapter", "reduction = 4"), base)
    assert "999" in error.why
    path.write_text(json.dumps(told))
    assert "cannot be merged" in refused(asked(base, folder, use="merge"), base).what


def test_a_folder_without_an_adapter_or_with_a_pickle_is_refused(published, base, tmp_path):
    """A pickle can run any code."""
    assert "holds no adapter" in refused(asked(base, tmp_path), base).what
    folder = shutil.copytree(published("rslora"), tmp_path / "theirs")
    (folder / adapters.WEIGHTS).rename(folder / "adapter_model.bin")

    assert "pickle" in refused(asked(base, folder), base).why


@pytest.mark.parametrize(
    ("content", "fault"), [({"rank_pattern": [1]}, ""), ({"alpha_pattern": {"a": []}}, "")]
)
def test_a_configuration_of_a_strange_shape_is_refused(published, base, tmp_path, content, fault):
    """Somebody may have written it by hand."""
    folder = shutil.copytree(published("rslora"), tmp_path / "theirs")
    write(folder, **content)

    assert (
        "none that PEFT wrote" in refused(asked(base, folder, settings="rslora = true"), base).what
    )


@pytest.mark.parametrize(
    ("method", "settings", "task", "use", "told"),
    [
        ("full", "", "sft", "continue", "cannot go on with an adapter"),
        ("eva", "", "sft", "continue", "cannot go on with an adapter"),
        ("shira", "", "sft", "continue", "cannot go on with an adapter"),
        ("p_tuning", "", "sft", "continue", "cannot go on with an adapter"),
        ("lora", "", "dpo", "continue", "compares with the model without its adapter"),
        ("lora", "", "kto", "continue", "compares with the model without its adapter"),
        ("lora", 'init = "pissa"', "sft", "continue", "method.init would make: leave it out"),
        ("prompt_tuning", 'init_text = "x"', "sft", "continue", "method.init_text would make"),
        ("lora", "", "classify", "merge", "a head of its own"),
    ],
)
def test_what_a_recipe_cannot_ask_for_is_told_as_it_is_read(
    base, method, settings, task, use, told
):
    """Before anything is looked at."""
    with pytest.raises(UserError) as caught:
        asked(base, "somewhere", method, settings, use, task)

    assert told in str(caught.value.why) + str(caught.value.what)


def test_a_use_without_an_adapter_is_refused(base):
    """It was forgotten, or its key is misspelt."""
    text = asked(base, "x").to_toml().replace('adapter = "x"\n', "")

    with pytest.raises(UserError) as caught:
        recipes.parse(text, where="r")
    assert "`model.adapter_use`: there is no model.adapter" in caught.value.why


def test_quantized_methods_go_on_with_adapters_of_16_bits(published, base):
    """How the base is stored is the recipe's choice."""
    settings = GOES_ON["rslora"].settings
    assert (
        adapters.check(asked(base, published("rslora"), "qlora", settings), base, Path("/")) == []
    )
    assert all(
        METHODS[case.method].continued for case in QUANTIZED.values() if case.method == "qlora"
    )


def test_values_that_mean_nothing_are_understood():
    """Empty ones, and PEFT's own defaults."""
    file = METHODS["lora"].continued
    content = LoraConfig(**LINEARS).to_dict()

    assert understood(content, file)[1] == []
    assert understood(content | {"new_switch": True}, file)[1] == ["new_switch = True"]


def test_what_eva_leaves_in_the_file_is_understood(plain_base, base, tmp_path):
    """How it began; where every linear has kept the rank."""
    config = LoraConfig(**LINEARS, r=4, init_lora_weights="eva", eva_config=EvaConfig())
    model = get_peft_model(plain_base, config, low_cpu_mem_usage=True)
    model.to_empty(device="cpu").save_pretrained(tmp_path / "theirs")
    settings = "rank = 4\nalpha = 8\ntargets = ['q_proj', 'v_proj']"

    told = json.loads((tmp_path / "theirs" / PEFT_CONFIG).read_text())
    assert told["eva_config"]
    recipe = asked(base, tmp_path / "theirs", settings=settings)
    assert adapters.check(recipe, base, Path("/")) == []


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.long) for name in ("mixtral", "qwen2_moe")]
)
@pytest.mark.parametrize(
    "settings",
    [
        "rank = 4",
        'rank = 4\nrslora = true\nrouter = "adapted"',
        'rank = 4\ntargets = "attention"\nrouter = "adapted"',
    ],
)
def test_adapters_of_experts_are_gone_on_with(tmp_path, family, settings):
    """The joined gate and up of twice the rank count as one setting; the router as the recipe's."""
    folder = mixtures.save(family, tmp_path / "base")
    base = from_folder(folder)
    first = asked(base, tmp_path / "adapter", settings=settings)
    plan = first.to_plan(OURS)
    model = methods.prepare(plan, folder, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.01)
    model.save_pretrained(tmp_path / "adapter")

    assert adapters.check(first, base, Path("/")) == []
    again = methods.prepare(plan, folder, 1)
    loading.begin_with(again, tmp_path / "adapter", adapters.WEIGHTS)
    ours, theirs = (dict(one.named_parameters()) for one in (again, model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    other = asked(base, tmp_path / "adapter", settings=f"{settings}\nalpha = 3")
    assert "alpha is 32" in refused(other, base).why


def test_rows_in_another_chat_template_than_the_adapters_are_told(tiny_model, base, tmp_path):
    """It has learnt to answer in one, and would be trained on in the other."""
    folder, recipe = tmp_path / "adapter", asked(base, tmp_path / "adapter")
    folder.mkdir()
    chats = chat_template.source_of(tiny_model)

    def told(source):
        written = SimpleNamespace(source=source) if source else None
        encoder = SimpleNamespace(renderer=SimpleNamespace(chats=written))
        return chat_templates.other_than_adapters(recipe, Path("/"), encoder)

    assert told(chats) == []  # it has no tokenizer of its own
    shutil.copyfile(tiny_model / "chat_template.jinja", folder / "chat_template.jinja")
    assert told(chats) == told("") == []
    assert "data.chat_template" in told("{{ another }}")[0]
