"""Behaviour towards the hub: what is asked for, what an answer means, what is kept."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from profiles.errors import ExitCode, UserError
from profiles.facts import Origin
from profiles.models import hub
from profiles.models.find_model import resolve

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
}
NAME = "some-org/Some-Model"
WEIGHTS = 50_000
"""Bytes of weights behind each header; none of them may be asked for."""


@dataclass
class Stub:
    """What the stub serves, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    denial: tuple[int, str] | None = None
    busy: list[tuple[int, str]] = field(default_factory=list)
    """Status and Retry-After of the next answers."""
    stall: bool = False
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    tokens: list[str] = field(default_factory=list)


def safetensors(shapes: dict[str, list[int]]) -> bytes:
    """A file with a true header and zeros behind it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(WEIGHTS)


class Handler(BaseHTTPRequestHandler):
    """Answers like the hub: whole files, ranges, and errors with its header."""

    stub: Stub

    def do_GET(self) -> None:
        file = self.path.rpartition("/")[2]
        asked = self.headers.get("Range")
        self.stub.requests.append((self.path, asked))
        self.stub.tokens += self.headers.get_all("Authorization", [])
        if self.stub.busy:
            return self.be_busy(*self.stub.busy.pop(0))
        if self.stub.denial:
            return self.deny(*self.stub.denial)
        if file not in self.stub.files:
            return self.deny(404, "EntryNotFound")
        return self.give(self.stub.files[file], asked)

    def deny(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def be_busy(self, status: int, retry_after: str) -> None:
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def give(self, data: bytes, asked: str | None) -> None:
        part = data
        if asked and self.stub.ranges:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            part = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.stub.sent += len(part)
        self.wfile.write(part[: len(part) // 2] if self.stub.stall else part)
        if self.stub.stall:
            time.sleep(1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stub(monkeypatch):
    served = Stub(files={"config.json": json.dumps(CONFIG).encode()})
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("StubHandler", (Handler,), {"stub": served})
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield served
    server.shutdown()
    server.server_close()


def refusal(cache_dir, name: str = NAME, **more: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        hub.fetch(name, cache_dir=cache_dir, **more)
    return caught.value


def test_only_the_configuration_and_headers_are_fetched(stub, tmp_path) -> None:
    """Two shards: each header by two ranges of its own length, and no byte of weights."""
    one = safetensors({"model.embed_tokens.weight": [500, 64]})
    two = safetensors({"a": [7, 3], "lm_head.weight": [500, 64]})
    index = {"weight_map": {"x": "m-1.safetensors", "a": "m-2.safetensors"}}
    stub.files |= {
        "m-1.safetensors": one,
        "m-2.safetensors": two,
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    model = hub.fetch(NAME, cache_dir=tmp_path)
    assert (NAME, None, 500 * 64 + 21) == (model.id, model.path, model.num_params)
    assert (Origin.MEASURED, "float16") == (model.params_origin, model.dtype)
    assert len(one) + len(two) == model.weight_bytes
    ranges = {part for path, part in stub.requests if path.endswith(".safetensors")}
    lengths = [struct.unpack("<Q", data[:8])[0] for data in (one, two)]
    assert ranges == {"bytes=0-7"} | {f"bytes=8-{7 + length}" for length in lengths}
    assert stub.sent < WEIGHTS
    assert all(f"/{NAME}/resolve/main/" in path for path, _ in stub.requests)


def test_a_single_file_is_found_without_an_index(stub, tmp_path) -> None:
    """A repository without an index has one file, or no safetensors at all."""
    stub.files["model.safetensors"] = safetensors({"w": [5, 5]})
    assert hub.fetch(NAME, cache_dir=tmp_path).num_params == 25
    del stub.files["model.safetensors"]
    counted = hub.fetch("some-org/other", cache_dir=tmp_path)
    assert (Origin.PREDICTED, None) == (counted.params_origin, counted.weight_bytes)
    assert counted.num_params > 100_000


def test_a_revision_is_asked_for(stub, tmp_path) -> None:
    """Its own address, and kept apart from the main branch."""
    hub.fetch(NAME, revision="abc123", cache_dir=tmp_path)
    assert all("/resolve/abc123/" in path for path, _ in stub.requests)
    hub.fetch(NAME, cache_dir=tmp_path)
    assert any("/resolve/main/" in path for path, _ in stub.requests)


def test_towers_are_told_by_the_names_in_the_headers(stub, tmp_path) -> None:
    """What lies outside the language model is the tower; blocks for more tokens do not count."""
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "text_config": {**CONFIG, "tie_word_embeddings": False},
        "vision_config": {"hidden_size": 8},
    }
    stub.files["config.json"] = json.dumps(config).encode()
    stub.files["model.safetensors"] = safetensors(
        {
            "language_model.model.embed_tokens.weight": [500, 64],
            "language_model.lm_head.weight": [500, 64],
            "vision_tower.layers.7.weight": [10, 10],
            "multi_modal_projector.bias": [3],
            "language_model.model.layers.3.weight": [99],
            "mtp.weight": [99],
            "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": [8],
        }
    )
    model = hub.fetch(NAME, cache_dir=tmp_path)
    assert (103, 2 * 500 * 64 + 103) == (model.vision_params, model.num_params)


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "words"),
    [
        (401, "GatedRepo", ExitCode.REFUSED, ("gated", "not logged in", "hf auth login")),
        (403, "GatedRepo", ExitCode.REFUSED, ("gated", "not been let in", f"co/{NAME}")),
        (404, "RepoNotFound", ExitCode.NO_INPUT, ("no model", "catalog", "private")),
        (401, "RepoNotFound", ExitCode.NO_INPUT, ("no model", "catalog", "private")),
        (404, "RevisionNotFound", ExitCode.NO_INPUT, ("no revision 'old'", "branch", "page")),
        (404, "EntryNotFound", ExitCode.NO_INPUT, ("no config.json", "GGUF", "made from")),
        (403, "", ExitCode.REFUSED, ("this token", "403", "hf auth login")),
        (429, "", ExitCode.NO_NETWORK, ("error", "too many requests", "catalog")),
        (503, "", ExitCode.NO_NETWORK, ("error", "503", "need no network")),
    ],
)
def test_each_refusal_of_the_hub_has_its_own_words(
    stub, tmp_path, status: int, code: str, exit_code: ExitCode, words: tuple[str, str, str]
) -> None:
    """What happened, why, and what to do, by the status and the hub's own error code."""
    stub.denial = (status, code)
    error = refusal(tmp_path, revision="old")
    assert exit_code is error.code
    for word, text in zip(words, (error.what, error.why, error.do), strict=True):
        assert word in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("busy", [[(429, "1")], [(503, ""), (502, "")], [(500, "later")]])
