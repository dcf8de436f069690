"""Models and checkpoints from strangers: no code of theirs runs, no bomb of theirs goes off.

Rules S6 to S9 and S11 to S13. A canary is a pickle or a module that leaves a file when it is run;
the first test shows that it would.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from small_model import CONFIG, recipe_text, small_model

from profiles import chat_families
from profiles.data import dataset
from profiles.errors import ExitCode, UserError
from profiles.models import model
from profiles.models.chat_template import ChatTemplate
from profiles.runs import durable, rundir
from runner import checkpoints
from runner.checks import chat_templates, quarantine
from tui.main import run as advisor_here

PICKLES = [
    *("pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.mdl", "model.pkl"),
    *("pytorch_model-00001-of-00002.bin", "adapter_model.bin", "training_args.bin"),
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "consolidated.00.pth"),
]


class Canary:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def canary(tmp_path):
    """Where the mark of a canary would appear."""
    return tmp_path / "fired"


def put_pickles(folder, canary, names=PICKLES):
    """Write canaries under names that libraries load."""
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Canary(canary)))


def refusal(folder):
    """The error with which the folder is refused."""
    with pytest.raises(UserError) as caught:
        model.from_folder(folder)
    return caught.value


def test_the_canary_would_fire(canary):
    """Else the tests below would hold for anything."""
    pickle.loads(pickle.dumps(Canary(canary))).close()  # noqa: S301  # to show that it would

    assert canary.exists()


UNBUILT = {"model_type": "bailing_moe"}
"""A type that transformers has no class for."""
SHAPES = {
    "CVE-2026-4372": {"_attn_implementation_internal": "stranger/kernel"},
    "CVE-2026-4372 deep": {"text_config": {"deeper": [{"_experts_internal": "x"}]}},
    "CVE-2026-5241": {"text_config": {"trust_remote_code": True, "auto_map": {"AutoModel": "m.M"}}},
    "CVE-2026-93348": {"model_type": "llama\nimport os\nos.system('touch fired')"},
    "CVE-2026-93348 nested": {"vision_config": {"model_type": "clip\nimport os"}},
    "auto_map": UNBUILT | {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}},
    "auto_map of another repository": UNBUILT | {"auto_map": {"AutoModel": "stranger/code--m.M"}},
    "auto_map of an unknown type": {"model_type": "x", "auto_map": {"AutoModel": "m.M"}},
    "auto_map in another form": {"auto_map": ["modeling_x.X"]},
    "kernel": {"attn_implementation": "stranger/kernel:main"},
    "kernel for a part": {"attn_implementation": {"text_config": "paged|stranger/kernel"}},
    "kernel_config": {"kernel_config": {"RMSNorm": "stranger/kernel"}},
    "weights elsewhere": {"transformers_weights": "../../other.safetensors"},
    "class name": {"architectures": ["os.system('touch fired')"]},
    "class path": {"tokenizer_class": "../../x.Y"},
    "model_type path": {"model_type": "../llama"},
    "model_type length": {"model_type": "x" * 65},
}


@pytest.mark.parametrize("extra", SHAPES.values(), ids=SHAPES)
def test_a_configuration_that_could_run_code_is_refused(tmp_path, extra):
    """At any depth, before a library sees it."""
    error = refusal(small_model(tmp_path / "m", config=CONFIG | extra))

    assert error.code is ExitCode.REFUSED


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "extra", [{"auto_map": {"AutoTokenizer": ["t.T", None]}}, {"a_internal": 1}]
)
def test_the_files_beside_the_configuration_are_held_to_the_same(tmp_path, name, extra):
    """Tokenizers, generation and processors bring configurations of their own."""
    folder = small_model(tmp_path / "m")
    (folder / name).write_text(json.dumps(extra))

    error = refusal(folder)

    assert (error.code, Path(error.where).name) == (ExitCode.REFUSED, name)


def test_what_real_models_say_is_taken(tmp_path):
    """No rule is so wide that it refuses the ordinary."""
    ordinary = {
        "attn_implementation": "sdpa",
        "_attn_implementation": "eager",
        "text_config": {"model_type": "qwen2_5_vl_text", "use_cache": True},
    }
    folder = small_model(tmp_path / "m", config=CONFIG | ordinary)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "x", "auto": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))

    assert model.from_folder(folder).has_chat_template


def test_an_adapter_in_a_model_folder_is_refused(tmp_path):
    """It would be put onto the model unasked, from a pickle if need be."""
    folder = small_model(tmp_path / "m")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')

    assert refusal(folder).code is ExitCode.REFUSED


@pytest.fixture
def commands(tmp_path):
    """Every command that looks at a model folder; returns their exit codes."""

    def call(folder):
        rows = [{"prompt": "p", "completion": "c"}] * 4
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        (tmp_path / "r.toml").write_text(recipe_text(model=str(folder)))
        return (
            advisor_here(["model", "show", str(folder)]),
            advisor_here(["run", str(tmp_path / "r.toml"), "--dry-run"]),
            advisor_here(["data", "check", str(tmp_path / "rows.json"), "--model", str(folder)]),
        )

    return call


def test_a_repository_with_code_is_refused_and_named(tmp_path, canary, commands, capsys):
    """`auto_map` and a module that would leave a mark."""
    named = {"AutoConfig": "configuration_x.X", "AutoModel": "modeling_x.X"}
    config = CONFIG | UNBUILT | {"auto_map": named}
    folder = small_model(tmp_path / "m", config=config)
    for name in ("configuration_x.py", "modeling_x.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(f"open({str(canary)!r}, 'w')\nclass X: pass\n")

    assert commands(folder) == (77, 77, 77)
    assert "modeling_x.X" in capsys.readouterr().err
    assert not canary.exists()


def test_pickles_alone_are_refused_and_never_loaded(tmp_path, canary, commands, capsys):
    """Exit code 77, and what to do instead."""
    folder = small_model(tmp_path / "m", weights=False)
    put_pickles(folder, canary)

    assert commands(folder) == (77, 77, 77)
    assert "use a safetensors version of the model" in capsys.readouterr().err
    assert not canary.exists()


def test_pickles_beside_safetensors_are_ignored_and_told(tmp_path, canary, commands, capsys):
    """The safetensors are used."""
    folder = small_model(tmp_path / "m")
    put_pickles(folder, canary, ["pytorch_model.bin", "rng_state.pth", "training_args.bin"])

    assert commands(folder) == (0, 0, 0)
    assert "any code: pytorch_model.bin, rng_state.pth" in capsys.readouterr().err
    assert not canary.exists()


@pytest.mark.slow
def test_loading_a_model_touches_no_pickle_beside_it(tmp_path, canary, tiny_model):
    """The real load, with a canary under every name that a library might take."""
    import torch

    from runner.methods.base import load_base

    folder = shutil.copytree(tiny_model, tmp_path / "m")
    put_pickles(folder, canary)

    assert load_base(folder, dtype=torch.float32).num_parameters() > 0
    assert not canary.exists()


@pytest.fixture
def run():
    """A run with one sound checkpoint."""
    found = rundir.create("x")
    durable.write_atomic(found.attempt_file, b"1\n")
    staging = checkpoints.stage(found, 10)
    (staging / "adapter_model.safetensors").write_bytes(b"weights")
    (staging / "optimizer.pt").write_bytes(b"states")
    checkpoints.commit(found, staging, 10)
    return found


def test_a_tampered_checkpoint_is_not_resumed_from(run):
    """One byte of the optimizer's file, its size kept."""
    folder = run.checkpoints / "step-00000010"
    (folder / "optimizer.pt").write_bytes(b"stateS")

    sound, faults = checkpoints.newest_sound(run)

    assert sound is None
    assert "optimizer.pt changed" in next(iter(faults.values()))


