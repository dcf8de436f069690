"""What a run's trainer is built of, and what is refused before it is."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
import tomli_w  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from small_model import CONFIG, small_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import durable  # noqa: E402
from runner.tasks import sft  # noqa: E402
from runner.training import arguments, session  # noqa: E402


class EnoughError(Exception):
    """The trainer was given all that the test looks at."""


@pytest.fixture
def built(monkeypatch):
    """Begin an attempt of a run; what its trainer was given, and itself as `trainer`."""

    def begin(run, rows=None):
        given = {}

        class Trainer:
            """Takes what a trainer takes."""

            def __init__(self, attempt, plan, **kw):
                given.update(kw, attempt=attempt, plan=plan, trainer=self)
                self.train_dataset = kw["train_dataset"] if rows is None else range(rows)
                self.args = kw["args"]
                self.phase = attempt.progress.phase

            @staticmethod
            def head(_splits):
                return {}

            @property
            def ranks(self):
                raise EnoughError

        def alone(data, **settings):
            """As of one process: there are no others here."""
            ours = {name: value for name, value in settings.items() if "ddp" not in name}
            return sft.arguments(data, **ours)

        task = SimpleNamespace(columns=sft.columns, arguments=alone, TRAINER=Trainer)
        monkeypatch.setattr(session, "task_of", lambda _: task)
        with pytest.raises(EnoughError):
            real_runs.attempt(run)
        return given

    return begin


def phases(run):
    """The parts of the start that were told, with how much there was to do."""
    return [(e["phase"], e["total"]) for e in real_runs.events(run, "phase")]


def test_a_trainer_is_given_all_that_the_recipe_says(tiny_model, orders, built):
    """Model, rows, settings, what goes into manifests; every part of the start is told."""
    run = real_runs.new_run(
        tiny_model, orders, split="8:2:0", more="early_stopping = 3\n", micro_batch=2
    )

    given = built(run)

    assert given["facts"] == {
        "micro_batch": 2,
        "accumulation": 3,
        "world_size": 1,
        "seed": 0,
        "packing": False,
        "max_length": 96,
        "method": "lora",
    }
    assert given["train"].early_stopping == 3
    assert "train.checkpointing = true" in given["lighter"]
    assert given["plan"].task.name == "sft"
    assert isinstance(given["model"], torch.nn.Module)
    assert given["processing_class"].chat_template
    assert set(given["train_dataset"].column_names) == {"input_ids", "labels"}
    number = len(given["train_dataset"]), len(given["eval_dataset"])
    assert number[0] > number[1] > 0
    assert given["args"].eval_strategy == "steps"
    assert Path(given["args"].output_dir) == run.path / ".trainer"
    assert phases(run) == [
        ("reading", 0),
        ("tokenising", sum(number)),
        ("loading", 0),
        ("checking", 0),
    ]


def test_without_held_out_rows_the_trainer_evaluates_nothing(tiny_model, orders, built):
    """It would fail without a set."""
    given = built(real_runs.new_run(tiny_model, orders))

    assert given["eval_dataset"] is None
    assert given["args"].eval_strategy == "no"


def test_named_sets_are_given_by_their_names(tiny_model, orders, built, tmp_path):
    """The first decides."""
    files = {name: tmp_path / f"{name}.json" for name in ("domain", "general")}
    for path in files.values():
        path.write_text(json.dumps(json.loads(orders.read_text())[:5]))
    named = "".join(f'{name} = "{path}"\n' for name, path in files.items())
    run = real_runs.new_run(tiny_model, orders)
    run.recipe.write_text(
        run.recipe.read_text().replace("[method]", f"[data.eval]\n{named}[method]")
    )

    given = built(run)

    assert list(given["eval_dataset"]) == ["domain", "general"]


@pytest.mark.parametrize(
    ("settings", "rows", "wanted"),
    [
        ({"steps": 50}, 9, (10, 10)),
        ({"steps": 54}, 9, (10, 10)),
        ({"steps": 3}, 9, (1, 1)),
        ({"steps": 50, "eval_every": 7}, 9, (7, 10)),
        ({"steps": 50, "save_every": 8}, 9, (10, 8)),
        ({"steps": 0, "more": "epochs = 1\n"}, 90, (3, 3)),
        ({"steps": 0, "more": "epochs = 1\n"}, 85, (3, 3)),
        ({"steps": 0, "more": "epochs = 10\n"}, 90, (30, 30)),
        ({"steps": 0, "more": "epochs = 2.5\n"}, 90, (7, 7)),
        ({"steps": 0, "more": "epochs = 1\n"}, 1, (1, 1)),
        ({"steps": 0, "more": "epochs = 0.01\n"}, 9, (1, 1)),
        ({"steps": 0, "micro_batch": 1, "accumulation": 1, "more": "epochs = 1\n"}, 90, (18, 18)),
        (
            {"steps": 0, "more": 'epochs = 1\n[hardware]\nstrategy = "ddp"\ngpus = 3\n'},
            450,
            (5, 5),
        ),
    ],
)
def test_a_run_is_evaluated_and_saved_five_times_unless_it_says_otherwise(
    tiny_model, orders, built, settings, rows, wanted
):
    """Counted in the steps that the rows which are left will make: six rows a step, here."""
    run = real_runs.new_run(tiny_model, orders, **{"save_every": 0, "eval_every": 0} | settings)

    args = built(run, rows)["args"]

    assert (args.eval_steps, args.save_steps) == wanted


def test_data_of_which_nothing_is_learnt_is_refused(tiny_model, orders, built):
    """Replies that are cut away are the usual reason."""
    run = real_runs.new_run(tiny_model, orders)
    run.recipe.write_text(run.recipe.read_text().replace("max_length = 96", "max_length = 8"))

    with pytest.raises(UserError, match="no example has a token to learn from") as caught:
        built(run)

    assert (caught.value.code, caught.value.where) == (ExitCode.BAD_DATA, str(orders))


def test_a_run_of_gpus_that_are_gone_is_not_trained_on_the_cpu(
    tiny_model, orders, built, monkeypatch
):
    """It would take for ever; with a GPU it goes on."""
    run = real_runs.new_run(tiny_model, orders)
    durable.write_json(run.devices, {"devices": ["GPU-1", "GPU-2"]})
    monkeypatch.setattr(arguments, "is_on_cpu", lambda: True)

    with pytest.raises(UserError, match="GPUs of this run") as caught:
        built(run)

    assert (caught.value.code, caught.value.where) == (ExitCode.GPU_LOST, str(run.path))
    assert "GPU-1, GPU-2" in caught.value.why


def test_a_model_whose_code_would_be_run_is_refused_before_it_is_read(orders, tmp_path, built):
    """Not even its tokenizer."""
    named = {"AutoModelForCausalLM": "code.Model"}
    config = CONFIG | {"model_type": "bailing_moe", "auto_map": named}
    run = real_runs.new_run(small_model(tmp_path / "m", config=config), orders)

    with pytest.raises(UserError):
        built(run)

    assert phases(run) == []


def test_a_tokenizer_is_read_from_its_folder_alone(tiny_model, orders, built, monkeypatch):
    """Nothing is fetched, and no code of the folder is run."""
    asked = []
    read = AutoTokenizer.from_pretrained

    def seen(folder, **kw):
        asked.append((folder, kw))
        return read(folder, **kw)

    monkeypatch.setattr(session, "AutoTokenizer", SimpleNamespace(from_pretrained=seen))

    built(real_runs.new_run(tiny_model, orders))

    assert asked == [(tiny_model.resolve(), {"trust_remote_code": False, "local_files_only": True})]


def test_a_base_model_that_is_not_finite_is_not_trained(tiny_model, orders, built, tmp_path):
    """Nor is its data tokenised."""
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    run = real_runs.new_run(broken, orders)

    with pytest.raises(UserError, match="not finite"):
        built(run)

    assert [phase for phase, _ in phases(run)] == ["reading", "tokenising", "loading", "checking"]


@pytest.mark.parametrize("key", ["adapter", "adapters"])
def test_an_adapter_that_is_not_finite_is_told_as_such(tiny_model, orders, built, tmp_path, key):
    """Neither the base nor [method] is to blame."""
    adapter = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], r=4, lora_alpha=8)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    next(p for n, p in model.named_parameters() if "lora_B" in n).data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "adapter")
    run = real_runs.new_run(tiny_model, orders)
    content = tomllib.loads(run.recipe.read_text())
    folder = str(tmp_path / "adapter")
    content["model"][key] = folder if key == "adapter" else [folder] * 2
    about = {"rank": 4, "targets": ["q_proj"]}
    about |= {"name": "lora", "alpha": 8} if key == "adapter" else {"name": "lora_experts"}
    content["method"] = about | ({} if key == "adapter" else {"experts": 2})
    run.recipe.write_text(tomli_w.dumps(content))

    with pytest.raises(UserError, match="the adapter holds values that are not finite") as caught:
        built(run)

    assert (caught.value.code, caught.value.where) == (ExitCode.BAD_DATA, folder)
    assert "layers.0.self_attn.q_proj.lora_B" in caught.value.why


def test_rows_are_packed_by_the_library_and_that_is_told(tiny_model, orders, built):
    """The trainer is given all of them, in tokens; without packing it changes nothing of them."""
    run = real_runs.new_run(tiny_model, orders)
    assert built(run)["args"].dataset_kwargs == {"skip_prepare_dataset": True}
    run.recipe.write_text(run.recipe.read_text().replace("packing = false", "packing = true"))

    given = built(run)

    assert given["args"].dataset_kwargs == {"skip_prepare_dataset": False}
    assert given["trainer"].phase == "packing"
