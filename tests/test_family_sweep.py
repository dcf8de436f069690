"""Every family that the product trains: a few steps of real runs, and the result loads elsewhere.

LoRA and full runs go through the product's own session; what they publish is loaded in one new
process with transformers and PEFT alone. What cannot be trained is refused before the start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tiny_families  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.graph.attention import READ_ACROSS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from runner.checks import preflight  # noqa: E402
from runner.training import isolation  # noqa: E402

FAMILIES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2",
    "gpt_bigcode", "gptj", "gpt_neox", "opt", "bloom", "falcon", "mpt", "starcoder2", "stablelm",
    "olmo", "olmo2", "cohere", "granite", "mixtral", "qwen2_moe", "qwen3_moe", "granitemoe",
    "deepseek_v3", "gpt_oss",
)  # fmt: skip
QUICK = ("llama", "gemma3_text", "gpt2", "falcon", "opt", "mixtral", "granitemoe", "deepseek_v3",
         "gpt_oss")  # fmt: skip
"""Those whose layers are built in ways of their own: convolutions, joined projections, experts."""
REST = tuple(family for family in FAMILIES if family not in QUICK)
LOAD = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

ids = torch.arange(5, 25)[None]
for base, adapter, whole in json.load(sys.stdin):
    with torch.no_grad():
        models = [AutoModelForCausalLM.from_pretrained(place) for place in (base, base, whole)]
        models[1] = PeftModel.from_pretrained(models[1], adapter)
        before, adapted, full = (model.eval()(input_ids=ids).logits for model in models)
    print(float((adapted - before).abs().max()), float((full - before).abs().max()))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Eight short rows."""
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(json.dumps([{"prompt": f"{n}:", "completion": "a b c"} for n in range(8)]))
    return path


def new_run(base, rows, method, adapter="rank = 4\nalpha = 8"):
    """A run that preflight lets through."""
    run = real_runs.new_run(
        base, rows, method=method, adapter=adapter, steps=2, save_every=None, accumulation=1
    )
    preflight.check(recipes.parse(run.recipe.read_text(), where="test"), Path("/"))
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "families", [QUICK, pytest.param(REST, marks=pytest.mark.long)], ids=["quick", "rest"]
)
def test_every_family_trains_and_its_result_loads_in_another_process(tmp_path, rows, families):
    """With an adapter and whole; each answers otherwise than its base."""
    places = []
    for family in families:
        base = tiny_families.save(family, tmp_path / family)
        runs = [new_run(base, rows, method) for method in ("lora", "full")]
        assert [real_runs.attempt(run) for run in runs] == [0, 0], family
        places.append([str(base), *(str(run.model) for run in runs)])

    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(places),
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    moved = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(moved) == len(families)
    assert [f for f, far in zip(families, moved, strict=True) if min(far) < 1e-5] == []


@pytest.mark.parametrize("family", sorted(tiny_families.FAMILIES))
def test_packed_documents_are_as_alone_or_not_packed(family):
    """Within 1e-5, whatever the family."""
    found = isolation.measure(tiny_families.make(family), range(5, 45), range(30, 54))

    assert found.apart == (family not in READ_ACROSS)
    if found.apart:
        assert found.difference < 1e-5


REFUSED = {"llama4_text": ("full", "TRL's trainers cannot read")}


@pytest.mark.parametrize(("family", "case"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_trained_is_refused_with_a_reason(tmp_path, rows, family, case):
    """Before the start."""
    method, why = case
    base = tiny_families.save(family, tmp_path / family)

    with pytest.raises(UserError) as caught:
        new_run(base, rows, method)

    assert caught.value.code is ExitCode.BAD_RECIPE
    assert why in caught.value.why


@pytest.mark.slow
def test_a_router_that_is_a_linear_with_several_outputs_is_left_alone(tmp_path, rows):
    """By adapters on all linears, for PEFT cannot read its output; all weights train too."""
    base = tiny_families.save("phimoe", tmp_path / "phimoe")

    for run in (new_run(base, rows, "lora"), new_run(base, rows, "full")):
        assert real_runs.attempt(run) == 0


def test_another_name_of_the_experts_is_not_saved(tmp_path):
    """It is for TRL alone."""
    from runner.methods.base import load_base

    base = tiny_families.save("granitemoe", tmp_path / "base")
    model = load_base(base)
    model.save_pretrained(tmp_path / "saved")

    assert model.config.num_experts == 4
    assert "num_experts" not in json.loads((tmp_path / "saved" / "config.json").read_text())
