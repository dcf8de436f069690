"""The command as a user calls it: texts, exit codes, and nothing started on bad input."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from profiles.errors import ExitCode, UserError
from profiles.runs import listing

ADVISOR = Path(sys.executable).parent / "advisor"


@pytest.fixture
def bare_model(tmp_path):
    """A folder with a config and a tokenizer of whole words, without weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 300,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def recipe(tmp_path, bare_model, orders):
    """A recipe with inputs that exist."""
    path = tmp_path / "r.toml"
    path.write_text(
        f'schema = 1\nname = "r"\n[model]\nid = "{bare_model}"\n'
        f'[data]\ntrain = "{orders}"\nchat_template = "plain"\n[method]\nname = "lora"\n'
    )
    return path


def test_a_recommendation_is_printed_and_saved(advisor, bare_model, orders, tmp_path):
    """The page on stdout, the recipe in the file, and the recipe is sound."""
    done = advisor("recommend", "--model", bare_model, "--data", orders, "--save", "out.toml")

    assert done.returncode == 0, done.stderr
    assert "path through the decision tree" in done.stdout
    assert "every method on this machine" in done.stdout
    assert advisor("recipe", "check", "out.toml").returncode == 0


def test_a_recommendation_for_a_planned_machine_needs_no_gpu(advisor, bare_model):
    """The named card's memory is the budget."""
    done = advisor("recommend", "--model", bare_model, "--gpu", "1x RTX 4090")

    assert done.returncode == 0, done.stderr
    assert "on 1x RTX 4090" in done.stdout
    assert "24.0 GiB free" in done.stdout


def test_a_recommendation_as_json_carries_path_and_alternatives(advisor, bare_model):
    """For scripts, with a schema number."""
    done = advisor("recommend", "--model", bare_model, "--gpu", "T4", "--json", "--critical")

    found = json.loads(done.stdout)
    assert found["schema"] == 2
    assert "user" in {step["origin"] for step in found["path"]}
    assert sum(row["chosen"] for row in found["alternatives"]) == 1


def test_a_recommendation_never_imports_torch(bare_model):
    """Nor anything else that makes it slow."""
    code = (
        "import sys\nfrom tui.main import run\n"
        f"code = run(['recommend', '--model', {str(bare_model)!r}])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'textual', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(code or (f'loaded {heavy}' if heavy else 0))"
    )

    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


BAD_DATA = {
    "empty": (b"", 65),
    "blank": (b"\n \n", 65),
    "torn": (b'[{"instruction": "a", "output": "b"}, {"instr', 65),
    "latin-1": ('[{"instruction": "caf\u00e9", "output": "b"}]'.encode("latin-1"), 65),
    "utf-16": ('[{"instruction": "a", "output": "b"}]'.encode("utf-16"), 65),
    "shape": (b'[{"question": "a", "reply": "b"}]', 65),
    "pairs": (b'[{"prompt": "a", "chosen": "b", "rejected": "c"}]', 65),
    "type": (b'[{"instruction": "a", "output": ["b"]}]', 65),
    "no json": (b"hello\n", 65),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_refused_with_place_and_code_and_starts_nothing(advisor, recipe, orders, name):
    """What, why, do, where; exit code 65; no run directory."""
    content, code = BAD_DATA[name]
    orders.write_bytes(content)

    done = advisor("run", recipe)

    assert done.returncode == code, done.stderr
    starts = [line.partition(":")[0] for line in done.stderr.splitlines() if line[:1].strip()]
    assert starts == ["error", "why", "do", "where"]
    assert str(orders) in done.stderr
    assert listing.all_runs() == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["recommend", "--model", "nowhere"], 66, "no model 'nowhere'"),
        (["recommend", "--model", "org/name"], 69, "HF_HUB_OFFLINE"),
        (["recommend", "--model", "./nowhere"], 66, "no model folder"),
        (["model", "show", "nowhere"], 66, "no model 'nowhere'"),
        (["recommend"], 2, "--model"),
        (["run", "nowhere.toml"], 66, "cannot read the recipe"),
        (["data", "check", "nowhere.json"], 66, "nowhere.json"),
        (["watch", "nothing"], 66, "no runs yet"),
        (["stop"], 66, "no runs yet"),
        (["profile"], 66, "no runs yet"),
        (["frobnicate"], 2, "frobnicate"),
        ([], 2, "needs a terminal"),
    ],
)
def test_wrong_input_gives_a_clear_error_and_its_exit_code(advisor, arguments, code, words):
    """On stderr, with nothing on stdout; nobody is asked over the network."""
    done = advisor(*arguments, HF_HUB_OFFLINE="1")

    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr


def test_a_wrong_recipe_key_is_named_with_its_line(advisor, recipe):
    """Exit code 78, with the key it may have been meant to be."""
    recipe.write_text(recipe.read_text() + "rnak = 8\n")

    done = advisor("run", recipe)

    assert done.returncode == 78
    assert "line 10: unknown key `method.rnak`; did you mean `rank`?" in done.stderr
    assert listing.all_runs() == []


def test_a_dry_run_starts_nothing(advisor, recipe):
    """It checks everything and predicts the peak."""
    done = advisor("run", recipe, "--dry-run")

    assert done.returncode == 0, done.stderr
    assert "predicted peak" in done.stderr
    assert listing.all_runs() == []


def test_errors_as_json_have_the_same_parts(advisor):
    """A script need not read sentences."""
    done = advisor("data", "check", "nowhere.json", "--json")

    error = json.loads(done.stdout)["error"]
    assert (error["code"], set(error)) == (66, {"code", "class", "what", "why", "do", "where"})


def test_output_can_be_read_without_utf8(advisor, bare_model):
    """An old locale gets ASCII bars, not an exception."""
    done = advisor(
        "recommend", "--model", bare_model, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_the_doctor_finds_this_installation_sound(advisor):
    """Every package is new enough."""
    done = advisor("doctor")

    assert done.returncode == 0, done.stdout
    assert "BAD" not in done.stdout


def test_the_recipe_is_saved_even_if_nobody_reads_the_page(bare_model, orders, tmp_path):
    """`advisor recommend --save r.toml | head -1` must not lose the recipe."""
    command = f"{ADVISOR} recommend --model {bare_model} --data {orders} --save r.toml | head -c 1"

    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)

    assert (tmp_path / "r.toml").is_file()


def test_training_packages_that_are_missing_are_named(monkeypatch, recipe):
    """With the exit code for this and nothing started."""
    from runner.checks import preflight

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "trl" else find_spec(name)
    )
    from advisor import recipe as recipes

    with pytest.raises(UserError, match="trl") as caught:
        preflight.check(recipes.parse(recipe.read_text(), where="r"), recipe.parent)

    assert caught.value.code == 71


def test_an_interrupt_is_no_traceback(monkeypatch):
    """Ctrl-C in any command: exit code 130."""
    from tui import main
    from tui.commands import probe

    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(probe, "probe", interrupt)

    assert main.run(["probe"]) == 130


def test_a_reader_that_leaves_early_is_no_error(bare_model):
    """`advisor model show M --json | head -c 1` ends quietly."""
    command = f"{ADVISOR} model show {bare_model} --json | head -c 1; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


def test_output_that_cannot_be_written_is_told(advisor):
    """A full disk behind a redirection is no mistake of ours."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [ADVISOR, "probe"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == ExitCode.IO_ERROR
    assert done.stderr.startswith("error: the output cannot be written: No space left")
    assert "Traceback" not in done.stderr
