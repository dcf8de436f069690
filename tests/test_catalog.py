"""The offline catalog: every line, every id, near names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiles.facts import Experts, Latent, Origin
from profiles.models import catalog
from profiles.models.dimensions import from_config
from profiles.models.parameters import active_params, count_params

LINES = [json.loads(line) for line in catalog._lines()]
SHAPES = {line["shape"]: line for line in LINES}
UNMODELLED = 25
"""Shapes with layers that the dimensions do not describe."""


def found(name: str):
    model = catalog.find(name)
    assert model is not None, name
    return model


def test_the_catalog_is_whole() -> None:
    """253 shapes, 584 ids, each once, each with sources."""
    assert (253, 584) == (len(LINES), len(catalog.ids()))
    assert len({name.lower() for name in catalog.ids()}) == len(catalog.ids())
    assert len(SHAPES) == len(LINES)
    assert all(line["sources"] for line in LINES)
    assert all(set(line.get("only", {})) <= set(line["ids"]) for line in LINES)


def test_counts_from_the_dimensions_are_the_catalog_s() -> None:
    """Where the dimensions describe all layers the arithmetic gives the total to the last digit."""
    equal, others = 0, 0
    for line in LINES:
        config = catalog._config(line, {})
        model = from_config(config, name=line["shape"], where="catalog")
        if model.unmodelled:
            others += 1
        else:
            assert line["params"] == model.num_params + line.get("vision", 0), line["shape"]
            equal += 1
    assert (253 - UNMODELLED, UNMODELLED) == (equal, others)


def test_every_id_is_found_under_its_own_name() -> None:
    """Case does not matter; count, tower and extras add up for every id."""
    for name in catalog.ids():
        model = found(name.upper())
        assert name == model.id
        assert count_params(model) == model.num_params
        assert (Origin.TABLE, None) == (model.params_origin, model.path)
        assert model.unmodelled or model.other_params < model.num_params / 1000


@pytest.mark.parametrize("line", [line for line in LINES if "active" in line])
def test_active_parameters_are_the_catalog_s(line: dict) -> None:
    """All but the routed experts that a token does not visit."""
    model = found(line["ids"][0])
    if not model.unmodelled:
        idle = line["params"] - line["active"]
        assert idle == model.num_params - active_params(model)


def test_a_bare_name_is_enough_if_only_one_has_it() -> None:
    """Without the half before the slash; two publishers of one name are no answer."""
    assert found("qwen2.5-7b-instruct").id == "Qwen/Qwen2.5-7B-Instruct"
    assert found(" GPT2 ").id == "openai-community/gpt2"
    assert catalog.find("Llama-3.2-1B-Instruct") is None
    assert catalog.find("no-such-model") is None
    assert catalog.find("") is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Llama-3.1-8B-instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen3 30b a3b", "Qwen/Qwen3-30B-A3B"),
        ("mistral 7b", "mistralai/Mistral-7B-v0.1"),
        ("meta-lama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("Qwen/Qwen2.5-7B-Instrct", "Qwen/Qwen2.5-7B-Instruct"),
        ("gemma3 4b", "google/gemma-3-4b-pt"),
        ("deepseek v3", "deepseek-ai/DeepSeek-V3"),
        ("gpt oss 20b", "openai/gpt-oss-20b"),
    ],
)
def test_a_misspelt_name_gets_the_one_that_was_meant(typed: str, meant: str) -> None:
    """The best suggestion is the first of three."""
    assert catalog.near(typed)[0] == meant
    assert len(catalog.near(typed)) == 3


def test_nonsense_gets_no_suggestion() -> None:
    """A name like nothing is like nothing."""
    assert catalog.near("zzzzzz") == ()


def test_experts_are_facts() -> None:
    """Mixtures of several families, by their published numbers."""
    mixture = found("Qwen/Qwen3-30B-A3B").experts
    assert mixture == Experts(num_experts=128, top_k=8, width=768, num_layers=48)
    shared = found("Qwen/Qwen1.5-MoE-A2.7B").experts
    assert shared
    assert (5632, True) == (shared.shared_width, shared.shared_gate)
    biased = found("openai/gpt-oss-20b").experts
    assert biased
    assert (32, 4, True, True) == (
        biased.num_experts,
        biased.top_k,
        biased.router_bias,
        biased.expert_bias,
    )
    maverick = found("meta-llama/Llama-4-Maverick-17B-128E")
    assert maverick.experts
    assert (24, 8192, 16384) == (
        maverick.experts.num_layers,
        maverick.experts.shared_width,
        maverick.intermediate_size,
    )
    assert found("mistralai/Mixtral-8x7B-v0.1").intermediate_size == 0


def test_latent_attention_is_a_fact() -> None:
    """DeepSeek's ranks; without a query rank in the small one."""
    large = Latent(query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    assert found("deepseek-ai/DeepSeek-V3").latent == large
    small = found("deepseek-ai/DeepSeek-V2-Lite")
    assert small.latent
    assert (None, 192) == (small.latent.query_rank, small.head_dim)


@pytest.mark.parametrize(
    ("name", "window", "num_layers"),
    [
        ("mistralai/Mistral-7B-v0.1", 4096, 32),
        ("mistralai/Mistral-7B-v0.3", None, 0),
        ("mistralai/Mistral-Small-3.1-24B-Base-2503", None, 0),
        ("google/gemma-2-9b", 4096, 21),
        ("google/gemma-3-27b-it", 1024, 52),
        ("openai/gpt-oss-20b", 128, 12),
        ("allenai/Olmo-3-1025-7B", 4096, 24),
        ("meta-llama/Llama-4-Scout-17B-16E", 8192, 36),
        ("Qwen/Qwen2.5-7B", None, 0),
        ("LGAI-EXAONE/EXAONE-4.0-1.2B", None, 0),
        ("microsoft/Phi-3-medium-4k-instruct", 2047, 40),
        ("microsoft/Phi-3-medium-128k-instruct", None, 0),
    ],
)
def test_windows_are_facts(name: str, window: int | None, num_layers: int) -> None:
    """Which layers see a window only, and how wide it is."""
    model = found(name)
    assert (window, num_layers) == (model.sliding_window, model.num_sliding_layers)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("Qwen/Qwen3-8B", {"qk_norm": "head"}),
        ("allenai/OLMo-2-1124-7B", {"qk_norm": "full"}),
        ("CohereForAI/aya-23-8B", {"norm": "layer_no_bias", "parallel": True}),
        ("allenai/OLMo-1B-hf", {"norm": "layer_bare", "tied_embeddings": True}),
        ("google/gemma-2-9b", {"norms_per_layer": 4}),
        ("microsoft/phi-2", {"gated_mlp": False, "head_bias": True, "parallel": True}),
        ("microsoft/phi-4", {"fused_qkv": True, "fused_gate_up": True}),
        ("openai-community/gpt2", {"num_positions": 1024, "fused_qkv": True, "norm": "layer"}),
        ("facebook/opt-125m", {"num_positions": 2050}),
        ("google/gemma-3-4b-it", {"model_type": "gemma3_text", "gated": True}),
        ("tiiuae/falcon-7b", {"num_kv_heads": 1, "norms_per_layer": 1}),
        ("internlm/internlm2-7b", {"model_type": "internlm2"}),
        ("zai-org/glm-4-9b", {"architecture": "ChatGLMModel", "attention_bias": True}),
    ],
)
def test_the_build_of_layers_is_a_fact(name: str, facts: dict) -> None:
    """Norms, biases, fused linears and positions of known models."""
    model = found(name)
    assert facts == {key: getattr(model, key) for key in facts}


