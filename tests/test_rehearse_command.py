"""`advisor recommend --rehearse`: both levels beside each other, and what is said without torch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from dataclasses import replace

import pytest
from known import dataset, model
from plans import changed
from rehearsed import ANSWER, GIB, answer_at_once

from advisor.choice.answers import Answer, Answers
from advisor.choice.recommend import recommend
from profiles.facts import Origin
from profiles.machines import planned
from runner.rehearsal import client
from tui.main import run
from tui.pages import rehearsal as page
from tui.pages.json_keys import RECOMMENDATION, UNMODELLED

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
UNMODELLED_MODEL = "LiquidAI/LFM2-1.2B"


@pytest.fixture
def asked(monkeypatch):
    """The requests that a rehearsal's process would get; each is answered at once."""
    return answer_at_once(monkeypatch)


def test_the_page_shows_both_levels_and_their_difference(asked, capsys):
    """Of the recommended plan, on a GPU like the one named."""
    assert run(["recommend", "--model", LLAMA, "--gpu", "1x RTX 4090", "--rehearse"]) == 0

    said = capsys.readouterr()
    out = " ".join(said.out.split())
    assert "rehearsing LoRA of" in said.err
    assert "level 2, rehearsed in 4 s" in out
    assert "peak 16.4 GiB 17.0 GiB +3.5 %" in out
    assert "of 24.0 GiB free: it fits" in out
    (request,) = asked
    assert (request["model"], request["device"], request["capability"]) == (LLAMA, "cuda", (8, 9))
    assert request["plan"]["method"] == "lora"


def test_the_json_has_the_second_level(asked, capsys):
    """All of its documented keys."""
    run(["recommend", "--model", LLAMA, "--gpu", "1x RTX 4090", "--rehearse", "--json"])

    found = json.loads(capsys.readouterr().out)["rehearsal"]
    told = {key.split(".")[1].removesuffix("[]") for key in RECOMMENDATION if "rehearsal." in key}
    assert told | {"moments"} == set(found) | {"moments"}
    assert (found["level"], found["allocated_bytes"]) == (2, 17 * GIB)
    assert found["difference"] == pytest.approx(17 * GIB / found["formula_bytes"] - 1)
    assert found["fits"]


def test_a_rehearsal_can_contradict_the_formula(asked):
    """The page says that the plan does not fit then."""
    found = recommend(model(), planned.plan_machine("1x RTX 4090"), dataset(), Answers())
    seen = client.rehearse(found.model, found.fit.plan, found.machine)
    more = 8 * GIB
    seen = replace(seen, peak_bytes=seen.formula.allocated_bytes + more)

    assert "it does NOT fit" in " ".join("\n".join(page.lines(seen, found.fit, 80)).split())


def test_sharded_plans_are_rehearsed_whole(asked):
    """And nobody is told that the device's use were known better for it."""
    box = planned.plan_machine("4x RTX 4090")
    found = recommend(model(), box, None, Answers(critical=Answer(True, Origin.USER)))
    plan = changed(found.fit.plan, strategy="fsdp", num_gpus=4)

    seen = client.rehearse(found.model, plan, box)

    fit = replace(found.fit, plan=plan)
    assert "the plan divides it" in " ".join("\n".join(page.lines(seen, fit, 80)).split())


def test_a_model_without_a_formula_is_rehearsed_instead(asked, capsys):
    """Every method that can train it, unless its weights alone are too many."""
    assert run(["recommend", "--model", UNMODELLED_MODEL, "--gpu", "T4", "--rehearse"]) == 71

    out = " ".join(capsys.readouterr().out.split())
    assert "none holds: 10 of 16 layers are short convolutions" in out
    assert "full fine-tuning no weights and states alone take" in out
    assert "QLoRA rank 16 no 17.2-19.6" in out
    assert [request["plan"]["method"] for request in asked] == [
        *("freeze", "lora", "qlora", "lora_experts", "prompt_tuning", "p_tuning", "ln_tuning")
    ]
    assert "IA3 no IA3 scales keys" in out

    arguments = ["--gpu", "RTX 4090", "--rehearse", "--json"]
    assert run(["recommend", "--model", UNMODELLED_MODEL, *arguments]) == 0

    found = json.loads(capsys.readouterr().out)
    keys = {f"rehearsals[].{key}" for key in found["rehearsals"][0]} | {"unmodelled"}
    assert keys == set(UNMODELLED)
    able = ["full", "freeze", "lora", "qlora", "lora_experts"]
    able += ["prompt_tuning", "p_tuning", "ln_tuning"]
    assert [one["method"] for one in found["rehearsals"] if one["fits"]] == able


