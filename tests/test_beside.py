"""What trains whole beside adapters: embedding, head, norms and biases, on what PEFT is handed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from data_files import write_rows  # noqa: E402
from method_cases import Case  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from small_model import CONFIG, recipe_text, small_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from trl.trainer.utils import add_fused_lm_head  # noqa: E402

from advisor.choice import storage  # noqa: E402
from advisor.cost import weights  # noqa: E402
from advisor.registry.beside import num_biases  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import methods  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training.longest import LongestFirst  # noqa: E402
from tui.main import run as advisor_here  # noqa: E402

IDS = torch.arange(3, 19)[None]
NEW_TOKENS = 'new_tokens = ["<lamp>"]\n[data]'
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name -> folder: Qwen2 tied and not, and GPT-NeoX, whose norms and linears have biases."""
    found = {}
    for name, family, more in (
        ("tied", "qwen2", {"tie_word_embeddings": True}),
        ("untied", "qwen2", {"tie_word_embeddings": False}),
        ("layer norms", "gpt_neox", {"num_key_value_heads": 4}),
    ):
        found[name] = tmp_path_factory.mktemp("base") / family
        tiny_families.save(family, found[name], **more)
    return found


def prepared(folder, settings, precision="fp32", **values):
    plan = Case("lora", settings).plan(seq_len=16, precision=precision, **values)
    return methods.prepare(plan, folder, 0), plan


def trained(model):
    """Name -> weight of what trains and is no adapter."""
    named = model.named_parameters()
    return {n: p for n, p in named if p.requires_grad and "lora_" not in n}


@pytest.mark.parametrize(
    ("name", "whole", "wanted"),
    [
        ("tied", ("embed_tokens",), {EMBEDDING}),
        ("tied", ("lm_head",), {EMBEDDING}),
        ("tied", ("embed_tokens", "lm_head"), {EMBEDDING}),
        ("untied", ("embed_tokens",), {EMBEDDING}),
        ("untied", ("lm_head",), {HEAD}),
        ("untied", ("embed_tokens", "lm_head"), {EMBEDDING, HEAD}),
    ],
)
def test_the_library_is_handed_what_trains_whole(folders, name, whole, wanted):
    """By full names; a tied head stays one table with the embedding."""
    model, plan = prepared(folders[name], f"modules_to_save = {list(whole)}")
    config, base = model.peft_config["default"], model.get_base_model()

    assert set(config.modules_to_save) == wanted
    assert config.ensure_weight_tying is (name == "tied")
    table, head = base.get_input_embeddings().weight, base.get_output_embeddings().weight
    assert (table is head) is (name == "tied")
    found = {
        n.split(".modules_to_save")[0].removeprefix("base_model.model.") for n in trained(model)
    }
    assert found == wanted
    facts = from_folder(folders[name])
    counted = weights.trained_params(facts, plan)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == counted


@pytest.mark.parametrize("name", ["tied", "untied", "layer norms"])
def test_all_norms_train_whole(folders, name):
    """As many weights as are counted; of layer norms the biases too."""
    model, plan = prepared(folders[name], 'modules_to_save = ["norms"]')

    found = trained(model)
    assert all("norm" in n for n in found)
    assert any(n.endswith("bias") for n in found) is (name == "layer norms")
    counted = weights.copied_params(from_folder(folders[name]), plan)
    assert sum(p.numel() for p in found.values()) == counted


