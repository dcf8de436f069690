"""A model folder that is read and never loaded: configuration, tokenizer, a header of weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def small_model(folder: Path, *, config: object = CONFIG, weights: bool = True) -> Path:
    """Write the folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    if weights:
        write_header(folder / "model.safetensors")
    return folder


def write_header(path: Path) -> None:
    """A safetensors file with one empty tensor."""
    header = {"w": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def recipe_text(*, model: str = "model", train: str = "rows.json", extra: str = "") -> str:
    """A sound recipe that names these inputs, in TOML's basic strings."""
    return (
        f'schema = 1\nname = "small"\n[model]\nid = {json.dumps(model)}\n'
        f'[data]\ntrain = {json.dumps(train)}\n[method]\nname = "lora"\n{extra}'
    )
