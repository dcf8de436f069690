"""Behaviour of reading a model from a local folder."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiles.errors import ExitCode, UserError
from profiles.facts import Model, Origin
from profiles.models import catalog
from profiles.models.model import from_folder, near_folders
from profiles.models.parameters import active_params, count_params

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def folder_with(tmp_path: Path, config: object, name: str = "model") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    return folder


def write_tensors(path: Path, shapes: dict[str, list[int]], dtype: str = "BF16") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def refusal(path: Path | str) -> UserError:
    with pytest.raises(UserError) as caught:
        from_folder(path)
    return caught.value


def test_dimensions_come_from_config_and_parameters_are_predicted_without_weights(
    tmp_path: Path,
) -> None:
    """A folder with only config.json gives its dimensions and a predicted parameter count."""
    model = from_folder(folder_with(tmp_path, LLAMA))
    found = (model.hidden_size, model.num_layers, model.num_heads, model.num_kv_heads)
    assert found == (64, 3, 4, 2)
    assert model.head_dim == 16
    assert Origin.PREDICTED is model.params_origin
    assert count_params(model) == model.num_params
    assert model.weight_bytes is None
    assert model.has_chat_template is None


def test_parameters_are_measured_from_the_header(tmp_path: Path) -> None:
    """Headers give the count; a head stored beside a tied embedding counts once."""
    folder = folder_with(tmp_path, {**LLAMA, "tie_word_embeddings": True, "torch_dtype": None})
    tensors = {"model.embed_tokens.weight": [500, 64], "lm_head.weight": [500, 64], "x": [7]}
    write_tensors(folder / "model.safetensors", tensors, dtype="F16")
    model = from_folder(folder)
    assert model.num_params == 500 * 64 + 7
    assert Origin.MEASURED is model.params_origin
    assert (folder / "model.safetensors").stat().st_size == model.weight_bytes
    assert model.dtype == "float16"


def test_shards_are_summed_by_the_index(tmp_path: Path) -> None:
    """All files of the index count; files beside it do not."""
    folder = folder_with(tmp_path, LLAMA)
    for number in (1, 2):
        write_tensors(folder / f"m-{number}.safetensors", {f"w{number}": [10, number]})
    write_tensors(folder / "other.safetensors", {"w3": [1000]})
    index = {"weight_map": {"w1": "m-1.safetensors", "w2": "m-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert from_folder(folder).num_params == 30
    (folder / "m-2.safetensors").unlink()
    error = refusal(folder)
    assert error.code is ExitCode.NO_INPUT
    assert "m-2.safetensors" in error.why


def test_a_shard_that_is_cut_off_is_named_with_both_sizes(tmp_path: Path) -> None:
    """A download that stopped: the header is whole, the weights are not."""
    header = {"model.norm.weight": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(400)
    folder = folder_with(tmp_path, LLAMA)
    (folder / "model.safetensors").write_bytes(whole[:-1])
    error = refusal(folder)
    assert error.code is ExitCode.BAD_DATA
    said = f"model.safetensors is cut off: it has {len(whole) - 1} of {len(whole)} bytes"
    assert said == error.what
    (folder / "model.safetensors").write_bytes(whole)
    assert from_folder(folder).num_params == 100


def test_index_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    """A weight map that names a path is bad data."""
    folder = folder_with(tmp_path, LLAMA)
    index = {"weight_map": {"w": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(folder).code is ExitCode.BAD_DATA


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 4) + b"[1]]",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 19) + b'{"w":{"shape":[-1]}',
    ],
)
def test_torn_weights_are_told(tmp_path: Path, content: bytes) -> None:
    """A file whose header is cut, huge or no object is bad data, named by its path."""
    folder = folder_with(tmp_path, LLAMA)
    (folder / "model.safetensors").write_bytes(content)
    error = refusal(folder)
    assert error.code is ExitCode.BAD_DATA
    assert error.where.endswith("model.safetensors")


@pytest.mark.parametrize(
    "extra",
    [
        {"auto_map": {"AutoConfig": "x.Y"}, "model_type": "unheard_of"},
        {"auto_map": "x.Y"},
        {"deep": [{"auto_map": None}]},
        {"rope_scaling": {"a": {"_attn_implementation_internal": "org/kernel"}}},
        {"trust_remote_code": True},
        {"attn_implementation": "org/kernel"},
        {"model_type": "llama\nimport os"},
        {"model_type": "../llama"},
        {"model_type": ["llama"]},
    ],
)
def test_keys_that_run_code_are_refused(tmp_path: Path, extra: dict[str, Any]) -> None:
    """Remote code, at any depth, is refused before anything else looks at the configuration."""
    error = refusal(folder_with(tmp_path, {**LLAMA, **extra}))
    assert error.code is ExitCode.REFUSED
    assert error.where.endswith("config.json")


def test_pickle_weights_alone_are_refused(tmp_path: Path) -> None:
    """Pickle files without safetensors are refused; beside safetensors they are ignored."""
    folder = folder_with(tmp_path, LLAMA)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    error = refusal(folder)
    assert error.code is ExitCode.REFUSED
    assert "safetensors" in error.do
    write_tensors(folder / "model.safetensors", {"w": [5]})
    assert from_folder(folder).num_params == 5


def test_missing_folder_offers_near_names(tmp_path: Path) -> None:
    """A misspelt folder gets the names of its neighbours."""
    folder_with(tmp_path, LLAMA, name="llama-3-8b")
    error = refusal(tmp_path / "lama-3-8b")
    assert error.code is ExitCode.NO_INPUT
    assert "llama-3-8b" in error.why


def test_hub_id_is_told_how_to_download() -> None:
    """Something like a hub id gets the command that makes it a local folder."""
    error = refusal("some-org/Some-Model-8B")
    assert error.code is ExitCode.NO_INPUT
    assert "hf download some-org/Some-Model-8B --local-dir Some-Model-8B" in error.do


def test_torn_config_is_located(tmp_path: Path) -> None:
    """Broken JSON is reported with path, line and column."""
    error = refusal(folder_with(tmp_path, '{\n "model_type": "llama",\n'))
    assert error.code is ExitCode.BAD_DATA
    assert error.where.endswith("config.json:3:1")


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '"x"'])
def test_config_must_be_an_object(tmp_path: Path, text: str) -> None:
    """Anything but a JSON object is bad data, however deep."""
    assert refusal(folder_with(tmp_path, text)).code is ExitCode.BAD_DATA


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", None),
        ("hidden_size", 0),
        ("hidden_size", "64"),
        ("num_hidden_layers", 10**6),
        ("vocab_size", True),
        ("num_key_value_heads", 3),
    ],
)
def test_absurd_dimensions_are_told(tmp_path: Path, key: str, value: object) -> None:
    """A missing, wrong or impossible dimension is bad data."""
    assert refusal(folder_with(tmp_path, {**LLAMA, key: value})).code is ExitCode.BAD_DATA


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_type": "mamba"}, "not a family known here"),
        ({"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 5}, "per_tok"),
        ({"model_type": "deepseek_v3", "v_head_dim": 0}, "v_head_dim"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, extra: dict[str, Any], word: str) -> None:
    """Another kind of model, or a mixture whose numbers cannot be, is told by its name."""
    error = refusal(folder_with(tmp_path, {**LLAMA, **extra}))
    assert error.code is ExitCode.BAD_DATA
    assert word in error.what


@pytest.mark.parametrize(
    ("name", "method", "original"),
    [
        ("Llama-3.1-8B-GPTQ-Int4", "gptq", "use the original: meta-llama/Llama-3.1-8B"),
        ("Qwen3-8B-AWQ", "awq", "use the original: Qwen/Qwen3-8B"),
        ("gpt-oss-20b", "mxfp4", "use a copy in bfloat16: unsloth/gpt-oss-20b-BF16"),
        ("my-own-4bit", "bitsandbytes", "the weights it was made from"),
    ],
)
def test_quantized_weights_name_their_original(
    tmp_path: Path, name: str, method: str, original: str
) -> None:
    """Training starts from 16-bit weights; the catalog often knows which."""
    config = {**LLAMA, "quantization_config": {"quant_method": method}}
    error = refusal(folder_with(tmp_path, config, name))
    assert f"already quantized ({method})" in error.what
    assert original in error.do


def test_experts_are_read(tmp_path: Path) -> None:
    """A mixture's facts come from config.json, and its count from all experts."""
    mixture = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
    model = from_folder(folder_with(tmp_path, {**LLAMA, **mixture}))
    assert model.experts
    assert (4, 2, 160, 3) == (
        model.experts.num_experts,
        model.experts.top_k,
        model.experts.width,
        model.experts.num_layers,
    )
    assert model.num_params == count_params(model)
    assert active_params(model) == model.num_params - 3 * 2 * 3 * 64 * 160


