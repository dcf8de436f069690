"""`advisor recommend` as scripts and people call it: JSON, comparison, refusals, recipes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from advisor import recipe as recipes
from profiles.runs import listing
from tui import plain
from tui.main import run
from tui.pages.json_keys import COMPARISON, RECOMMENDATION

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
MIXTURE = "Qwen/Qwen3-30B-A3B"
UNMODELLED = "Qwen/Qwen3-Next-80B-A3B-Instruct"


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """Run a command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")

    def called(*arguments):
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def keys_of(value, path=""):
    """Every path to a plain value, `[]` for a list's entries."""
    if isinstance(value, dict):
        return {key for name, part in value.items() for key in keys_of(part, f"{path}.{name}")}
    if isinstance(value, list):
        return {key for part in value for key in keys_of(part, f"{path}[]")}
    return {path.lstrip(".")}


def is_told(key, told):
    """Named, or by its parent's `*`, or an object that is null here."""
    parts = key.split(".")
    if any(name.replace("*", parts[-1]).startswith(f"{key}.") for name in told):
        return True
    grown = {".".join([*parts[:n], "*", *parts[n + 1 :]]) for n in range(len(parts))}
    grown |= {key, key.removesuffix("[]"), ".".join([*parts[:-1], "*"])}
    return not grown.isdisjoint(told)