def test_one_method_that_fits_is_enough(monkeypatch, capsys):
    """The exit code says so, though others do not."""

    def answer(asked):
        small = asked["plan"]["method"] == "qlora"
        return ANSWER | {"peak_bytes": 9 * GIB} if small else ANSWER

    monkeypatch.setattr(client, "_ask", answer)
    arguments = ["--gpu", "T4", "--rehearse", "--json"]

    assert run(["recommend", "--model", UNMODELLED_MODEL, *arguments]) == 0

    found = json.loads(capsys.readouterr().out)["rehearsals"]
    assert [one["method"] for one in found if one["fits"]] == ["qlora"]


def test_a_saved_recipe_is_told_to_be_impossible_without_a_formula(asked, capsys, tmp_path):
    """And only if one was wanted."""
    arguments = ["--gpu", "RTX 4090", "--rehearse"]
    save = ["--data", str(tmp_path / "rows.json"), "--save", str(tmp_path / "r.toml")]

    assert run(["recommend", "--model", UNMODELLED_MODEL, *arguments, *save]) == 0
    assert "no recipe was written" in capsys.readouterr().err

    assert run(["recommend", "--model", UNMODELLED_MODEL, *arguments]) == 0
    said = capsys.readouterr()
    assert "no recipe was written" not in said.err
    assert "rehearsing every method that may fit of LiquidAI/LFM2-1.2B" in said.err
    assert not (tmp_path / "r.toml").exists()

    assert run(["recommend", "--model", UNMODELLED_MODEL, *arguments, *save[:-1], "-"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "LiquidAI/LFM2-1.2B" in said.err
    assert "no recipe was written" in said.err


def test_impossible_rows_are_refused_for_such_a_model_too(asked, capsys):
    """Before anything is rehearsed."""
    arguments = ["--gpu", "T4", "--rehearse", "--seq", "0"]

    assert run(["recommend", "--model", UNMODELLED_MODEL, *arguments]) == 2
    assert asked == []
    assert "rows of 0 tokens" in capsys.readouterr().err


def test_without_torch_the_missing_packages_are_named(monkeypatch, capsys):
    """What, why, do, where; nothing is started."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )

    code = run(["recommend", "--model", LLAMA, "--gpu", "1x RTX 4090", "--rehearse"])

    said = capsys.readouterr()
    assert (code, said.out) == (71, "")
    assert "packages that are not installed: torch" in " ".join(said.err.split())
    assert "leave --rehearse out" in " ".join(said.err.split())


@pytest.mark.parametrize(
    ("stdout", "words"),
    [
        ("", "it said nothing"),
        ('{"error": {"what": "w", "why": "y", "do": "d", "where": "x", "code": 71}}', "w"),
    ],
)
def test_a_rehearsal_that_fails_is_told(monkeypatch, capsys, stdout, words):
    """As an error of four parts, not a traceback."""
    done = subprocess.CompletedProcess([], 1, stdout=stdout, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    code = run(["recommend", "--model", LLAMA, "--gpu", "1x RTX 4090", "--rehearse"])

    assert code in {70, 71}
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_rehearsal_agrees_with_the_formula(tiny_model, capsys):
    """The process, the model's own code, and both numbers."""
    arguments = ["--gpu", "RTX 4090", "--seq", "128", "--rehearse", "--json"]

    assert run(["recommend", "--model", str(tiny_model), *arguments]) == 0

    found = json.loads(capsys.readouterr().out)["rehearsal"]
    assert found["method"] == "lora"
    assert abs(found["difference"]) < 0.02
