"""An adapter that is merged before training: the sum, what is refused, and what is written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mixtures
import pytest
import tiny_families

torch = pytest.importorskip("torch")

from method_cases import CASES  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.registry.lookup import METHODS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.machines import machine  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import methods  # noqa: E402
from runner.checks import adapters, merging_room  # noqa: E402
from runner.training import merging  # noqa: E402

IDS = torch.arange(3, 19)[None]
QUICK = ("rslora", "dora", "ia3, one layer", "oft")
MERGED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.long)
    for name, case in CASES.items()
    if "merged" in METHODS[case.method].takers
    and case.method != "eva"
    and case.family == "llama"
    and "pissa" not in case.settings
    and "olora" not in case.settings
]


def logits(folder, adapter=None):
    """What transformers and PEFT make of a folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("name", MERGED)
def test_the_merged_model_predicts_what_the_adapted_one_did(tiny_model, tmp_path, name):
    """Of every method whose change is one of weights; with the tokenizer of its base."""
    case = CASES[name]
    model = methods.prepare(case.plan(precision="fp32", seq_len=96), tiny_model, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "adapter")

    merging.merge(tiny_model, tmp_path / "adapter", tmp_path / "merged")
    found, wanted = logits(tmp_path / "merged"), logits(tiny_model, tmp_path / "adapter")

    assert (found - wanted).abs().max() < 1e-4
    assert (logits(tiny_model) - wanted).abs().max() > 1e-2
    texts = [
        AutoTokenizer.from_pretrained(f)("count to 3") for f in (tiny_model, tmp_path / "merged")
    ]
    assert texts[0]["input_ids"] == texts[1]["input_ids"]
    written = {p.name for p in (tmp_path / "merged").iterdir()}
    assert written == {p.name for p in tiny_model.iterdir()}
    assert (tmp_path / "merged/config.json").read_bytes() == (
        tiny_model / "config.json"
    ).read_bytes()


