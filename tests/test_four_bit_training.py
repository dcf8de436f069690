"""Real runs on a tiny mixture with experts of 4 bits, against LoRA's on 16 bits."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import mean

import mixtures
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("bitsandbytes")

import real_runs  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from runner.demo_text import instruction_rows  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.long]
STEPS, LAST = 100, 20
RELOAD = Path(__file__).parent / "support" / "reload.py"
IDS = torch.arange(3, 25)[None]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Makes a run of so many steps on rows with orders, from a seed."""
    home = tmp_path_factory.mktemp("home")

    def make(model, seed, **settings):
        rows = home / f"rows-{seed}.json"
        rows.write_text(json.dumps(list(instruction_rows(200, seed=seed))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(home))
            run = real_runs.new_run(
                model, rows, accumulation=1, micro_batch=4, save_every=200, **settings
            )
            assert real_runs.attempt(run) == 0
        return run

    return make


@pytest.fixture(scope="module")
def base(runs, tmp_path_factory):
    """Four experts in each of two layers, which have learnt something."""
    folder = mixtures.save("mixtral", tmp_path_factory.mktemp("base") / "mixtral")
    run = runs(folder, 2, method="full", steps=50)
    losses = list(real_runs.losses(run).values())
    assert losses[-1] < 0.5 * losses[0]
    return run.model


@pytest.fixture(scope="module")
def trained(base, runs):
    """(method, targets) -> a run of a hundred steps, made once."""

    @cache
    def train(method, targets):
        adapter = f'rank = 8\nalpha = 16\ntargets = "{targets}"'
        return runs(base, 1, method=method, adapter=adapter, steps=STEPS)

    return train


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_the_loss_is_within_two_percent_of_lora_s_on_16_bits(trained, targets):
    """After a hundred steps, as a mean of the last twenty; and it has fallen."""
    found = {}
    for method in ("lora", "qlora"):
        losses = list(real_runs.losses(trained(method, targets)).values())
        assert len(losses) == STEPS
        found[method] = mean(losses[-LAST:])
        assert found[method] < 0.98 * mean(losses[:5])

    print(f"{targets}: {found['lora']:.4f} on 16 bits, {found['qlora']:.4f} on 4")  # noqa: T201
    assert found["qlora"] == pytest.approx(found["lora"], rel=0.02)


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_what_was_trained_on_4_bits_loads_on_16_bits_with_peft_alone(
    trained, base, targets, tmp_path
):
    """In a new process: every tensor of the file, and what they predict there."""
    folder = trained("qlora", targets).model
    asked, answers = tmp_path / "asked.json", tmp_path / "answers.pt"
    models = {"adapter": (str(folder), str(base)), "base": (str(base), str(base))}
    asked.write_text(json.dumps({"models": models, "ids": IDS.tolist()}))

    subprocess.run([sys.executable, "-I", RELOAD, asked, answers], check=True, timeout=300)
    found = torch.load(answers)
    whole = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(whole, folder)
    there = {n: t for n, t in model.state_dict().items() if "lora_" in n}
    tensors = load_file(folder / "adapter_model.safetensors")

    assert len(there) == len(tensors) > 0
    for name, tensor in tensors.items():
        place = there[name.replace("lora_A", "lora_A.default").replace("lora_B", "lora_B.default")]
        assert torch.equal(place, tensor.float())
    assert (found["adapter"] - found["base"]).abs().max() > 0.1