@pytest.mark.parametrize("name", ["untied", "layer norms"])
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_train_as_they_lie_in_the_model(folders, name, bias):
    """All, or those of adapted linears; as many as are counted."""
    targets = '["q_proj"]' if name == "untied" else '["query_key_value"]'
    model, plan = prepared(folders[name], f'bias = "{bias}"\ntargets = {targets}')

    assert model.peft_config["default"].bias == bias
    found = trained(model)
    assert found
    assert all(n.endswith(".bias") for n in found)
    of_adapted = {n for n in found if "base_layer" in n}
    assert bool(found.keys() - of_adapted) is (bias == "all")
    if name == "untied" or bias == "all":  # what is adapted goes by Llama's names
        facts = from_folder(folders[name])
        counted = num_biases(facts, bias, weights.matrices(facts, plan))
        assert sum(p.numel() for p in found.values()) == counted


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tied", 'modules_to_save = ["lm_head", "norms"]'),
        ("untied", 'modules_to_save = ["embed_tokens", "lm_head"]\nbias = "all"'),
        ("untied", 'bias = "lora_only"\ntargets = ["v_proj"]'),
    ],
)
def test_what_is_published_is_what_was_trained(folders, tmp_path, name, settings):
    """With PEFT alone on the untouched base, through logits and through the head in tiles."""
    model, plan = prepared(folders[name], settings)
    add_fused_lm_head(model.get_base_model())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
        before = AutoModelForCausalLM.from_pretrained(folders[name]).eval()
        model.eval().save_pretrained(tmp_path)
        methods.publish(model, plan, tmp_path)
        wanted = model(input_ids=IDS, labels=IDS)
        tiles = model(input_ids=IDS, labels=IDS, fused_lm_head=True)
        plain = before(input_ids=IDS).logits
        again = PeftModel.from_pretrained(before, tmp_path).eval()(input_ids=IDS).logits

    assert (again - wanted.logits).abs().max() < 1e-5
    assert (plain - wanted.logits).abs().max() > 1e-2
    assert float(tiles.loss) == pytest.approx(float(wanted.loss), abs=1e-5)
    size = sum(t.nbytes for t in load_file(tmp_path / "adapter_model.safetensors").values())
    assert size == storage.published_bytes(from_folder(folders[name]), plan)


def test_a_copy_of_the_embedding_leaves_the_layers_in_their_type(folders):
    """It trains in fp32, and would make the residual stream of all layers as wide."""
    model, _ = prepared(folders["tied"], 'modules_to_save = ["embed_tokens"]', precision="bf16")
    seen = []
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=IDS)

    assert {p.dtype for p in trained(model).values()} == {torch.float32}
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(
    ("settings", "what", "mend"),
    [
        ("method.modules_to_save=['wte']", "is none of embed_tokens", "method.modules_to_save=[]"),
        ("method.bias=all", "no biases", "method.bias=none"),
        ("method.modules_to_save=['lm_head']", "has another name", "method.modules_to_save=[]"),
    ],
)
def test_what_a_model_has_not_is_refused(tmp_path, capsys, settings, what, mend):
    """Before the start, with a change that works."""
    if "another name" in what:
        tiny_families.save("gpt_neox", tmp_path / "model", tie_word_embeddings=True)
    else:
        small_model(tmp_path / "model", config=CONFIG | {"tie_word_embeddings": True})
    file = tmp_path / "r.toml"
    file.write_text(recipe_text())
    check = ["recipe", "check", str(file), "--set", settings]

    assert advisor_here(check) == 78
    assert what in " ".join(capsys.readouterr().err.split())
    assert advisor_here([*check, "--set", mend]) == 0


class SeenError(Exception):
    """All that is to be looked at is there."""


def test_what_is_no_adapter_trains_in_fp32_beside_few_bits(tmp_path, monkeypatch):
    """In the trainer's own model, where steps that 16 bits would lose move a norm."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    base = tiny_families.save("mixtral", tmp_path / "base")
    rows = write_rows(tmp_path, instruction_rows(20, seed=1))
    settings = 'router = "trained"\ntargets = "attention"\nmodules_to_save = ["norms"]'
    run = real_runs.new_run(
        base, rows, method="qlora", adapter=settings, precision="bf16", steps=3, accumulation=1
    )
    text = run.recipe.read_text().replace("5e-3", "1e-4").replace("[data]", NEW_TOKENS)
    run.recipe.write_text(text)
    step, seen = RunSft.training_step, []

    def stepping(trainer, *given, **kw):
        seen.append({n: p.detach().clone() for n, p in trained(trainer.model).items()})
        if trainer.state.global_step == 2:  # the first step has a rate of nothing
            adapters = (p for n, p in trainer.model.named_parameters() if ".lora_" in n)
            seen.append({p.dtype for p in adapters})
            raise SeenError
        return step(trainer, *given, **kw)

    monkeypatch.setattr(RunSft, "training_step", stepping)
    monkeypatch.setattr(LongestFirst, "try_longest_batch", lambda _: None)
    with pytest.raises(SeenError):
        real_runs.attempt(run)

    before, _, after, narrow = seen
    for part in ("trainable_tokens_delta", "gate.modules_to_save", "norm.modules_to_save"):
        assert {p.dtype for n, p in after.items() if part in n} == {torch.float32}
    assert narrow == {torch.bfloat16}
    assert all(not torch.equal(p, before[n]) for n, p in after.items() if "norm" in n)