def test_towers_are_counted_apart() -> None:
    """The text model's dimensions; the tower's weights are part of the total."""
    model = found("Qwen/Qwen2.5-VL-7B-Instruct")
    assert (3584, 28, 8_292_166_656) == (model.hidden_size, model.num_layers, model.num_params)
    assert model.vision_params == 8_292_166_656 - found("Qwen/Qwen2.5-7B").num_params


def test_what_is_not_modelled_is_said() -> None:
    """Hybrids keep the right total and say why the formulas do not hold."""
    model = found("Qwen/Qwen3-Next-80B-A3B-Instruct")
    assert model.num_params == 79_674_391_296
    assert model.unmodelled.startswith("36 of 48 layers use linear attention")
    assert found("ai21labs/Jamba-v0.1").unmodelled == "28 of 32 layers are Mamba"
    assert found("meta-llama/Llama-3.2-11B-Vision").unmodelled.startswith("8 of 40 layers")
    assert not found("ibm-granite/granite-4.0-micro").unmodelled


def test_an_id_s_own_facts_go_before_its_shape_s() -> None:
    """Fine-tunes with a few more words, a longer text, another licence."""
    hermes = [i for i in catalog.ids() if "Hermes" in i and "Mistral" in i]
    assert {32002} == {found(name).vocab_size for name in hermes}
    assert found("Qwen/Qwen2.5-Math-7B").max_positions == 4096
    assert found("Qwen/Qwen2.5-7B").max_positions == 131072


def test_a_configuration_to_build_from() -> None:
    """A stand-in's where a repository brings its own code, None where there is no class."""
    assert catalog.config_of("no-such-model") is None
    assert catalog.config_of("inclusionAI/Ling-mini-2.0") is None
    config = catalog.config_of("internlm/internlm2-7b")
    assert config
    assert (["LlamaForCausalLM"], "llama") == (config["architectures"], config["model_type"])
    fine_tune = next(i for i in catalog.ids() if found(i).vocab_size == 32002)
    assert (catalog.config_of(fine_tune) or {})["vocab_size"] == 32002


@pytest.mark.parametrize(
    "name",
    [
        "google/gemma-3-4b-it",
        "deepseek-ai/DeepSeek-V2-Lite",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "openai/gpt-oss-120b",
        "internlm/internlm2-7b",
    ],
)
def test_built_models_have_the_catalog_s_count(name: str) -> None:
    """What `config_of` gives builds, and has as many parameters as the catalog says."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = catalog.config_of(name)
    assert config
    kind = "AutoModelForImageTextToText" if "vision_config" in config else "AutoModelForCausalLM"
    with torch.device("meta"):
        real = transformers.AutoConfig.for_model(**config)
        built = getattr(transformers, kind).from_config(real)
    assert sum(weights.numel() for weights in built.parameters()) == found(name).num_params


def test_the_catalog_is_light() -> None:
    """Finding a model loads neither torch nor the hub client."""
    code = (
        "import sys; from profiles.models import catalog; catalog.find('gpt2'); "
        "print(sorted({'torch', 'huggingface_hub', 'difflib', 'pydantic'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]"
