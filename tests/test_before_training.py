"""What a run makes of its recipe before it trains: arguments, the lock, a look at the weights."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from transformers import TrainingArguments  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.framework import OURS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import rundir  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402
from runner.engines.ddp import ENGINE as DDP  # noqa: E402
from runner.engines.engine import Engine  # noqa: E402
from runner.training import arguments, finite, recipe_lock  # noqa: E402

HEAD = """schema = 1
name = "r"
[model]
id = "model"
[data]
train = "rows.json"
[method]
name = "lora"
[train]
"""
VALUES = """epochs = 3.0
max_steps = 40
learning_rate = 0.003
scheduler = "linear"
warmup = 0.25
optimizer = "adamw_8bit"
weight_decay = 0.02
max_grad_norm = 0.5
micro_batch = 2
accumulation = 3
precision = "bf16"
checkpointing = true
workers = 4
log_every = 6
seed = 7
"""


def common(text, *, evaluates=True, engine=None, folder="out"):
    """The fields for a recipe's [train]."""
    recipe = recipes.parse(HEAD + text, where="test")
    return arguments.common(
        recipe, recipe.to_plan(OURS), engine or Engine(), output_dir=folder, evaluates=evaluates
    )


def test_what_the_recipe_says_is_what_the_library_does(tmp_path):
    """Every setting of [train]."""
    made = TrainingArguments(**common(VALUES, folder=tmp_path))

    assert made.output_dir == str(tmp_path)
    assert (made.num_train_epochs, made.max_steps, made.warmup_steps) == (3.0, 40, 0.25)
    assert (made.learning_rate, made.lr_scheduler_type) == (0.003, "linear")
    assert (made.weight_decay, made.max_grad_norm) == (0.02, 0.5)
    assert (made.per_device_train_batch_size, made.per_device_eval_batch_size) == (2, 2)
    assert (made.gradient_accumulation_steps, made.gradient_checkpointing) == (3, True)
    assert (made.bf16, made.fp16, made.optim) == (True, False, "adamw_bnb_8bit")
    assert (made.dataloader_num_workers, made.logging_steps) == (4, 6)
    assert (made.seed, made.data_seed) == (7, 7)


def test_what_the_recipe_does_not_say_is_the_same_in_every_run(tmp_path):
    """Losses as they are, no bars, nothing sent anywhere; steps decide when."""
    made = TrainingArguments(**common("", folder=tmp_path))

    assert (made.max_steps, made.num_train_epochs) == (-1, 1.0)
    assert (made.eval_strategy, made.eval_steps, made.save_strategy) == ("steps", 1, "steps")
    assert made.prediction_loss_only
    assert not made.logging_nan_inf_filter
    assert made.disable_tqdm
    assert made.report_to == []
    assert not made.push_to_hub
    assert not made.gradient_checkpointing


@pytest.mark.parametrize(
    ("precision", "bf16", "fp16"),
    [
        ("bf16", True, False),
        ("fp16", False, True),
        ("fp32", False, False),
        ("bf16_pure", False, False),
    ],
)
def test_autocast_is_for_the_two_mixed_precisions(precision, bf16, fp16):
    """Weights that are 16-bit themselves need none."""
    made = common(f'precision = "{precision}"\n')

    assert (made["bf16"], made["fp16"]) == (bf16, fp16)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("constant", "constant_with_warmup"), ("cosine", "cosine"), ("linear", "linear")],
)
def test_a_constant_rate_warms_up_too(ours, theirs):
    """The library's own "constant" would not."""
    assert common(f'scheduler = "{ours}"\n')["lr_scheduler_type"] == theirs


def test_without_rows_for_it_nothing_is_evaluated():
    """The Trainer would refuse to start."""
    assert common("", evaluates=False)["eval_strategy"] == "no"


@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "on_cpu"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_a_run_is_on_the_cpu_where_no_accelerator_is(monkeypatch, has_cuda, has_mps, on_cpu):
    """Pinned memory is for copies to one; the engine is told."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)

    made = common("", engine=DDP)

    assert arguments.is_on_cpu() is on_cpu
    assert (made["use_cpu"], made["dataloader_pin_memory"]) == (on_cpu, not on_cpu)
    assert made.get("ddp_backend") == ("gloo" if on_cpu else None)


@pytest.fixture
def inputs(tmp_path, home):
    """A recipe, a run of it, and the folder with its data and its model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "rows.json").write_text("[]")
    run = rundir.create("locked")
    manifest = {"base_dir": str(tmp_path), "surroundings": {"processors": "2"}}
    run.manifest.write_text(json.dumps(manifest))
    return recipes.parse(HEAD + "seed = 7\n", where="test"), run, tmp_path