def plain(base, folder, **more):
    """An adapter of PEFT's on a base, other than zero."""
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=4, **more)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def test_a_sum_in_16_bits_is_rounded_once(tiny_model, tmp_path):
    """Not the adapter first and then the sum: small changes would be lost twice."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.save_pretrained(base)
    adapter = plain(base, tmp_path / "adapter")

    merging.merge(base, adapter, tmp_path / "merged")

    tensors, low = load_file(base / "model.safetensors"), load_file(adapter / adapters.WEIGHTS)
    found = load_file(tmp_path / "merged" / "model.safetensors")
    for number in range(2):
        name = f"model.layers.{number}.self_attn.q_proj"
        a, b = (low[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
        wanted = (tensors[f"{name}.weight"].float() + b @ a * (8 / 4)).bfloat16()
        assert torch.equal(found[f"{name}.weight"], wanted)
        assert found[f"{name}.weight"].dtype is torch.bfloat16


@pytest.mark.long
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_adapters_of_experts_are_merged(tmp_path, family):
    """And what is written is in the format that others read."""
    folder = mixtures.save(family, tmp_path / "base")
    model = methods.prepare(CASES["rslora"].plan(precision="fp32", seq_len=96), folder, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.05)
    model.save_pretrained(tmp_path / "adapter")

    merging.merge(folder, tmp_path / "adapter", tmp_path / "merged")
    with torch.no_grad():
        wanted = model.eval()(input_ids=IDS).logits

    assert (logits(tmp_path / "merged") - wanted).abs().max() < 1e-4
    assert (logits(folder) - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("change", ["key", "missing", "more"])
def test_what_peft_would_pass_over_is_refused(tiny_model, tmp_path, change):
    """It warns, or says nothing, and merges what is left."""
    adapter = plain(tiny_model, tmp_path / "adapter")
    tensors = load_file(adapter / adapters.WEIGHTS)
    name = next(iter(tensors))
    if change == "key":
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"use_newer_thing": True}))
        told = "use_newer_thing"
    elif change == "missing":
        told = name
        save_file({k: v for k, v in tensors.items() if k != name}, adapter / adapters.WEIGHTS)
    else:
        told = "k_proj"
        more = {name.replace("q_proj", "k_proj"): tensors[name].clone()}
        save_file(tensors | more, adapter / adapters.WEIGHTS)

    with pytest.raises(UserError, match="cannot be merged") as caught:
        merging.merge(tiny_model, adapter, tmp_path / "merged")
    assert told in caught.value.why


def test_what_is_beside_the_weights_goes_along_and_nothing_else(tiny_model, tmp_path):
    """Checkpoints and a person's own files stay where they are."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    for name in ("checkpoint-5/global_step5/a.json", "checkpoint-5/b.json", "notes.json"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text("{}")
    for name in ("additional_chat_templates/rag.jinja", "LICENSE.txt", "sentencepiece.bpe.model"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("x")

    merging.merge(base, plain(base, tmp_path / "adapter"), tmp_path / "merged")

    written = {str(p.relative_to(tmp_path / "merged")) for p in (tmp_path / "merged").rglob("*.*")}
    wanted = {"additional_chat_templates/rag.jinja", "LICENSE.txt", "sentencepiece.bpe.model"}
    assert written == wanted | {p.name for p in tiny_model.iterdir()}


def test_an_adapter_that_is_not_finite_is_not_merged(tiny_model, tmp_path):
    """Neither PEFT nor the base is to blame."""
    adapter = plain(tiny_model, tmp_path / "adapter")
    tensors = load_file(adapter / adapters.WEIGHTS)
    next(iter(tensors.values()))[0, 0] = float("inf")
    save_file(tensors, adapter / adapters.WEIGHTS)

    with pytest.raises(UserError, match="the adapter holds values that are not finite"):
        merging.merge(tiny_model, adapter, tmp_path / "merged")


def on_tables(base, folder, **changes):
    """An adapter on the head or the embedding of a base."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, **changes)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def asked(base, adapter):
    """A recipe that merges it, checked."""
    recipe = recipes.parse(
        f'schema = 1\nname = "m"\n[model]\nid = "{base}"\nadapter = "{adapter}"\n'
        'adapter_use = "merge"\n[data]\ntrain = "r.json"\n[method]\nname = "lora"\n',
        where="r",
    )
    return adapters.check(recipe, from_folder(base), Path("/"))


WITH_HEAD = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
        WITH_HEAD,
    ],
    ids=["head", "embedding", "embedding, tied", "copy of the head"],
)
def test_one_of_two_tied_tables_is_not_changed_alone(tiny_model, tmp_path, changes):
    """It would be another model, in silence; told apart, each is what the adapter has."""
    adapter = on_tables(tiny_model, tmp_path / "adapter", **changes)

    with pytest.raises(UserError, match="one table") as caught:
        asked(tiny_model, adapter)
    assert ("lm_head" in caught.value.why) != ("embed_tokens" in caught.value.why)
    if changes is not WITH_HEAD:
        return
    apart = AutoModelForCausalLM.from_pretrained(tiny_model)
    apart.lm_head.weight = torch.nn.Parameter(apart.lm_head.weight.clone())
    apart.config.tie_word_embeddings = False
    apart.save_pretrained(tmp_path / "apart")
    asked(tmp_path / "apart", adapter)
    merging.merge(tmp_path / "apart", adapter, tmp_path / "merged")
    wanted = logits(tiny_model, adapter)
    assert (logits(tmp_path / "merged") - wanted).abs().max() < 1e-4


def test_copies_that_are_kept_one_table_are_merged(tiny_model, tmp_path):
    """As what we publish has them."""
    plan = CASES["lora, whole modules"].plan(precision="fp32", seq_len=96)
    model = methods.prepare(plan, tiny_model, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "adapter")

    assert asked(tiny_model, tmp_path / "adapter") == []
    merging.merge(tiny_model, tmp_path / "adapter", tmp_path / "merged")
    with torch.no_grad():
        wanted = model.eval()(input_ids=IDS).logits
    assert (logits(tmp_path / "merged") - wanted).abs().max() < 1e-4


def test_an_adapter_of_weights_that_lie_transposed_fits_its_model(tmp_path):
    """GPT-2's linears are (in, out) in its files; of another width it is refused."""
    base = tiny_families.save("gpt2", tmp_path / "gpt2")
    adapter = on_tables(base, tmp_path / "adapter", target_modules=["c_attn", "c_fc"])

    assert asked(base, adapter) == []
    merging.merge(base, adapter, tmp_path / "merged")
    assert (logits(tmp_path / "merged") - logits(base, adapter)).abs().max() < 1e-4
    wide = tiny_families.save("gpt2", tmp_path / "wide", n_embd=64)
    with pytest.raises(UserError, match="of another model"):
        asked(wide, adapter)


def test_there_must_be_room_for_the_whole_model(tiny_model):
    """In memory, where it is added up, and on the disk."""
    base, here = from_folder(tiny_model), machine.probe(Path("/"))
    text = (
        'schema = 1\nname = "m"\n[model]\nid = "b"\nadapter = "a"\nadapter_use = "merge"\n'
        '[data]\ntrain = "r.json"\n[method]\nname = "lora"\n'
    )
    merges = recipes.parse(text, where="r")
    goes_on = recipes.parse(text.replace('adapter_use = "merge"\n', ""), where="r")

    merging_room.check(merges, base, here)
    for name, told in (("ram_free_bytes", "memory"), ("disk_free_bytes", "disk space")):
        full = replace(here, **{name: base.weight_bytes - 1})
        merging_room.check(goes_on, base, full)
        with pytest.raises(UserError, match=f"too little {told}") as caught:
            merging_room.check(merges, base, full)
        assert caught.value.code is ExitCode.CANNOT_CREATE