@pytest.mark.parametrize("name", ["rng_state_1.pth", "deep/scheduler.pt", "link.pt"])
def test_a_file_that_was_put_into_a_checkpoint_spoils_it(run, canary, name):
    """The Trainer would load it by its name; the manifest does not know it."""
    folder = run.checkpoints / "step-00000010"
    assert checkpoints.verify(folder) is None
    (folder / name).parent.mkdir(exist_ok=True)
    if name == "link.pt":
        (folder / name).symlink_to(canary)
    else:
        put_pickles(folder, canary, [name])

    assert f"{name} is not in its manifest" == checkpoints.verify(folder)


@pytest.mark.parametrize(
    "manifest", [None, "{}", '{"files": {}}', '{"files": {"optimizer.pt": 1}}']
)
def test_a_foreign_checkpoint_is_not_resumed_from(run, canary, manifest):
    """Newer, under a good name, full of canaries, without our list of what was written."""
    foreign = run.checkpoints / "step-00000020"
    foreign.mkdir()
    put_pickles(foreign, canary)
    if manifest is not None:
        (foreign / checkpoints.MANIFEST).write_text(manifest)

    sound, faults = checkpoints.newest_sound(run)

    assert sound is not None
    assert (sound.step, [c.step for c in faults]) == (10, [20])
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["data.py", "data.pkl", "data.arrow", "data.h5", "data.csv.gz", "d.pt"]
)
def test_a_data_set_is_rows_and_never_a_program(tmp_path, canary, name):
    """Loading scripts, pickles and other containers have no reader here."""
    path = tmp_path / name
    if name.endswith(".py"):
        path.write_text(f"open({str(canary)!r}, 'w')\n")
    else:
        path.write_bytes(pickle.dumps(Canary(canary)))

    with pytest.raises(UserError) as caught:
        dataset.check(str(path))

    assert caught.value.code is ExitCode.BAD_DATA
    assert not canary.exists()