def test_a_busy_hub_is_asked_again(stub, tmp_path, busy) -> None:
    """Twice at most, after as many seconds as it wants."""
    stub.busy = list(busy)
    assert hub.fetch(NAME, cache_dir=tmp_path).hidden_size == 64


def test_a_hub_that_wants_much_patience_is_told_with_its_time(stub, tmp_path) -> None:
    """Nobody waits an hour in front of a screen."""
    stub.busy = [(429, "3600")]
    error = refusal(tmp_path)
    assert ExitCode.NO_NETWORK is error.code
    assert "try again in 3600 s" in error.do


def test_a_hub_that_stalls_in_the_middle_of_a_file_is_not_waited_for(
    stub, tmp_path, monkeypatch
) -> None:
    """Half a configuration is no configuration, and nothing of it is kept."""
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.2)
    stub.stall = True
    assert ExitCode.NO_NETWORK is refusal(tmp_path).code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("denial", [(401, "GatedRepo"), (403, "GatedRepo"), (403, ""), (404, "")])
def test_the_token_is_sent_and_never_told(stub, tmp_path, monkeypatch, denial) -> None:
    """Not in any of the four parts of an error."""
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    stub.denial = denial
    error = refusal(tmp_path)
    assert ["Bearer hf_canary"] == stub.tokens
    assert "hf_canary" not in str(error.as_dict())


def test_a_missing_name_gets_near_ones(stub, tmp_path) -> None:
    """The catalog knows how it is written."""
    stub.denial = (404, "RepoNotFound")
    error = refusal(tmp_path, "meta-llama/Llama-3.1-8B-Instrukt")
    assert "meta-llama/Llama-3.1-8B-Instruct" in error.why


