"""A dense model upcycled: the mixture predicts the same, loads elsewhere, trains, is made again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from advisor.choice.upcycle import upcycled  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from runner.checks import replay  # noqa: E402
from runner.upcycling.making import Asked, made_of, make, prepare  # noqa: E402
from tui.commands import upcycle as command  # noqa: E402

SIZES = {
    "vocab_size": 301,
    "hidden_size": 72,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
WINDOWS = {"use_sliding_window": True, "sliding_window": 5}
CASES = {
    "llama, scaled positions": (
        "llama",
        {"tie_word_embeddings": True, "head_dim": 20, "rope_parameters": LLAMA3},
    ),
    "mistral, window": ("mistral", {"sliding_window": 7, "head_dim": 20, "rms_norm_eps": 0.1}),
    "qwen2, late windows": ("qwen2", WINDOWS | {"max_window_layers": 1}),
    "qwen3, biases": ("qwen3", {"head_dim": 14, "attention_bias": True, "hidden_act": "gelu"}),
}
REST = {
    "llama": ("llama", {"rms_norm_eps": 0.1}),
    "mistral, no window": ("mistral", {"sliding_window": None, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 14}),
    "qwen3, windows": (
        "qwen3",
        WINDOWS | {"max_window_layers": 0, "head_dim": 14, "tie_word_embeddings": True},
    ),
}
ALL = CASES | REST
NAMES = [*CASES, *(pytest.param(name, marks=pytest.mark.long) for name in REST)]
IDS = torch.arange(2 * 40).reshape(2, 40) * 7 % 297 + 3
RELOAD = """
import sys, torch
from transformers import AutoModelForCausalLM
ids = torch.arange(2 * 40).reshape(2, 40) * 7 % 297 + 3
with torch.no_grad():
    found = {
        folder: AutoModelForCausalLM.from_pretrained(folder, dtype="float32")(input_ids=ids).logits
        for folder in sys.argv[2:]
    }
torch.save(found, sys.argv[1])
"""


def silent(_done, _whole):
    """Nobody looks."""


def dense(family, folder, dtype=torch.float32, **changes):
    """A model with weights, norms and biases that all matter; saved, and its logits."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SIZES | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 0.5)
    model.save_pretrained(folder)
    return logits(model)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def upcycle(folder, final, **asked):
    """Make it; what was planned."""
    found = prepare(folder, Asked(**asked))
    make(found, final, told=silent)
    return found


