"""`recommend --for`: the documents' settings for a use, fitted to the machine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from known import HOST, dataset, model

from advisor import recipe
from advisor.choice.answers import Answer, Answers
from advisor.choice.recommend import recommend
from advisor.draft import recipe_of
from advisor.registry.lookup import DOMAINS
from profiles import installation
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin
from profiles.machines import planned
from tui.cli_recommend import recommend as command
from tui.main import run
from tui.pages import recommendation as page
from tui.terminal import Symbols

FEW, MANY = 500, 20_000
QUOTED = {
    "finance": ("lora", {"rank": (16, 32)}),
    "medical": ("qlora", {"rank": (64, 64)}),
    "law": ("lora", {"rank": (16, 16)}),
    "education": ("lora", {"rank": (8, 8)}),
    "research": ("lora", {"rank": (16, 32), "alpha": (32, 32)}),
    "enterprise": ("lora", {"rank": (8, 16), "targets": ("all", "all")}),
    "personal": ("qlora", {"rank": (64, 64), "bits": (4, 4)}),
    "prototype": ("prompt_tuning", {"virtual_tokens": (10, 20)}),
    "production": ("lora", {}),
}
"""The documents' method, and each setting for few rows and for many."""


def advise(use, *, gpu="1x A100 80GB", base="llama-3.1-8b", rows=0, **more):
    """What is recommended for a use."""
    machine = planned.plan_machine(gpu) if isinstance(gpu, str) else gpu
    given = {name: Answer(value, Origin.USER) for name, value in more.items()}
    answers = Answers(domain=Answer(use, Origin.USER), **given)
    return recommend(model(base), machine, dataset(rows=rows) if rows else None, answers)


def reasons(found):
    """Of each setting to start from."""
    return {one.name: one.reason for one in found.hyperparameters}


@pytest.mark.parametrize("use", DOMAINS.names())
def test_a_use_starts_from_the_documents_method_and_settings_and_says_so(use):
    """The upper end of a range for many rows."""
    method, settings = QUOTED[use]
    for at, rows in enumerate((FEW, MANY)):
        found = advise(use, rows=rows)

        assert found.fit.plan.method.name == method
        assert found.runs
        assert not found.detour
        for key, values in settings.items():
            assert getattr(found.fit.plan.settings, key) == values[at], key
            told = reasons(found).get(key.replace("_", " "), "bits are not shown")
            assert key == "bits" or told.startswith(f"documents, for {DOMAINS[use].title}: ")
        assert [(s.answer, s.origin) for s in found.path] == [(use, Origin.USER)]


def test_every_use_is_named_in_the_help_and_has_a_ready_recipe_of_its_settings():
    """One recipe each, within the documents' ranges."""
    words = next(one for one in command.params if one.name == "domain").help
    assert set(QUOTED) == set(DOMAINS.names())
    for use, (method, settings) in QUOTED.items():
        assert use in words
        path = installation.recipes_dir() / f"for-{use}.toml"
        ready = recipe.parse(path.read_text(), where=path.name)
        assert ready.method.name == method
        for key, values in settings.items():
            assert getattr(ready.method.settings, key) in values


def test_the_saved_recipe_has_the_settings_of_the_use():
    """What was shown is what is written."""
    found = advise("research", rows=MANY)

    written = recipe_of(found, model="m", data="d.jsonl", version="1")

    settings = written.method.settings
    assert (written.method.name, settings.rank, settings.alpha) == ("lora", 32, 32)
    words = "What is it for? research (user: documents: LoRA, rank 16 to 32, alpha 32)"
    assert written.plan.path == (words,)


def test_what_does_not_fit_is_fitted_and_what_was_given_up_is_told():
    """QLoRA in place of LoRA; a base in 4 bits below a prompt."""
    found = advise("finance", gpu="1x RTX 4070")
    assert found.rung == "qlora"
    assert found.fit.plan.settings.rank == 16
    assert found.detour.startswith("LoRA: needs up to ")
    assert found.detour.endswith("QLoRA 4-bit is the next that fits")

    prompt = advise("prototype", gpu="1x RTX 3070", rows=FEW)
    assert prompt.fit.plan.settings.bits == 4
    assert prompt.runs