def test_no_answer_is_told_and_what_was_kept_serves(stub, tmp_path, monkeypatch) -> None:
    """Without network there is an error, or the answer of an earlier week."""
    hub.fetch(NAME, cache_dir=tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    asked = len(stub.requests)
    assert hub.fetch(NAME, cache_dir=tmp_path).hidden_size == 64
    monkeypatch.setattr(hub, "KEPT_SECONDS", 0)
    assert hub.fetch(NAME, cache_dir=tmp_path).hidden_size == 64
    assert asked == len(stub.requests)
    error = refusal(tmp_path, "some-org/never-seen")
    assert ExitCode.NO_NETWORK is error.code
    assert "need no network" in error.do


def test_offline_mode_does_not_try(stub, tmp_path, monkeypatch) -> None:
    """HF_HUB_OFFLINE is the user's word; nothing is asked."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = refusal(tmp_path)
    assert (ExitCode.NO_NETWORK, "HF_HUB_OFFLINE") == (error.code, error.where)
    assert not stub.requests


def test_a_silent_server_is_not_waited_for(tmp_path, monkeypatch) -> None:
    """A connection that gives no answer ends after the time limit."""
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert ExitCode.NO_NETWORK is refusal(tmp_path).code


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"model_type": "mamba"}, ExitCode.BAD_DATA, "not a family known here"),
        ({"auto_map": {"AutoConfig": 7}}, ExitCode.REFUSED, "auto_map"),
        ({"quantization_config": {"quant_method": "awq"}}, ExitCode.BAD_DATA, "quantized (awq)"),
        ({"hidden_size": 0}, ExitCode.BAD_DATA, "hidden_size"),
    ],
)
def test_what_a_folder_is_refused_for_is_refused(
    stub, tmp_path, change: dict, code: ExitCode, word: str
) -> None:
    """Before any weight file is touched, and nothing is kept."""
    stub.files["config.json"] = json.dumps({**CONFIG, **change}).encode()
    error = refusal(tmp_path)
    assert code is error.code
    assert word in error.what
    assert error.where.endswith(f"/{NAME}/resolve/main/config.json")
    assert len(stub.requests) == 1
    assert not list(tmp_path.iterdir())


def test_a_server_without_ranges_is_not_listened_to(stub, tmp_path) -> None:
    """It would send the weights."""
    stub.files["model.safetensors"] = safetensors({"w": [5, 5]})
    stub.ranges = False
    error = refusal(tmp_path)
    assert "does not send parts" in error.what


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"[1]]" + bytes(9)])
def test_torn_weights_are_told(stub, tmp_path, data: bytes) -> None:
    """A header that is cut off, too long or no object."""
    stub.files["model.safetensors"] = data
    assert ExitCode.BAD_DATA is refusal(tmp_path).code


def test_a_torn_record_is_asked_for_again(stub, tmp_path) -> None:
    """What is kept is a cache: damage costs a request."""
    hub.fetch(NAME, cache_dir=tmp_path)
    (record,) = tmp_path.iterdir()
    record.write_text("{")
    asked = len(stub.requests)
    assert hub.fetch(NAME, cache_dir=tmp_path).hidden_size == 64
    assert len(stub.requests) > asked


def test_a_name_means_folder_then_catalog_then_hub(stub, tmp_path, monkeypatch) -> None:
    """The catalog answers without network; only what is in neither place is asked for."""
    monkeypatch.chdir(tmp_path)
    assert resolve("gpt2").id == "openai-community/gpt2"
    assert resolve("qwen/qwen3-8b").params_origin is Origin.TABLE
    assert not stub.requests
    assert resolve(NAME).params_origin is Origin.PREDICTED
    assert stub.requests
    folder = tmp_path / "gpt2"
    folder.mkdir()
    assert resolve("gpt2").id == "openai-community/gpt2"
    (folder / "config.json").write_text(json.dumps(CONFIG))
    assert str(folder) == resolve("gpt2").path
    assert str(folder) == resolve("./gpt2").path


def test_a_name_that_means_nothing_gets_near_ones(stub, tmp_path, monkeypatch) -> None:
    """Folders beside it and names of the catalog; paths are never asked of the hub."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mistral-8b").mkdir(parents=True)
    (tmp_path / "models" / "mistral-8b" / "config.json").write_text("{}")
    for text, near in [
        ("mistral 7b", "mistralai/Mistral-7B-v0.1"),
        ("models/mistral-7b", str(tmp_path.relative_to(tmp_path) / "models" / "mistral-8b")),
        ("./nothing", "give a folder"),
    ]:
        with pytest.raises(UserError) as caught:
            resolve(text)
        assert ExitCode.NO_INPUT is caught.value.code
        assert near in caught.value.do
    assert not stub.requests
