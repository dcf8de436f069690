"""What a model cannot read is told before the start: long rows, tokens, tables, adapters."""

from __future__ import annotations

import json
import struct

import pytest
from small_model import CONFIG, recipe_text, small_model
from tokenizers import AddedToken, Tokenizer
from tokenizers.pre_tokenizers import WhitespaceSplit

from profiles.errors import ExitCode, UserError
from profiles.models import model
from runner.checks import chat_templates
from tui.main import run as advisor_here

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "vocab_size": 500,
}
OPT = {
    "model_type": "opt",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 96,
    "word_embed_proj_dim": 64,
    "max_position_embeddings": 512,
    "vocab_size": 500,
}
GPTJ = {
    "model_type": "gptj",
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 512,
    "rotary_dim": 8,
    "vocab_size": 500,
}
MPT = {
    "model_type": "mpt",
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 2,
    "max_seq_len": 512,
    "vocab_size": 500,
}
BOUNDED = {"gpt2": GPT2, "opt": OPT, "gptj": GPTJ, "mpt": MPT}


def write_tables(folder, **shapes):
    """Weights of these names and shapes, without the weights."""
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        for name, shape in shapes.items()
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe of a model and a longest row; returns its path."""
    rows = [{"prompt": "a", "completion": "a a"}] * 8
    (tmp_path / "rows.json").write_text(json.dumps(rows))

    def write(folder, max_length):
        path = tmp_path / "r.toml"
        text = recipe_text(model=str(folder), train=str(tmp_path / "rows.json"))
        path.write_text(text.replace("[method]", f"max_length = {max_length}\n[method]"))
        return path

    return write


@pytest.mark.parametrize("config", BOUNDED.values(), ids=BOUNDED)
def test_rows_longer_than_the_table_of_positions_are_refused(tmp_path, recipe, config, capsys):
    """Before the start, by the check of a recipe too; and the advice works."""
    folder = small_model(tmp_path / "m", config=config)
    path = str(recipe(folder, 513))

    assert advisor_here(["run", path, "--dry-run"]) == ExitCode.BAD_RECIPE
    assert advisor_here(["recipe", "check", path]) == ExitCode.BAD_RECIPE
    assert "--set data.max_length=512" in capsys.readouterr().err
    assert advisor_here(["run", path, "--dry-run", "--set", "data.max_length=512"]) == 0


def test_rotary_positions_have_no_end(tmp_path, recipe):
    """They are read badly at most."""
    folder = small_model(tmp_path / "m")

    assert advisor_here(["run", str(recipe(folder, 257)), "--dry-run"]) == 0


@pytest.mark.parametrize("config", BOUNDED.values(), ids=BOUNDED)
def test_no_more_is_recommended_than_the_model_reads(tmp_path, config, capsys):
    """Of rows that are longer it says that they are cut."""
    folder = small_model(tmp_path / "m", config=config)
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    rows = [{"prompt": "a " * 900, "completion": "a " * 900}] * 40
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    asked = ["recommend", "--model", str(folder), "--data", str(tmp_path / "rows.json")]

    assert advisor_here([*asked, "--gpu", "RTX 4090", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["recommended"]["plan"]["seq_len"] == 512
    assert any("max_length 512" in warning for warning in found["warnings"])


MISFITS = {
    "words": (CONFIG, {"model.embed_tokens.weight": [498, 64]}),
    "positions": (GPT2, {"transformer.wpe.weight": [1024, 64]}),
    "positions without a prefix": (GPT2, {"wpe.weight": [511, 64]}),
    "positions of OPT": (OPT, {"model.decoder.embed_positions.weight": [512, 64]}),
}


@pytest.mark.parametrize(("config", "tables"), MISFITS.values(), ids=MISFITS)
def test_tables_that_config_json_does_not_describe_are_refused(tmp_path, config, tables):
    """The headers of the weight files have the last word."""
    folder = small_model(tmp_path / "m", config=config)
    write_tables(folder, **tables)

    with pytest.raises(UserError, match="do not fit its config") as caught:
        model.from_folder(folder)

    (rows, _width) = next(iter(tables.values()))
    assert caught.value.code is ExitCode.BAD_DATA
    assert str(rows) in caught.value.why


def test_tables_as_config_json_says_are_taken(tmp_path):
    """OPT's has two rows more than it reads."""
    folder = small_model(tmp_path / "m", config=OPT)
    tables = {"embed_tokens": [500, 64], "embed_positions": [514, 64]}
    write_tables(folder, **{f"model.decoder.{name}.weight": s for name, s in tables.items()})

    assert model.from_folder(folder).max_positions == 512