WRAPPED: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {**LLAMA, "model_type": "gemma3_text", "tie_word_embeddings": True},
    "vision_config": {"hidden_size": 8},
}


def test_a_tower_is_measured_and_the_text_model_described(tmp_path: Path) -> None:
    """Names outside the language model are the tower; stored frequencies are no weights."""
    folder = folder_with(tmp_path, WRAPPED)
    write_tensors(
        folder / "model.safetensors",
        {
            "model.language_model.embed_tokens.weight": [500, 64],
            "model.language_model.layers.0.self_attn.rotary_emb.inv_freq": [8],
            "model.vision_tower.encoder.layers.9.weight": [10, 10],
            "model.multi_modal_projector.weight": [5],
            "lm_head.weight": [500, 64],
        },
    )
    model = from_folder(folder)
    assert (105, 500 * 64 + 105) == (model.vision_params, model.num_params)
    assert ("gemma3_text", 64, 3) == (model.model_type, model.hidden_size, model.num_layers)
    assert model.architecture == "Gemma3ForConditionalGeneration"


def test_flat_wrappers_are_known_by_their_first_names(tmp_path: Path) -> None:
    """Qwen2-VL's files have the text model where a model of text alone has it."""
    config = {**LLAMA, "architectures": [], "model_type": "qwen2_vl", "vision_config": {}}
    folder = folder_with(tmp_path, config)
    names = {
        "model.embed_tokens.weight": [500, 64],
        "visual.blocks.0.weight": [7],
        "lm_head.b": [1],
    }
    write_tensors(folder / "model.safetensors", names)
    model = from_folder(folder)
    assert (7, 500 * 64 + 8) == (model.vision_params, model.num_params)
    assert ("qwen2_vl_text", True) == (model.model_type, model.attention_bias)