def test_a_rank_that_does_not_fit_is_lowered_and_told():
    """Between the least rank and the documents' there is memory for one."""
    found = advise("personal", gpu="1x RTX 3070", seq_len=1792)

    assert found.rung == "qlora"
    assert found.fit.fits
    assert 8 <= found.fit.plan.settings.rank < 64
    assert reasons(found)["rank"].endswith("; 64 does not fit this machine")


def test_a_small_model_gets_no_more_than_a_quarter_of_its_width():
    """Rank 64 of a model of 128."""
    small = replace(model("qwen2.5-0.5b"), hidden_size=128)
    answers = Answers(domain=Answer("medical", Origin.USER))

    found = recommend(small, HOST, None, answers)

    assert found.fit.plan.settings.rank == 32
    assert reasons(found)["rank"].endswith("more than a quarter of the model's width is too much")


def test_16_bit_weights_are_taken_where_a_machine_cannot_quantize():
    """On Apple GPUs."""
    found = advise("medical", gpu=replace(HOST, backend="mps"), base="qwen2.5-0.5b")

    assert found.rung == "lora"
    assert found.fit.plan.settings.rank == 64
    assert "is not measured" in found.detour


def test_all_targets_of_a_mixture_are_its_experts_too():
    """As the documents ask for a company's own use; other uses adapt the attention."""
    assert advise("enterprise", gpu="4x A100 80GB", base="mixtral-8x7b").rung == "lora_on_experts"
    law = advise("law", gpu="4x A100 80GB", base="mixtral-8x7b")
    assert (law.rung, law.fit.plan.settings.targets) == ("lora", "attention")


def test_production_says_what_is_done_with_the_result():
    """It is merged."""
    assert "merge" in next(
        one.value for one in advise("production").hyperparameters if one.name == "afterwards"
    )
    assert "afterwards" not in reasons(advise("law"))


def test_the_page_says_whose_settings_these_are():
    """In place of a path through the tree; the table says why not the others."""
    found = advise("medical")
    text = "\n".join(page.lines(found, 120, Symbols.BLOCK))

    assert "use          medicine; the documents take QLoRA, rank 64" in text
    assert "because      that is what the documents take for medicine" in text
    assert "in place of a path through the decision tree\n  What is it for? MEDICAL" in text
    lora = next(row for row in found.alternatives if row.rung == "lora")
    assert lora.why_not == "fits, but the documents take another for medicine"


@pytest.mark.parametrize(
    ("more", "what", "do"),
    [
        ({"complexity": "high"}, "alone asks for: --complexity", "leave --complexity out"),
        ({"value": True, "critical": False}, "--critical and --value", "--critical and --value"),
        ({"task": "classify"}, "--for prototype does not go with classify", "leave --for out"),
    ],
)
def test_what_contradicts_a_use_is_refused(more, what, do):
    """Else it would be ignored in silence."""
    with pytest.raises(UserError) as caught:
        advise("prototype", **more)

    assert what in caught.value.what
    assert do in caught.value.do
    assert caught.value.code == ExitCode.USAGE


def test_a_wrong_name_gets_the_nearest(capsys, monkeypatch):
    """And all that there are."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    line = ("recommend", "--model", "Qwen/Qwen2.5-0.5B", "--gpu", "T4", "--for")

    assert run([*line, "medicl"]) == ExitCode.USAGE
    said = " ".join(capsys.readouterr().err.split())
    assert "did you mean `medical`?" in said
    assert "finance, medical, law" in said

    assert run([*line, "law", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["wishes"]["domain"] == {"value": "law", "origin": "user"}
    assert found["leaf"] == "LoRA, rank 16"
