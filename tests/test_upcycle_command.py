"""`advisor upcycle`: what cannot be is refused before a byte is written; no folder is half."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from faulty_disk import Crash, Fault, FaultyDisk
from finished_run import finished_run

from profiles import user_files
from profiles.errors import ExitCode
from profiles.models.model import from_folder
from profiles.runs import durable
from runner.upcycling import making
from tui.main import run as advisor_here

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "tie_word_embeddings": True,
}
WINDOWS = {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 9}
SHAPES = {"gate_proj": [24, 16], "up_proj": [24, 16], "down_proj": [16, 24]}


def dense(folder, *, dtype="BF16", without="", also=(), **changes):
    """A model folder of zeros, made without torch."""
    folder.mkdir()
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"model.embed_tokens.weight": [40, 16], "model.norm.weight": [16]}
    for layer in range(config["num_hidden_layers"]):
        mlp = {f"model.layers.{layer}.mlp.{n}.weight": shape for n, shape in SHAPES.items()}
        tensors |= {
            name: shape for name, shape in mlp.items() if not without or without not in name
        }
    header, at = {}, 0
    for name, shape in (tensors | dict(also)).items():
        size = (shape[0] * (shape[1] if len(shape) > 1 else 1)) * {"F32": 4}.get(dtype, 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(at)
    (folder / "model.safetensors").write_bytes(data)
    return folder


@pytest.fixture
def upcycle(tmp_path, monkeypatch, capsys):
    """Call the command in the test's folder: (code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*line):
        code = advisor_here(["upcycle", *map(str, line)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def names(folder):
    return {path.name for path in folder.iterdir()}


def refused(answer, code, folder):
    """The four parts of an error, on one line; nothing was made."""
    found, out, err = answer
    assert (found, out) == (code, ""), err
    starts = [line.partition(":")[0] for line in err.splitlines() if line[:1].strip()]
    assert starts == ["error", "why", "do", "where"]
    assert not [name for name in names(folder) if name.startswith((".tmp", "moe"))]
    return " ".join(err.split())


def test_a_mixture_is_made_and_told(upcycle, tmp_path):
    """With what it is, that it predicts the same, and the next command, which works."""
    dense(tmp_path / "small")

    code, out, err = upcycle("small", "--out", "my moe", "--experts", 4, "--seed", 3)

    made = from_folder(tmp_path / "my moe")
    assert (code, err) == (0, "")
    assert (made.experts.num_experts, made.experts.top_k) == (4, 2)
    assert out.startswith("wrote my moe: MixtralForCausalLM, ")
    assert "It predicts what small predicts" in out
    assert "drawn with seed 3" in " ".join(out.split())
    assert out.splitlines()[-1] == "  advisor recommend --model 'my moe' --data FILE"
    assert "With one expert a token" not in out
    assert advisor_here(["recommend", "--model", "my moe"]) == 0


def test_what_one_expert_a_token_means_is_told(upcycle, tmp_path):
    """Its weight is always 1."""
    dense(tmp_path / "small")

    _, out, _ = upcycle("small", "--out", "moe", "--top-k", 1)

    assert "only the load-balancing loss teaches the router" in " ".join(out.split())


def test_its_facts_as_json(upcycle, tmp_path):
    """What was asked, and the model."""
    dense(tmp_path / "small")

    _, out, _ = upcycle("small", "--out", "moe", "--json", "--aux-loss", 0.5, "--top-k", 3)

    found = json.loads(out)
    assert (found["base"], found["aux_loss"], found["top_k"]) == ("small", 0.5, 3)
    assert found["model"]["experts"]["top_k"] == 3
    config = json.loads((tmp_path / "moe" / "config.json").read_text())
    assert config["router_aux_loss_coef"] == 0.5


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "mixtral", "num_local_experts": 2}, "is a mixture of experts already"),
        (
            {"model_type": "gemma", "head_dim": 8},
            "no mixture takes the weights of gemma models; those of llama, mistral, qwen2, qwen3",
        ),
        ({"attention_bias": True}, "its linears have biases, and those of mixtral have none"),
        ({"mlp_bias": True}, "its linears have biases"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"intermediate_size": 28}, "in blocks of 8 numbers, which 28 is not"),
        (
            WINDOWS | {"max_window_layers": 1, "head_dim": 8},
            "some of its layers attend to a window, and in qwen3_moe all do or none",
        ),
    ],
)
def test_a_model_that_no_mixture_is_made_of_is_refused(upcycle, tmp_path, changes, why):
    """With the reason."""
    dense(tmp_path / "small", **changes)

    told = refused(upcycle("small", "--out", "moe"), ExitCode.REFUSED, tmp_path)

    assert "error: small cannot be upcycled why:" in told
    assert why in told


