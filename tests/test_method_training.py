"""What holds for every method that runs: it learns, goes on to the last bit, and can be used.

Each case is a real run in this process, whole and killed half way, on a tiny random Llama in fp32.
What was published is loaded by one other process that has transformers and PEFT and nothing of us.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from method_cases import CASES, EXPERTS, QUANTIZED  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.cost import weights  # noqa: E402
from advisor.framework import OURS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import checkpoints, methods  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402

pytestmark = pytest.mark.slow
STEPS, SAVED, KILLED = 12, 5, 7
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    *("tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)
"""What both families are told alike."""
IDS = torch.arange(3, 19)[None]
QUICK = ("pissa", "lora+", "p-tuning v2", "ia3", "bitfit", "houlsby")
"""What each family has that could go wrong in a way of its own."""
REST = tuple(name for name in CASES if name not in QUICK)
ALL = CASES | QUANTIZED
FEW_BITS = [pytest.param(name, marks=pytest.mark.long) for name in QUANTIZED]
LONG = [pytest.param(name, marks=pytest.mark.long) for name in REST]
RELOAD = Path(__file__).parent / "support" / "reload.py"


class KilledError(BaseException):
    """As abrupt as a signal."""


class Done(NamedTuple):
    """Both runs of a case, and what the model predicted as it was published."""

    whole: object
    resumed: object
    logits: object


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A few rows, again and again."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = [{"instruction": f"count to {n}", "output": "one two three " * 3} for n in range(8)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


@pytest.fixture(scope="module")
def bases(tiny_model, tmp_path_factory):
    """Family -> folder of a tiny model with the same tokenizer."""
    told = AutoConfig.from_pretrained(tiny_model).to_dict()
    sizes = {key: value for key, value in told.items() if key in SIZES}
    found = {"llama": tiny_model}
    for family, more in (("qwen2", {}), ("mixtral", EXPERTS)):
        folder = tmp_path_factory.mktemp("bases") / family
        shutil.copytree(tiny_model, folder)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **more))
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):  # transformers has them begin as zeros
                parameter.data.normal_(std=0.02)
        model.save_pretrained(folder)
        found[family] = folder
    return found


@pytest.fixture(scope="module")
def trained(bases, rows, tmp_path_factory):
    """Name of a case -> its runs, made once."""
    home = tmp_path_factory.mktemp("home")

    @cache
    def train(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(home))
            case = ALL[name]
            whole, resumed = (new_run(case, bases[case.family], rows) for _ in range(2))
            found = attempt(patch, whole)
            with pytest.raises(KilledError):
                attempt(patch, resumed, dies_at=KILLED)
            attempt(patch, resumed, again=True)
        return Done(whole, resumed, found[-1])

    return train


def new_run(case, model, rows):
    """Of twelve steps of two rows, saved in the middle."""
    run = real_runs.new_run(
        model,
        rows,
        method=case.method,
        adapter=case.settings,
        steps=STEPS,
        accumulation=1,
        save_every=SAVED,
        more='scheduler = "constant"\nwarmup = 0.0\n',
    )
    text = run.recipe.read_text()
    run.recipe.write_text(text.replace("= 5e-3", f"= {case.rate}"))
    return run


def attempt(patch, run, *, dies_at=None, again=False):
    """An attempt of the run; the logits of each model that was published."""
    step, save, found = RunSft.training_step, RunSft.save_model, []

    def stepping(trainer, *args, **kw):
        if trainer.state.global_step == dies_at:
            raise KilledError
        return step(trainer, *args, **kw)

    def saving(trainer, folder=None, _internal_call=False):
        if not _internal_call:
            with torch.no_grad():
                width = IDS.shape[1]
                found.append(trainer.model.eval()(input_ids=IDS).logits[:, -width:].clone())
        save(trainer, folder, _internal_call)

    with patch.context() as inner:
        inner.setattr(RunSft, "training_step", stepping)
        inner.setattr(RunSft, "save_model", saving)
        (real_runs.next_attempt if again else real_runs.attempt)(run)
    return found


@pytest.fixture(scope="module")
def reloaded(trained, bases, tmp_path_factory):
    """Names of cases -> logits of what each published; of a family, those of its base."""

    @cache
    def load(names):
        folder = tmp_path_factory.mktemp("reload")
        asked, answers = folder / "asked.json", folder / "answers.pt"
        models = {family: (str(base), str(base)) for family, base in bases.items()}
        for name in names:
            models[name] = str(trained(name).resumed.model), str(bases[CASES[name].family])
        asked.write_text(json.dumps({"models": models, "ids": IDS.tolist()}))
        subprocess.run([sys.executable, "-I", RELOAD, asked, answers], check=True, timeout=300)
        return torch.load(answers)

    return load


@pytest.mark.parametrize("name", [*QUICK, *LONG, *FEW_BITS])
def test_it_learns_what_the_estimate_says(trained, bases, name):
    """The loss falls; as many weights train as the formula counts."""
    run = trained(name).whole
    losses = list(real_runs.losses(run).values())
    plan = recipes.parse(run.recipe.read_text(), where="test").to_plan(OURS)
    (prepared,) = real_runs.events(run, "prepared")

    assert len(losses) == STEPS
    assert mean(losses[-3:]) < mean(losses[:3])
    base = from_folder(bases[ALL[name].family])
    assert prepared["num_trainable"] == weights.trained_params(base, plan)


@pytest.mark.parametrize("name", [*QUICK, *LONG, *FEW_BITS])
def test_killed_and_gone_on_with_it_is_the_same_bit_for_bit(trained, name):
    """Weights and losses."""
    done = trained(name)
    wanted, found = real_runs.weights(done.whole), real_runs.weights(done.resumed)

    assert [e["from_step"] for e in real_runs.events(done.resumed, "resumed")] == [SAVED]
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert real_runs.losses(done.resumed) == real_runs.losses(done.whole)


@pytest.mark.parametrize("name", [*QUICK, *LONG])
def test_what_was_published_is_what_was_trained(trained, reloaded, name):
    """On the untouched base, by the libraries alone; and it is not the base."""
    wanted, group = trained(name).logits, QUICK if name in QUICK else REST
    found = reloaded(group)

    assert (found[name] - wanted).abs().max() < 1e-4
    assert (found[CASES[name].family] - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["pissa", pytest.param("olora", marks=pytest.mark.long)])
def test_a_checkpoint_of_another_start_is_refused(trained, tiny_model, name):
    """Its adapters would stand beside a base that lacks something else."""
    run = trained(name).whole
    plan = recipes.parse(run.recipe.read_text(), where="test").to_plan(OURS)
    model = methods.prepare(plan, tiny_model, 0)
    folder = checkpoints.committed(run)[0].path
    methods.restore(model, plan, folder)
    tensors = load_file(folder / "method_state.safetensors")
    turned = {key: -tensor for key, tensor in tensors.items()}  # as another machine's SVD may

    save_file(turned, folder / "method_state.safetensors")
    with pytest.raises(UserError, match="cannot be gone on with here") as turned_away:
        methods.restore(model, plan, folder)
    (folder / "method_state.safetensors").unlink()
    with pytest.raises(UserError):
        methods.restore(model, plan, folder)

    assert turned_away.value.code is ExitCode.NO_CHECKPOINT


def test_an_adapter_of_a_start_is_published_as_an_ordinary_one(trained):
    """At twice the rank and the same scaling, for any program that takes a LoRA."""
    config = json.loads((trained("pissa").whole.model / "adapter_config.json").read_text())

    assert (config["r"], config["use_rslora"], config["init_lora_weights"]) == (32, False, True)
    assert config["lora_alpha"] / config["r"] == 32 / 16**0.5


def test_a_new_head_is_published_as_it_was_trained(tiny_model, tmp_path):
    """Only adapters have a start that is subtracted."""
    plan = CASES["pissa"].plan(seq_len=8, task="reward", precision="fp32")
    model = methods.prepare(plan, tiny_model, 0, num_labels=1)
    model.save_pretrained(tmp_path)
    before = load_file(tmp_path / "adapter_model.safetensors")

    methods.publish(model, plan, tmp_path)
    after = load_file(tmp_path / "adapter_model.safetensors")

    (head,) = (name for name in before if "score" in name)
    assert torch.equal(after[head], before[head])
    assert all(after[n].numel() == 2 * t.numel() for n, t in before.items() if n != head)