def difference(found, wanted):
    """Relative to the largest logit."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_a_mixture_predicts_what_its_dense_model_predicts(tmp_path, name):
    """Whichever experts are chosen; no weight is missing, and none is too many."""
    family, changes = ALL[name]
    wanted = dense(family, tmp_path / "dense", **changes)

    found = upcycle(tmp_path / "dense", tmp_path / "moe", experts=5, top_k=3)
    model, told = AutoModelForCausalLM.from_pretrained(
        tmp_path / "moe", dtype=torch.float32, output_loading_info=True
    )

    assert difference(logits(model.eval()), wanted) < 1e-5
    assert not any(told.values())
    assert model.config.num_experts_per_tok == 3
    assert {len(w) for n, w in model.named_parameters() if ".experts." in n} == {5}
    assert found.mixture.num_params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "family", ["mistral", *(pytest.param(f, marks=pytest.mark.long) for f in ("llama", "qwen2"))]
)
def test_what_config_json_leaves_out_is_what_the_dense_class_takes(tmp_path, family):
    """Not what the mixture's does: other rotary bases, windows, epsilons and end marks."""
    dense(family, tmp_path / "dense")
    path = tmp_path / "dense" / "config.json"
    said = json.loads(path.read_text())
    kept = {key: said[key] for key in (*SIZES, "model_type", "architectures")}
    path.write_text(json.dumps(kept))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)

    upcycle(tmp_path / "dense", tmp_path / "moe")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "moe", dtype=torch.float32)

    assert difference(logits(found), logits(model)) < 1e-5
    same = ("sliding_window", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id")
    for key in (*same, "hidden_act", "initializer_range", "max_position_embeddings", "use_cache"):
        wanted = getattr(model.config, key, None)
        assert (getattr(found.config, key) or None) == (wanted or None), key


@pytest.mark.parametrize("name", NAMES)
def test_what_is_planned_with_is_what_is_made(tmp_path, name):
    """The recommendation's facts of a mixture, and those of the folder."""
    family, changes = ALL[name]
    dense(family, tmp_path / "dense", **changes)
    upcycle(tmp_path / "dense", tmp_path / "moe", experts=4, top_k=2)

    wanted = upcycled(from_folder(tmp_path / "dense"), 4, 2)
    found = from_folder(tmp_path / "moe")

    for field in ("experts", "num_params", "intermediate_size", "sliding_window", "head_dim"):
        assert getattr(found, field) == getattr(wanted, field), field
    for field in ("architecture", "model_type", "tied_embeddings", "attention_bias", "dtype"):
        assert getattr(found, field) == getattr(wanted, field), field


@pytest.mark.long
def test_another_process_loads_it_with_transformers_alone(tmp_path):
    """And predicts the same."""
    wanted = {}
    for name, (family, changes) in ALL.items():
        wanted[str(tmp_path / name)] = dense(family, tmp_path / f"dense {name}", **changes)
        upcycle(tmp_path / f"dense {name}", tmp_path / name)
    answers = tmp_path / "answers.pt"

    line = [sys.executable, "-I", "-c", RELOAD, str(answers), *wanted]
    subprocess.run(line, check=True, timeout=300)

    found = torch.load(answers)
    assert all(difference(found[name], wanted[name]) < 1e-5 for name in wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_experts_and_router_are_of_the_dense_model_s_type(tmp_path, dtype):
    """Copies to the last bit; the router's numbers are those of fp32, rounded."""
    dense("mistral", tmp_path / "dense", dtype)
    dense("mistral", tmp_path / "exact")
    for name in ("dense", "exact"):
        upcycle(tmp_path / name, tmp_path / f"moe {name}", experts=3, seed=7)
    before = load_file(tmp_path / "dense" / "model.safetensors")
    found = load_file(tmp_path / "moe dense" / "model.safetensors")
    exact = load_file(tmp_path / "moe exact" / "model.safetensors")

    gate, router = "model.layers.1.mlp.gate_proj.weight", "block_sparse_moe.gate.weight"
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    for number in range(3):
        copy = found[f"model.layers.1.block_sparse_moe.experts.{number}.w1.weight"]
        assert torch.equal(copy, before[gate])
    for layer in range(3):
        drawn = exact[f"model.layers.{layer}.{router}"]
        assert torch.equal(found[f"model.layers.{layer}.{router}"], drawn.to(dtype))
        assert 0.015 < drawn.std() < 0.025


def test_routers_differ_by_layer_and_seed_and_are_the_same_again(tmp_path):
    """So that a folder can be made again, to the last byte."""
    dense("llama", tmp_path / "dense")
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        upcycle(tmp_path / "dense", tmp_path / name, seed=seed)

    def routers(name):
        weights = load_file(tmp_path / name / "model.safetensors")
        return [tensor for key, tensor in sorted(weights.items()) if "moe.gate" in key]

    assert not any(torch.equal(a, b) for a, b in zip(routers("a"), routers("b"), strict=True))
    assert not torch.equal(*routers("a")[:2])
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_model_in_several_files_becomes_a_mixture_in_several(tmp_path, monkeypatch):
    """With an index of every tensor; old buffers and layers that nobody loads stay behind."""
    wanted = dense("llama", tmp_path / "dense")
    weights = load_file(tmp_path / "dense" / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, those in shards.items():
        save_file({name: weights[name] for name in those}, tmp_path / "dense" / file)
    (tmp_path / "dense" / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, those in shards.items() for name in those}}
    (tmp_path / "dense" / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr("runner.upcycling.making.SHARD_BYTES", 200_000)

    found = upcycle(tmp_path / "dense", tmp_path / "moe", experts=3)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "moe", dtype=torch.float32)

    files = sorted((tmp_path / "moe").glob("*.safetensors"))
    assert len(files) > 3
    assert all(file.stat().st_size < 210_000 for file in files)
    assert difference(logits(model), wanted) < 1e-5
    listed = read_json(tmp_path / "moe" / "model.safetensors.index.json")
    assert not any("inv_freq" in name for name in listed["weight_map"])
    assert listed["metadata"]["total_size"] == found.num_bytes


def test_what_is_beside_the_weights_goes_along(tmp_path):
    """Tokenizer, templates and licence; no code, no pickle, nothing of the person's own."""
    dense("llama", tmp_path / "dense")
    tiny_families.tokenizer().save_pretrained(tmp_path / "dense")
    for name in ("LICENSE.txt", "modeling_x.py", "training_args.bin", "notes.txt"):
        (tmp_path / "dense" / name).write_text(name)
    (tmp_path / "dense" / "additional_chat_templates").mkdir()
    (tmp_path / "dense" / "additional_chat_templates" / "rag.jinja").write_text("{{ x }}")

    before = os.umask(0o027)
    try:
        upcycle(tmp_path / "dense", tmp_path / "moe")
    finally:
        os.umask(before)

    names = {path.name for path in (tmp_path / "moe").iterdir()}
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "moe").rglob("*.*")}
    assert names == {
        *("config.json", "model.safetensors", "upcycling.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE.txt"),
        "additional_chat_templates",
    }
    assert (tmp_path / "moe" / "additional_chat_templates" / "rag.jinja").is_file()
    assert modes == {0o640}
    assert (tmp_path / "moe").stat().st_mode & 0o777 == 0o750