def test_the_lock_says_what_the_recipe_resolved_to(inputs, monkeypatch):
    """Files, packages, device, seed: what another run could have otherwise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")

    found = recipe_lock.resolve(*inputs[:2])

    assert set(found["sha256"]) == {"data.train", "model/config.json"}
    assert set(found["packages"]) == {
        *("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes"),
    }
    assert found["packages"]["torch"] == torch.__version__.split("+")[0] or (
        found["packages"]["torch"] == torch.__version__
    )
    assert (found["schema"], found["seed"], found["gpu"]) == (1, 7, "H200")
    assert found["num_threads"] == torch.get_num_threads()
    assert found["surroundings"] == {"processors": "2"}
    assert found["recipe"]["train.seed"] == "7"
    assert set(found["stamps"]) == set(found["sha256"])


def test_without_a_gpu_the_lock_names_none(inputs, monkeypatch):
    """A key without a value, so that a replay on one differs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert recipe_lock.resolve(*inputs[:2])["gpu"] is None


def test_the_first_attempts_lock_is_kept_and_later_ones_say_what_is_new(inputs):
    """By the names of the lock; the file stays as it was."""
    recipe, run, folder = inputs
    first = recipe_lock.resolve(recipe, run)
    assert recipe_lock.keep(run, first) == ()
    assert recipe_lock.keep(run, first) == ()

    (folder / "rows.json").write_text("[1]")

    (told,) = recipe_lock.keep(run, recipe_lock.resolve(recipe, run))
    before = first["sha256"]["data.train"][:16]
    assert told.startswith(f"data.train was {before}, is ")
    assert read_json(run.recipe_lock) == first


def test_what_was_written_to_since_is_found_by_its_stamp(inputs):
    """Data and model; a file that is gone too, one that came later not."""
    recipe, run, folder = inputs
    seen = recipe_lock.resolve(recipe, run)["stamps"]
    assert recipe_lock.touched(recipe, run, seen) == {}

    (folder / "rows.json").write_text("[1]")
    (folder / "model" / "config.json").unlink()
    (folder / "model" / "new.json").write_text("{}")
    found = recipe_lock.touched(recipe, run, seen)

    assert set(found) == {"data.train", "model/config.json"}
    assert recipe_lock.touched(recipe, run, seen | found) == {}


def refusal(model, folder):
    """The error with which a base model is refused."""
    with pytest.raises(UserError, match="not finite") as caught:
        finite.refuse_base(model, folder)
    return caught.value


def nested(names, weight):
    """Modules in modules, the innermost with this weight."""
    *outer, last = names.split(".")
    module = torch.nn.Module()
    module.register_parameter(last, weight)
    for name in reversed(outer):
        around = torch.nn.Module()
        around.add_module(name, module)
        module = around
    return module


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_base_weight_that_is_not_finite_is_refused_by_the_name_in_its_file(tmp_path, value):
    """Without what PEFT has put around it."""
    weight = torch.nn.Parameter(torch.tensor([1.0, value, 2.0]))
    model = nested("base_model.model.layers.0.q_proj.base_layer.weight", weight)

    error = refusal(model, tmp_path)

    assert error.why == "layers.0.q_proj.weight holds NaN or infinite values"
    assert (error.code, error.where) == (ExitCode.BAD_DATA, str(tmp_path))


def test_finite_weights_and_whole_numbers_pass(tmp_path):
    """Whatever the number of dimensions."""
    numbers = torch.nn.Parameter(torch.arange(4), requires_grad=False)
    for weight in (torch.nn.Parameter(torch.ones(2, 3)), numbers):
        finite.refuse_base(nested("layers.weight", weight), tmp_path)


def quantized(**state):
    """A 4-bit weight, packed into bytes, with its scales."""
    weight = torch.nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
    weight.quant_state = SimpleNamespace(**state)
    return nested("layers.weight", weight)


GOOD, BAD = torch.ones(3), torch.tensor([1.0, float("nan")])


def test_of_a_quantized_weight_the_scales_are_looked_at(tmp_path):
    """Where they are quantized too, their own scales and their mean: the bytes say nothing."""
    in_bytes = torch.zeros(3, dtype=torch.uint8)

    def twice(offset, scales):
        state2 = SimpleNamespace(absmax=scales)
        return quantized(nested=True, absmax=in_bytes, offset=offset, state2=state2)

    finite.refuse_base(quantized(nested=False, absmax=GOOD), tmp_path)
    finite.refuse_base(twice(torch.tensor(0.5), GOOD), tmp_path)
    for model in (
        quantized(nested=False, absmax=BAD),
        twice(torch.tensor(0.5), BAD),
        twice(torch.tensor(float("nan")), GOOD),
    ):
        assert refusal(model, tmp_path).why.startswith("layers.weight holds")