def numbers_of(value, name=""):
    """Every number with the name of its key."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from numbers_of(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from numbers_of(part, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


@pytest.mark.parametrize(
    ("name", "gpu"),
    [(LLAMA, "1x RTX 4090"), (MIXTURE, "2x H100"), ("meta-llama/Llama-3.1-70B", "T4")],
)
def test_every_key_of_the_json_is_documented(call, orders, name, gpu):
    """And every documented one is there; bytes are whole numbers."""
    _, out, _ = call(
        *("recommend", "--model", name, "--gpu", gpu, "--data", orders, "--json", "--price", "2")
    )
    found = json.loads(out)
    recipe = found.pop("recipe")

    written = keys_of(found)
    assert found["schema"] == 2
    assert {key for key in written if not is_told(key, RECOMMENDATION)} == set()
    if recipe is not None:
        assert {
            key
            for key in keys_of(recipe, "recommended")
            if not is_told(key, RECOMMENDATION) and key != "recommended.why"
        } == set()
    floats = [n for n, v in numbers_of(found) if n.endswith("_bytes") and not isinstance(v, int)]
    assert floats == []


def test_the_documented_keys_are_written(call, orders):
    """Those of a full answer; a null, or an empty list, hides what is below it."""
    _, out, _ = call(
        *("recommend", "--model", LLAMA, "--gpu", "1x A100", "--data", orders, "--json"),
        *("--price", "2", "--seq", "512", "--batch", "8"),
    )

    written = keys_of(json.loads(out))

    missing = [
        key
        for key in RECOMMENDATION
        if "*" not in key
        and not key.startswith("rehearsal.")
        and key.removesuffix("[]") not in written | {k.removesuffix("[]") for k in written}
    ]
    assert missing == []


def test_the_json_holds_the_answer_and_where_it_came_from(call):
    """Method, plan, path with origins, all alternatives with what would unlock them."""
    code, out, err = call(
        "recommend", "--model", LLAMA, "--gpu", "1x RTX 4090", "--json", "--critical"
    )

    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["recommended"]["memory"]["level"] == 1
    assert found["recommended"]["plan"]["effective_batch"] == 16
    assert found["wishes"]["critical"] == {"value": True, "origin": "user"}
    assert {step["origin"] for step in found["path"]} <= {
        *("measured", "predicted", "user", "default")
    }
    assert [row["rung"] for row in found["alternatives"] if row["chosen"]] == [
        found["recommended"]["rung"]
    ]
    full = next(row for row in found["alternatives"] if row["rung"] == "full")
    assert not full["fits"]
    assert full["unlocks"][-1]["kind"] == "memory"
    assert full["unlocks"][-1]["value"] > 0


def test_experts_are_told_apart_in_the_json(call):
    """All parameters and the active ones."""
    _, out, _ = call("recommend", "--model", MIXTURE, "--gpu", "1x H100", "--json")

    base = json.loads(out)["model"]
    assert (base["num_experts"], base["num_params"]) == (128, 30_532_122_624)
    assert base["active_params"] < base["num_params"] / 8


def test_a_number_that_is_none_becomes_null(capsys):
    """JSON has no NaN and no infinity."""
    plain.show_json({"a": float("nan"), "b": [float("inf")], "c": 1.5})

    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None], "c": 1.5}


def test_the_keys_are_explained_on_request(call):
    """Without a model."""
    code, out, _ = call("recommend", "--json-keys")

    assert code == 0
    assert "recommended.memory" in out
    assert max(map(len, out.splitlines())) <= 80


# Comparison


def test_machines_are_compared_a_row_each(call, orders):
    """Method, GPUs, peak of what is free, speed, hours, cost; and why not more."""
    code, out, _ = call(
        *("recommend", "--model", LLAMA, "--data", orders, "--compare"),
        *("1x RTX 4090", "1x L40S", "8x H100", "--price", "0.4", "--price", "1.1", "--price", "20"),
        *("--complexity", "medium"),
    )

    rows = out.splitlines()
    assert code == 0
    heads = ["machine", "method", "GPUs", "peak/free", "GiB", "tokens/s", "hours", "cost"]
    assert heads in [row.split() for row in rows]
    assert [row[:11] for row in rows if row[:2] in {"1x", "8x"}] == [
        *("1x RTX 4090", "1x L40S    ", "8x H100 SXM")
    ]
    assert "    not last layers only (freeze): needs up to" in out
    assert max(map(len, rows)) <= 80


def test_a_comparison_as_json(call, orders):
    """Documented keys, one entry a machine."""
    _, out, _ = call(
        *("recommend", "--model", LLAMA, "--data", orders, "--json", "--compare", "T4", "8x H100"),
        *("--price", "0.2", "--price", "20"),
    )

    found = json.loads(out)
    small, large = found["machines"]
    assert keys_of(found["machines"], "machines") == set(COMPARISON)
    assert (small["runs"], large["num_gpus"]) == (True, 8)
    assert small["cost"] == pytest.approx(0.2 * small["hours"])
    assert large["price_per_hour"] == 20


def test_a_comparison_where_nothing_fits_says_so(call):
    """With the exit code for it."""
    code, out, _ = call(
        "recommend", "--model", "meta-llama/Llama-3.1-70B", "--compare", "T4", "RTX 3060"
    )

    assert code == 71
    assert out.count("nothing fits: even") == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["8x H100"], "is no option"),
        (["--compare"], "nothing to compare"),
        (["--compare", "T4", "--gpu", "T4"], "does not go with --gpu"),
        (["--compare", "T4", "L4", "--price", "1"], "1 prices for 2 machines"),
        (["--price", "1", "--price", "2"], "2 prices for 1 machine"),
        (["--price", "nan"], "a price of nan"),
        (["--price", "-1"], "a price of -1"),
        (["--save", "r.toml"], "a recipe needs data"),
        (["--seq-len", "0"], "rows of 0 tokens cannot be"),
        (["--seq", "-5"], "rows of -5 tokens cannot be"),
        (["--seq", "10000000"], "longer than what"),
        (["--batch", "0"], "a batch of 0 rows"),
        (["--gpu", "0x H100"], "the number of GPUs must be between"),
        (["--gpu", "1x RTX 9999"], 'no GPU called "RTX 9999"'),
        (["--compare", "T4", "--seq", "0"], "rows of 0 tokens cannot be"),
    ],
)
def test_what_cannot_be_is_refused_in_four_parts(call, arguments, words):
    """Exit code 2, nothing on stdout."""
    code, out, err = call("recommend", "--model", LLAMA, *arguments)

    assert (code, out) == (2, ""), err
    assert words in " ".join(err.split())
    starts = [line.partition(":")[0] for line in err.splitlines() if line[:1].strip()]
    assert starts == ["error", "why", "do", "where"]


def test_a_model_without_a_formula_is_refused_with_the_way_out(call):
    """It can be rehearsed."""
    code, out, err = call("recommend", "--model", UNMODELLED, "--gpu", "1x H100")

    assert (code, out) == (2, "")
    assert "36 of 48 layers use linear attention" in " ".join(err.split())
    assert "add --rehearse" in err


def test_a_misspelt_model_gets_near_names(call):
    """From the catalog; nobody is asked."""
    code, _, err = call("recommend", "--model", "Llama-3.1-8B-Instrct")

    assert code == 66
    assert "do:    use meta-llama/Llama-3.1-8B-Instruct" in err


def test_a_name_works_wherever_a_model_is_named(call, orders):
    """Of the catalog, in full or without the organisation."""
    assert "8 030 261 248, as the catalog says" in call("model", "show", LLAMA)[1]
    assert "8 030 261 248" in call("model", "show", "Llama-3.1-8B-Instruct")[1]

    code, out, err = call("data", "check", orders, "--model", LLAMA)

    assert code == 0
    assert "from characters" in out
    assert "is not on this disk" in err


# Saved recipes


def test_the_recipe_of_a_catalog_model_names_the_download(call, orders, tmp_path):
    """Where a recipe looks for its model, the download puts it."""
    (tmp_path / "sub").mkdir()
    code, _, err = call(
        *("recommend", "--model", LLAMA, "--gpu", "1x RTX 4090"),
        *("--data", orders, "--save", "sub/r.toml"),
    )

    assert code == 0
    assert f"hf download {LLAMA} --local-dir sub/{LLAMA}" in err
    written = recipes.parse((tmp_path / "sub/r.toml").read_text(), where="r")
    assert written.model.id == LLAMA

    code, _, err = call("run", "sub/r.toml")

    assert code == 66
    assert f"error: {LLAMA} is not on this disk" in err
    assert "hf download" in err
    assert listing.all_runs() == []


def test_the_saved_recipe_is_what_runs(call, orders, tmp_path):
    """And stands first; what the documents name beside it is told."""
    code, out, err = call(
        *("recommend", "--model", LLAMA, "--gpu", "RTX 4090", "--complexity", "low"),
        *("--data", orders, "--save", "r.toml"),
    )

    assert code == 0
    assert out.startswith("recommended  LoRA rank 4")
    assert "NOT YET" not in out
    assert "adapter or P-tuning, for which" in out
    assert "wrote r.toml" in err
    written = recipes.parse((tmp_path / "r.toml").read_text(), where="r")
    assert (written.method.name, written.method.rank) == ("lora", 4)


def test_no_recipe_is_written_where_nothing_fits(call, orders, tmp_path):
    """The page is shown, the exit code is for devices."""
    code, out, err = call(
        *("recommend", "--model", "meta-llama/Llama-3.1-70B", "--gpu", "T4"),
        *("--data", orders, "--save", "r.toml"),
    )

    assert code == 71
    assert "nothing fits on this machine" in out
    assert "no recipe was written: nothing fits" in err
    assert not (tmp_path / "r.toml").exists()


# Cold start


def test_a_catalog_model_loads_nothing_heavy():
    """What makes the cold start slow stays out."""
    heavy = {
        *("torch", "numpy", "textual", "pydantic", "huggingface_hub", "transformers", "rich"),
        *("tokenizers", "tomli_w"),
    }
    code = (
        "import sys\nfrom tui.main import run\n"
        f"code = run(['recommend', '--model', {LLAMA!r}, '--gpu', '1x RTX 4090'])\n"
        f"loaded = {heavy!r} & set(sys.modules)\n"
        "sys.exit(code or (f'loaded {loaded}' if loaded else 0))"
    )

    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("columns", "width"), [("", 80), ("200", 120), ("100", 100), ("10", 40), ("x", 80)]
)
def test_the_page_is_as_wide_as_reads_well(monkeypatch, columns, width):
    """80 columns into a pipe."""
    monkeypatch.setenv("COLUMNS", columns)

    assert plain.page_width() == width


@pytest.mark.parametrize(
    ("options", "explained", "priced"),
    [((), False, False), (("--explain",), True, False), (("--price", "2"), False, True)],
)
def test_what_the_page_has_is_asked_for_by_options(call, orders, options, explained, priced):
    """Every term of the estimate, what a machine costs; nothing of it unless it is wanted."""
    code, out, _ = call("recommend", "--model", LLAMA, "--gpu", "L40S", "--data", orders, *options)

    lines = out.splitlines()
    assert code == 0
    assert any(line.startswith("the estimate, term by term") for line in lines) == explained
    assert any(line.startswith("cost ") for line in lines) == priced
