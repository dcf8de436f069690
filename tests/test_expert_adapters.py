"""Adapters that are there as the experts of a mixture: taken as they are, or refused with a way."""

from __future__ import annotations

import json
import runpy
import shlex
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from peft import LoraConfig, PeftModel, TaskType, VeraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.framework import OURS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from runner import methods  # noqa: E402
from runner.checks import expert_adapters, replay  # noqa: E402
from runner.methods import lora_experts  # noqa: E402
from runner.methods.lora_experts_layers import LoraExperts, weights_of  # noqa: E402
from runner.tasks.sft import TRAINER  # noqa: E402

IDS = torch.arange(3, 19)[None]
NAMES = ("wide", "narrow")


def base_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def save(folder, base, config, *, seed=0):
    """An adapter in PEFT's format that is not at its start."""
    torch.manual_seed(seed)
    model = get_peft_model(base_model(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "vera_" in name:
            parameter.data.normal_(std=0.2)
    model.save_pretrained(folder)
    return folder


def lora(**changes):
    """On all linears of the layers, of rank 4."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    told = {"r": 4, "lora_alpha": 6, "target_modules": names, "task_type": TaskType.CAUSAL_LM}
    return LoraConfig(**told | changes)


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    """Two, of other widths, scales and linears."""
    place = tmp_path_factory.mktemp("adapters")
    narrow = {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "up_proj"]}
    save(place / "wide", tiny_model, lora(), seed=1)
    save(place / "narrow", tiny_model, lora(use_rslora=True, **narrow), seed=2)
    return place


@pytest.fixture(scope="module")
def base(tiny_model):
    return from_folder(tiny_model)


def asked(base, *folders, settings="experts = 2\nrank = 4", method="lora_experts", more=""):
    """A recipe whose experts begin as these adapters."""
    return recipes.parse(
        f'schema = 1\nname = "mixed"\n[model]\nid = {json.dumps(base.path)}\n'
        f"adapters = {json.dumps([str(one) for one in folders])}\n{more}"
        f'[data]\ntrain = "rows.json"\n[method]\nname = "{method}"\n{settings}\n'
        '[train]\nprecision = "fp32"\n',
        where="r",
    )


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


class Always(torch.nn.Module):
    """A router that knows one expert only."""

    def __init__(self, number, count):
        super().__init__()
        self.number, self.count = number, count

    def forward(self, x):
        return (
            torch.nn.functional.one_hot(torch.full(x.shape[:-1], self.number), self.count).float()
            * 1e4
        )


@pytest.mark.parametrize("number", [0, 1])
def test_an_expert_computes_what_its_adapter_does(adapters, base, tiny_model, number):
    """To PEFT's own logits, where the router takes it alone; at first all count alike."""
    recipe = asked(base, *(adapters / name for name in NAMES), settings="experts = 2\nrank = 6")
    model = methods.prepare(recipe.to_plan(OURS), tiny_model, 0)
    methods.begin_as(model, recipe.to_plan(OURS), [adapters / name for name in NAMES])
    peft = PeftModel.from_pretrained(base_model(tiny_model), adapters / NAMES[number])

    routers = [module for module in model.modules() if isinstance(module, LoraExperts)]
    assert all(not module.router.weight.any() for module in routers)
    mean = logits(model)
    for module in routers:
        module.router = Always(number, 2)

    assert (logits(model) - logits(peft)).abs().max() < 1e-4
    assert (logits(model) - mean).abs().max() > 1e-2
    assert (logits(peft) - logits(base_model(tiny_model))).abs().max() > 1e-2


def test_what_an_adapter_leaves_over_can_learn(adapters, base, tiny_model):
    """Numbers of an expert that is wider, and linears that the adapter has not."""
    recipe = asked(base, *(adapters / name for name in NAMES), settings="experts = 2\nrank = 6")
    model = methods.prepare(recipe.to_plan(OURS), tiny_model, 0)
    methods.begin_as(model, recipe.to_plan(OURS), [adapters / name for name in NAMES])

    layer = model.model.layers[0]
    wide = layer.self_attn.q_proj.lora_experts
    for part, used in ((wide, 4), (layer.mlp.down_proj.lora_experts, 4)):
        assert part.down.weight[used:6].abs().min() > 0
        assert not part.up.weight[:, used:6].any()
        assert part.up.weight[:, :used].abs().min() > 0
    assert not layer.mlp.down_proj.lora_experts.up.weight[:, 6:].any()
    assert wide.up.weight[:, 6:8].abs().min() > 0


@pytest.mark.parametrize(
    ("config", "settings", "told"),
    [
        ({"r": 5}, "", ("it is of rank 5, and method.rank is 4", "add --set method.rank=5")),
        (
            {},
            'targets = "attention"',
            ("of method.targets are not: mlp.up_proj", "add --set 'method.targets="),
        ),
        ({"use_dora": True}, "", ("dora = True", "plain LoRA")),
        ({"modules_to_save": ["lm_head"]}, "", ("modules_to_save = ", "plain LoRA")),
        ({"bias": "all"}, "", ("bias = 'all'", "plain LoRA")),
        ({"target_modules": ["q_proj", "lm_head"]}, "", ("on no linear of", "plain LoRA")),
        ({"alpha_pattern": {"q_proj": 9}}, "", ("alpha_pattern = ", "plain LoRA")),
    ],
    ids=["rank", "targets", "dora", "whole", "bias", "head", "pattern"],
)
def test_an_adapter_that_no_expert_can_begin_as_is_refused(
    adapters, base, tiny_model, tmp_path, config, settings, told
):
    """With the reason, and the change that helps, which does."""
    folder = save(tmp_path / "it", tiny_model, lora(**config))
    recipe = asked(base, adapters / "narrow", folder, settings=f"experts = 2\nrank = 4\n{settings}")

    with pytest.raises(UserError) as refused:
        expert_adapters.check(recipe, base, Path("/"))

    assert refused.value.code is ExitCode.BAD_RECIPE
    assert told[0] in refused.value.why
    assert told[1] in refused.value.do
    if refused.value.do.startswith("add --set "):
        change = shlex.split(refused.value.do)[2].split("=", 1)
        mended = recipes.with_changes(recipe.to_toml(), dict([change]), where="r")
        assert expert_adapters.check(mended, base, Path("/")) == []


def test_another_kind_another_model_and_no_adapter_at_all_are_refused(
    adapters, base, tiny_model, tmp_path
):
    """Before anything is loaded."""
    vera = save(tmp_path / "vera", tiny_model, VeraConfig(r=4, target_modules=["q_proj"]))
    (tmp_path / "empty").mkdir()
    told = {}
    for folder in (vera, tmp_path / "empty", adapters / "wide"):
        recipe = asked(base, adapters / "narrow", folder)
        with pytest.MonkeyPatch.context() as patch:
            if folder == adapters / "wide":
                other = {(0, "self_attn.q_proj"): [64, 64]}  # sides
                patch.setattr("runner.checks.targets.shapes", lambda _, other=other: other)
            with pytest.raises(UserError) as refused:
                expert_adapters.check(recipe, base, Path("/"))
        told[folder.name] = f"{refused.value.what}; {refused.value.why}"

    assert "it is one of VERA, and experts are of LORA" in told["vera"]
    assert "holds no adapter" in told["empty"]
    assert "is of another model" in told["wide"]


@pytest.mark.parametrize(
    ("settings", "method", "more", "key", "why"),
    [
        (
            "experts = 3",
            "lora_experts",
            "",
            "method.experts",
            "there are 2 model.adapters: write 2",
        ),
        ("", "lora", "", "model.adapters", 'take method.name = "lora_experts", or leave it out'),
        ("experts = 2", "lora_experts", 'adapter = "x"\n', "model.adapter", "leave it out"),
    ],
)
def test_what_does_not_go_with_them_is_told_at_its_key(
    adapters, base, settings, method, more, key, why
):
    """In the recipe, before any file is looked at."""
    folders = [adapters / name for name in NAMES]

    with pytest.raises(UserError) as refused:
        asked(base, *folders, settings=settings, method=method, more=more)

    assert key in str(refused.value.why)
    assert why in refused.value.why


def test_routers_alone_learn_beside_adapters_only(base, adapters):
    """New experts add nothing that could be weighed."""
    settings = "experts = 2\nrank = 4\nfreeze_experts = true"
    with pytest.raises(UserError) as refused:
        asked(base, settings=settings)

    assert "`method.freeze_experts`: new experts add nothing until" in refused.value.why
    asked(base, *(adapters / name for name in NAMES), settings=settings)


class KilledError(BaseException):
    """As abrupt as a signal."""


def attempt(run, *, dies_at=None, again=False):
    """Train; how many weights did, and what was published predicts."""
    step, save_model, found = TRAINER.training_step, TRAINER.save_model, []

    def stepping(trainer, *args, **kw):
        if trainer.state.global_step == dies_at:
            raise KilledError
        return step(trainer, *args, **kw)

    def saving(trainer, folder=None, _internal_call=False):
        if not _internal_call:
            found.append(logits(trainer.model))
        save_model(trainer, folder, _internal_call)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRAINER, "training_step", stepping)
        patch.setattr(TRAINER, "save_model", saving)
        (real_runs.next_attempt if again else real_runs.attempt)(run)
    return found[-1] if found else None


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_run_begins_with_adapters_of_runs_and_of_folders(tiny_model, orders, adapters, frozen):
    """Gone on with after a kill to the last bit; the lock knows both, and the result loads."""
    narrow = {"steps": 2, "save_every": None}
    first = real_runs.new_run(tiny_model, orders, adapter="rank = 4\nalpha = 8", **narrow)
    real_runs.attempt(first)

    def mixed():
        found = real_runs.new_run(
            tiny_model,
            orders,
            method="lora_experts",
            adapter=f"experts = 2\nrank = 4\nfreeze_experts = {str(frozen).lower()}",
            steps=5,
            save_every=2,
            accumulation=1,
        )
        named = json.dumps([f"run:{first.end}", str(adapters / "narrow")])
        text = found.recipe.read_text()
        found.recipe.write_text(text.replace("\n[data]", f"\nadapters = {named}\n[data]", 1))
        return found

    whole, killed = mixed(), mixed()
    wanted = attempt(whole)
    with pytest.raises(KilledError):
        attempt(killed, dies_at=3)
    attempt(killed, again=True)

    ours, theirs = (real_runs.weights(run) for run in (whole, killed))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    (prepared,) = real_runs.events(whole, "prepared")
    plan = recipes.parse(whole.recipe.read_text(), where="r").to_plan(OURS)
    model = lora_experts.adapt(base_model(tiny_model), plan)
    routers = sum(p.numel() for name, p in weights_of(model).items() if ".router." in name)
    assert (prepared["num_trainable"] == routers) is frozen
    lock = read_json(whole.recipe_lock)
    assert {"adapters/0/adapter_model.safetensors", "adapters/1/adapter_config.json"} <= set(
        lock["sha256"]
    )
    assert [(one["key"], one["run"]) for one in lock["parents"]] == [("model.adapters.0", first.id)]
    other = lock | {"sha256": lock["sha256"] | {"adapters/1/adapter_config.json": "x"}}
    assert [one.input_key for one in replay.changes(lock, other)] == ["model.adapters"]
    load = runpy.run_path(str(killed.model / "load_lora_experts.py"))["load"]
    assert (logits(load(base_model(tiny_model), killed.model)) - wanted).abs().max() < 1e-4