def add_tokens(folder, *tokens, special=False):
    """Make the folder's tokenizer larger: "a" and [UNK] are there."""
    file = str(folder / "tokenizer.json")
    words = Tokenizer.from_file(file)
    words.add_tokens([AddedToken(token, special=special) for token in tokens])
    words.save(file)


@pytest.mark.parametrize("special", [False, True])
def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path, recipe, special, capsys):
    """By everything that reads rows with it."""
    folder = small_model(tmp_path / "m", config=CONFIG | {"vocab_size": 3})
    path = recipe(folder, 64)
    checks = (
        ["run", str(path), "--dry-run"],
        ["recipe", "check", str(path)],
        ["data", "check", str(tmp_path / "rows.json"), "--model", str(folder)],
        ["recommend", "--model", str(folder), "--data", str(tmp_path / "rows.json")],
    )
    add_tokens(folder, "<x>", special=special)
    assert [advisor_here(command) for command in checks[:3]] == [0, 0, 0]

    add_tokens(folder, "<y>", "<z>", special=special)
    capsys.readouterr()

    assert {advisor_here(command) for command in checks} == {ExitCode.BAD_RECIPE}
    told = capsys.readouterr().err
    assert "'<y>', '<z>'" in told
    assert "resize_token_embeddings(5)" in told


def test_tokens_that_only_the_configuration_names_are_counted(tmp_path):
    """Transformers adds them when it loads the tokenizer."""
    folder = small_model(tmp_path / "m", config=CONFIG | {"vocab_size": 2})
    base = model.from_folder(folder)
    assert chat_templates.encoder(base) is not None
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))

    with pytest.raises(UserError, match="more tokens than the model has embeddings") as caught:
        chat_templates.encoder(base)

    assert "'[PAD]'" in caught.value.why


def test_stand_ins_for_pictures_need_no_embedding(tmp_path):
    """Gemma 3's models of text alone have the tokenizer of those that see."""
    folder = small_model(tmp_path / "m", config=CONFIG | {"vocab_size": 2})
    add_tokens(folder, "<image_soft_token>", special=True)

    assert chat_templates.encoder(model.from_folder(folder)) is not None


@pytest.mark.parametrize("named", ["org/Base-1B", None])
def test_an_adapter_is_no_model(tmp_path, recipe, named, capsys):
    """Its base is named."""
    folder = small_model(tmp_path / "adapter")
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": named}))

    codes = {
        advisor_here(["run", str(recipe(folder, 64)), "--dry-run"]),
        advisor_here(["recipe", "check", str(recipe(folder, 64))]),
        advisor_here(["recommend", "--model", str(folder)]),
        advisor_here(["model", "show", str(folder)]),
    }

    told = capsys.readouterr().err
    assert codes == {ExitCode.NO_INPUT}
    assert "adapter is an adapter, not a model" in told
    assert (named or "does not say of which model") in told


def test_a_type_that_transformers_cannot_load_is_refused_before_the_start(tmp_path, recipe, capsys):
    """It can be planned with all the same."""
    text = {key: value for key, value in CONFIG.items() if key != "architectures"}
    config = {"model_type": "llava", "text_config": text, "vocab_size": 500}
    folder = small_model(tmp_path / "m", config=config)

    assert advisor_here(["run", str(recipe(folder, 64)), "--dry-run"]) == ExitCode.BAD_RECIPE
    assert "with pictures only" in capsys.readouterr().err
    assert advisor_here(["recommend", "--model", str(folder), "--gpu", "RTX 4090", "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("but not trained here" in warning for warning in warnings)