def test_a_model_without_weights_or_in_few_bits_is_refused(upcycle, tmp_path):
    """Nothing could be copied."""
    shutil.copytree(dense(tmp_path / "small"), tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    dense(tmp_path / "quantized", quantization_config={"quant_method": "gptq"})
    dense(tmp_path / "bytes", dtype="I16")

    bare = refused(upcycle("bare", "--out", "moe"), ExitCode.REFUSED, tmp_path)
    few = refused(upcycle("quantized", "--out", "moe"), ExitCode.BAD_DATA, tmp_path)
    odd = refused(upcycle("bytes", "--out", "moe"), ExitCode.BAD_DATA, tmp_path)
    far = refused(upcycle("llama-3.1-8b", "--out", "moe"), ExitCode.NO_INPUT, tmp_path)

    assert "there are no weights in its folder" in bare
    assert "stored already quantized (gptq)" in few
    assert "as I16" in odd
    assert "do: hf download" in far


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"without": "1.mlp.up"}, "5 matrices are named as those of its MLPs, not 6"),
        ({"also": [("model.layers.0.mlp.gate_proj.bias", [24])]}, "no weight of this name"),
        ({"also": [("model.layers.1.mlp.up_proj.weight", [16, 24])]}, "and shape (16, 24)"),
    ],
)
def test_weights_that_are_not_such_a_model_s_are_refused(upcycle, tmp_path, changes, why):
    """A mixture that lacks some would be filled with random ones, in silence."""
    dense(tmp_path / "small", **changes)

    assert why in refused(upcycle("small", "--out", "moe"), ExitCode.BAD_DATA, tmp_path)


def test_more_experts_a_token_than_there_are(upcycle, tmp_path):
    """And the advice works."""
    dense(tmp_path / "small")

    line = ("small", "--out", "moe", "--experts", 3)
    told = refused(upcycle(*line, "--top-k", 4), ExitCode.USAGE, tmp_path)

    assert "a token cannot visit 4 of 3 experts" in told
    assert "do: give --top-k 1 to 3, or more --experts" in told
    assert upcycle(*line, "--top-k", 3)[0] == 0


def test_a_disk_without_room_is_told_before_the_first_byte(upcycle, tmp_path, monkeypatch):
    """With what is needed and what is free."""
    dense(tmp_path / "small")
    usage = namedtuple("Usage", "total used free")  # noqa: PYI024  # as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 8, 63 << 20))

    told = refused(upcycle("small", "--out", "moe"), ExitCode.CANNOT_CREATE, tmp_path)

    assert "there is no room for small with 8 experts why: it takes 64.0 MiB" in told
    assert "63.0 MiB are free" in told


def test_a_folder_that_is_there_is_replaced_only_by_force_and_by_its_like(upcycle, tmp_path, home):
    """The dense model itself never is, nor what a run wrote."""
    finished_run(home, tmp_path / "base")
    run = next((home / "runs").iterdir())
    dense(tmp_path / "small")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "file").write_text("mine")
    assert upcycle("small", "--out", "made")[0] == 0

    def told(out, *more):
        return refused(upcycle("small", "--out", out, *more), ExitCode.CANNOT_CREATE, tmp_path)

    assert "it is a mixture, and nothing is overwritten unasked" in told("made")
    assert "it is empty, and nothing is overwritten unasked" in told("empty")
    for place in ("small", "file"):
        assert "takes the place of a mixture alone" in told(place, "--force")
    assert "link is a symbolic link" in told("link", "--force")
    assert "do: make it first: mkdir -p no/where" in told("no/where/x")
    assert "cannot write x: Not a directory" in told("file/x")
    assert "- names no folder" in told("-")
    assert "among the files of a run" in told(run / "moe", "--force")
    assert (tmp_path / "file").read_text() == "mine"

    for place in ("made", "empty"):
        code, out, _ = upcycle("small", "--out", place, "--force", "--experts", 2)
        assert (code, out.split(":")[0]) == (0, f"replaced {place}")
        assert from_folder(tmp_path / place).experts.num_experts == 2
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def silent(_done, _whole):
    """Nobody looks."""