BOMBS = """
import json, resource, struct, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from profiles.data import dataset
from profiles.models import model
from profiles.errors import UserError
from profiles.models.safetensors_header import read_header
folder = Path(sys.argv[1])
def told(call, *arguments):
    try:
        call(*arguments)
    except UserError as error:
        print(error.what)
def write(name, *parts):
    path = folder / name
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
    return path
line = write("line.jsonl", b'{"text": "', b"x" * 65_000_000, b'"}\\n')
told(dataset.check, str(line))
line.unlink()
told(dataset.check, str(write("deep.jsonl", b'{"text": ', b"[" * 200_000, b"]" * 200_000, b"}")))
told(dataset.check, str(write("row.jsonl", b'{"text": "x", "a": ', b"[" * 70, b"]" * 70, b"}")))
told(read_header, write("h.safetensors", struct.pack("<Q", 1 << 62), b"{}"))
told(read_header, write("d.safetensors", struct.pack("<Q", 400_000), b"[" * 400_000))
body = b'{"a":[' + b"{}," * 32_000_000 + b"{}]}"
told(read_header, write("m.safetensors", struct.pack("<Q", len(body)), body))
del body
(folder / "m.safetensors").unlink()
for name in ("config.json", "tokenizer_config.json"):
    kept = (folder / "m" / name).read_bytes() if name == "config.json" else b"{}"
    for bomb in (b"{" + b" " * 17_000_000 + b"}", b"[" * 100_000, b'{"a":' * 70 + b"1" + b"}" * 70,
                 b'{"model_type": "llama", "a": ' + b"9" * 5000 + b"}"):
        write(f"m/{name}", bomb)
        told(model.from_folder, folder / "m")
    write(f"m/{name}", kept)
with (folder / "m" / "tokenizer.json").open("r+b") as file:
    file.truncate(101_000_000)
told(model.from_folder, folder / "m")
"""