def test_without_weights_the_catalog_s_like_gives_the_total(tmp_path: Path) -> None:
    """A tower's size stands in no config.json; another model of these dimensions has it."""
    for name in ("google/gemma-3-4b-it", "Qwen/Qwen3-Next-80B-A3B-Instruct"):
        known = catalog.find(name)
        folder = folder_with(tmp_path, catalog.config_of(name), name.replace("/", "-"))
        model = from_folder(folder)
        assert known
        assert known.num_params == model.num_params == count_params(model)
        assert (known.vision_params, Origin.TABLE) == (model.vision_params, model.params_origin)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (WRAPPED, "towers"),
        ({**LLAMA, "model_type": "lfm2", "layer_types": ["conv"] * 3}, "3 of 3 layers are short"),
    ],
)
def test_what_cannot_be_counted_is_refused_without_weights(
    tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    """No number is better than one that is made up."""
    error = refusal(folder_with(tmp_path, config))
    assert why in error.why
    assert "safetensors" in error.do


def test_hybrids_are_measured(tmp_path: Path) -> None:
    """With weights the total is right, and the rest is told apart."""
    folder = folder_with(tmp_path, {**LLAMA, "model_type": "lfm2", "layer_types": ["conv"] * 3})
    write_tensors(folder / "model.safetensors", {"w": [1_000_000]})
    model = from_folder(folder)
    assert model.num_params == count_params(model) == 1_000_000
    assert model.other_params != 0
    assert model.unmodelled


def test_chat_template_is_found(tmp_path: Path) -> None:
    """A template counts from its own file or from the tokenizer's configuration."""
    folder = folder_with(tmp_path, LLAMA)
    (folder / "tokenizer_config.json").write_text("{}")
    assert from_folder(folder).has_chat_template is False
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
    assert from_folder(folder).has_chat_template is True
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_text("{{ x }}")
    assert from_folder(folder).has_chat_template is True


def test_published_counts_are_reproduced(tmp_path: Path) -> None:
    """Llama-3-8B has 8 030 261 248 parameters."""
    model = from_folder(folder_with(tmp_path, LLAMA))
    llama_3_8b: Model = replace(
        model,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=14336,
        vocab_size=128256,
    )
    assert count_params(llama_3_8b) == 8_030_261_248


def test_import_is_light() -> None:
    """Importing the module loads neither torch nor the hub client."""
    code = (
        "import sys, profiles.models.model; "
        "print(sorted({'torch','huggingface_hub'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("has_model", [True, False])
def test_what_is_no_folder_is_advised_on_with_a_folder_that_holds_a_model(tmp_path, has_model):
    """A pipe, here; neither it nor an empty folder of a name like it helps anybody."""
    os.mkfifo(tmp_path / "llama")
    (tmp_path / "llama2").mkdir()
    if has_model:
        (tmp_path / "config.json").write_text("{}")

    with pytest.raises(UserError, match="no model folder") as caught:
        from_folder(tmp_path / "llama")

    assert caught.value.why == "it is no folder"
    wanted = f"give the folder that holds it: {tmp_path}"
    assert caught.value.do == (wanted if has_model else "give a folder that holds config.json")


def test_an_empty_folder_is_near_to_no_model(tmp_path):
    """Whoever follows the advice finds a model there."""
    (tmp_path / "llama2").mkdir()
    assert near_folders(tmp_path / "llama") == []

    (tmp_path / "llama2" / "config.json").write_text("{}")
    assert near_folders(tmp_path / "llama") == ["llama2"]