def make(folder, *, experts=2, replaces=False):
    found = making.prepare(folder / "small", making.Asked(experts=experts))
    making.make(found, folder / "moe", replaces=replaces, told=silent)


def experts_of(folder):
    return from_folder(folder).experts.num_experts


@pytest.mark.parametrize("is_there", [False, True])
def test_at_every_moment_a_name_means_a_whole_folder(tmp_path, monkeypatch, is_there):
    """However many operations a crash lets happen; the next attempt clears what it left."""
    dense(tmp_path / "small")
    if is_there:
        make(tmp_path, experts=3)
    disk = FaultyDisk(tmp_path, tracks=False)
    monkeypatch.setattr(durable, "disk", disk)
    disk.begin(Fault())
    make(tmp_path, replaces=is_there)
    count = disk.count
    assert count >= 30

    for at in (*range(1, 12), *range(max(12, count - 24), count + 1)):
        if not is_there:
            shutil.rmtree(tmp_path / "moe", ignore_errors=True)
        disk.begin(Fault(at=at))
        with pytest.raises(Crash):
            make(tmp_path, replaces=is_there)
        disk.begin(Fault())
        if (tmp_path / "moe").exists():
            assert experts_of(tmp_path / "moe") in {2, 3}
            making.prepare(tmp_path / "small", making.Asked())  # what it is made of is untouched
        user_files.clear(tmp_path / "moe")
        assert (tmp_path / "moe").exists() or not is_there
        assert {"small", "moe"} >= names(tmp_path)


def test_a_write_that_fails_leaves_nothing_and_is_told(upcycle, tmp_path, monkeypatch):
    """A disk that filled up after all."""
    dense(tmp_path / "small")
    disk = FaultyDisk(tmp_path, tracks=False)
    disk.begin(Fault(at=9, kind="error", number=errno.ENOSPC))
    monkeypatch.setattr(durable, "disk", disk)

    told = refused(upcycle("small", "--out", "moe"), ExitCode.CANNOT_CREATE, tmp_path)

    assert f"cannot write moe: {os.strerror(errno.ENOSPC)}" in told
    assert "do: make room there" in told
    assert names(tmp_path) == {"small"}


def test_two_at_once_do_not_clear_each_other_away(upcycle, tmp_path):
    """The second is told, and the first ends well."""
    dense(tmp_path / "small")
    with user_files.folder(tmp_path / "other") as staging:
        (staging / "file").write_text("x")
        code, _, err = upcycle("small", "--out", "other")

    assert code == ExitCode.CANNOT_CREATE
    assert "another process is making it" in err
    assert names(tmp_path / "other") == {"file"}
    assert upcycle("small", "--out", "moe")[0] == 0


def test_a_source_that_becomes_shorter_meanwhile_is_no_mixture(tmp_path):
    """Half a matrix is not written as a whole one."""
    dense(tmp_path / "small")
    found = making.prepare(tmp_path / "small", making.Asked())
    path = tmp_path / "small" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 10)

    with pytest.raises(OSError, match="became shorter"):
        making.make(found, tmp_path / "moe", told=silent)

    assert names(tmp_path) == {"small"}


def test_progress_ends_at_the_whole(tmp_path):
    """And never goes back."""
    dense(tmp_path / "small")
    seen = []
    found = making.prepare(tmp_path / "small", making.Asked())

    making.make(found, Path(tmp_path / "moe"), told=lambda *pair: seen.append(pair))

    assert seen == sorted(seen)
    assert seen[-1] == (found.num_bytes, found.num_bytes)