def test_files_made_to_fill_the_memory_are_refused_within_two_gigabytes(tmp_path):
    """Long lines, deep nesting, huge headers and numbers: each ends in an error of ours."""
    small_model(tmp_path / "m")

    done = subprocess.run(
        [sys.executable, "-P", "-c", BOMBS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 6 + 2 * 4 + 1, done.stdout


def test_a_pipe_in_place_of_a_configuration_is_not_waited_for(tmp_path):
    """It would block for ever."""
    import os

    folder = small_model(tmp_path / "m")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")

    assert refusal(folder).code is ExitCode.BAD_DATA


def test_a_header_that_lies_about_its_length_is_refused(tmp_path):
    """More than the file has."""
    folder = small_model(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 50) + b"{}")

    assert refusal(folder).code is ExitCode.BAD_DATA


TRIALS = {
    "range": ("{% for i in range(10**9) %}{% endfor %}", "computes without end"),
    "loops": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "CPU|not done",
    ),
    "power": ("{{ 9**(9**9) }}", "CPU|not done"),
    "memory": ("{{ 'a' * 10**10 }}", "computes without end"),
    "output": ("{{ 'a' * 2000000 }}", "makes 2000000 characters"),
    "escape": ("{{ ().__class__.__bases__[0].__subclasses__() }}", "must not touch"),
    "change": ("{{ messages.clear() }}", "must not touch"),
}


@pytest.mark.parametrize(("template", "words"), TRIALS.values(), ids=TRIALS)
def test_a_hostile_chat_template_is_refused(tmp_path, monkeypatch, template, words):
    """By a child process with limits, before any training."""
    folder = small_model(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(template)
    monkeypatch.setattr(quarantine.ask, "__kwdefaults__", {"cpu_seconds": 1})

    with pytest.raises(UserError, match="chat template") as caught:
        chat_templates.check(folder)

    assert re.search(words, caught.value.why)
    assert caught.value.code is ExitCode.REFUSED


@pytest.mark.parametrize(
    "template",
    [
        *chat_families.TEMPLATES.values(),
        "{{ raise_exception('only user turns') }}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{% endfor %}",
        "{% set n = namespace(a=0) %}{% set n.a = n.a + 1 %}{{ messages | tojson(indent=2) }}",
        "{{ strftime_now('%Y') }}{{ bos_token }}",
        "{{ ''|attr('__class__') }}",
        "{% mistaken",
    ],
)
def test_an_ordinary_or_merely_mistaken_template_passes(tmp_path, template):
    """The trial is for attacks; a mistake is told by the row that it fails on."""
    folder = small_model(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))

    chat_templates.check(folder)

    assert model.chat_templates(folder) == [template]


def test_our_sandbox_renders_as_that_of_transformers(tmp_path):
    """A template that one of them knows and the other does not would be judged wrongly."""
    chat_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    from runner.checks import template_trial

    for template in chat_families.TEMPLATES.values():
        for chat in template_trial._CHATS:
            theirs, _ = chat_utils.render_jinja_template(
                [chat],
                chat_template=template,
                add_generation_prompt=len(chat) == 1,
                eos_token="</s>",
            )
            ours, _ = ChatTemplate(template, {"eos_token": "</s>"}).render(
                chat, asks=len(chat) == 1
            )
            assert ours == theirs[0]


def test_templates_are_found_wherever_a_library_looks(tmp_path):
    """A file, a folder of files, a text or a list in the tokenizer's configuration."""
    folder = small_model(tmp_path / "m")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tools.jinja").write_text("a")
    (folder / "chat_template.jinja").write_text("b")
    named = [{"name": "default", "template": "c"}, {"name": "rag", "template": "d"}, 3]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "e"}))

    assert sorted(model.chat_templates(folder)) == ["a", "b", "c", "d", "e"]


def test_a_chat_without_a_template_is_refused_with_the_choices(tmp_path, capsys):
    """Before anything starts: exit code 78."""
    folder = small_model(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text("{}")
    rows = [{"instruction": "a", "output": "b"}] * 4
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "r.toml").write_text(recipe_text(model=str(folder)))

    code = advisor_here(["run", str(tmp_path / "r.toml"), "--dry-run"])
    chosen = advisor_here(
        ["run", str(tmp_path / "r.toml"), "--dry-run", "--set", "data.chat_template=chatml"]
    )

    assert (code, chosen) == (ExitCode.BAD_RECIPE, 0)
    assert '"chatml" or "plain"' in capsys.readouterr().err