@pytest.mark.slow
def test_it_trains_and_its_recipe_replays(tmp_path, orders):
    """On the same folder, and on one that was made again as its mark says."""
    tiny_families.save("qwen2", tmp_path / "dense", hidden_size=48)
    upcycle(tmp_path / "dense", tmp_path / "moe", experts=4, seed=3)
    first = real_runs.new_run(tmp_path / "moe", orders, method="full", steps=6)
    real_runs.attempt(first)

    told = made_of(tmp_path / "moe")
    shutil.rmtree(tmp_path / "moe")
    again = {key: told[key] for key in ("experts", "top_k", "aux_loss", "seed")}
    upcycle(tmp_path / told["base"], tmp_path / "moe", **again)
    second = real_runs.new_run(tmp_path / "moe", orders, method="full", steps=6)
    real_runs.attempt(second)

    losses = list(real_runs.losses(first).values())
    assert losses[-1] < losses[0] - 0.5
    assert list(real_runs.losses(second).values()) == losses
    locks = [read_json(run.recipe_lock) for run in (first, second)]
    assert not replay.changes(*locks)
    model = AutoModelForCausalLM.from_pretrained(second.model)
    with pytest.raises(UserError, match="cannot be upcycled"):  # it is read, and no dense one
        command.upcycle(f"run:{second.end}", Asked(), "x", force=False, as_json=False)
    experts = model.model.layers[1].mlp.experts.down_proj
    assert not torch.equal(experts[0], experts[1])  # training made them differ


@pytest.mark.long
def test_memory_does_not_grow_with_the_model(tmp_path):
    """A model of 350 MB becomes one of 1.2 GB within 64 MiB more than the process had."""
    sizes = {"vocab_size": 1000, "hidden_size": 1024, "intermediate_size": 8192}
    zeros(tmp_path / "dense", **sizes, num_attention_heads=8, num_key_value_heads=4)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from runner.upcycling.making import Asked, make, prepare\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "found = prepare(Path(sys.argv[1]), Asked(experts=4)); before = peak()\n"
        "make(found, Path(sys.argv[2]), told=lambda *_: None); print(before, peak())\n"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "dense"), str(tmp_path / "moe")]
    told = subprocess.run(line, check=True, capture_output=True, text=True, timeout=300)
    before, peak = map(int, told.stdout.split())

    size = (tmp_path / "moe" / "model.safetensors").stat().st_size
    assert size > 1_000_000_000
    assert peak - before < 64 * 1024


def zeros(folder, **sizes):
    """Zeros in place of weights, and bytes that no disk holds."""
    config = AutoConfig.for_model("llama", **SIZES | sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {name: torch.zeros(1).expand(w.shape) for name, w in model.state_dict().items()}
    folder.mkdir()
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    save_file(
        {name: zero.contiguous() for name, zero in weights.items()}, folder / "model.safetensors"
    )
