"""Sparse upcycling as a recommendation: the mixture's numbers, and the way to it, step by step."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from known import dataset, model

from advisor.choice import storage
from advisor.choice.answers import Answers
from advisor.choice.ladder import trained_model
from advisor.choice.recommend import recommend
from advisor.choice.upcycle import upcycled
from advisor.cost import memory as estimates
from advisor.recipe import parse
from profiles.errors import ExitCode, UserError
from profiles.machines import planned
from profiles.models.model import from_folder
from runner.rehearsal import client
from runner.upcycling import making
from tui import output
from tui.commands import save
from tui.main import run as advisor_here
from tui.output import Kind
from tui.pages import explain
from tui.pages import recommendation as page
from tui.pages.model import size
from tui.terminal import Symbols

DENSE = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
}


def found(folder, base=None, gpus="8x H100"):
    """For data of several tasks, in a folder."""
    data = replace(dataset(tasks=4), path=str(folder / "rows.json"))
    base = base or model("qwen2.5-1.5b", path=str(folder / "small"))
    return recommend(base, planned.plan_machine(gpus), data, Answers())


def shown(answer, **options):
    """The page on one line."""
    lines = page.lines(answer, 100, Symbols.BLOCK, page.Shown(**options))
    return " ".join(" ".join(lines).split())


def at(path):
    return output.target(str(path), Kind.RECIPE, force=True)


def test_it_is_recommended_as_what_runs_and_its_recipe_trains_the_mixture(tmp_path):
    """By the name that the page gives it."""
    answer = found(tmp_path)
    save.write(answer, at(tmp_path / "r.toml"))
    recipe = parse((tmp_path / "r.toml").read_text(), where="r")

    text = shown(answer)
    assert (answer.rung, answer.runs, answer.runnable.rung) == (
        *("moe_upcycling", True),
        answer.rung,
    )
    assert (recipe.model.id, recipe.method.name) == ("small-8x", "full")
    assert "NOT YET" not in text
    mixture = trained_model(answer.rung, answer.model)
    command = f"advisor upcycle {tmp_path / 'small'} --out {tmp_path / 'small-8x'}"
    assert f"first `{command}` makes the mixture that is trained ({size(mixture)})" in text
    assert "for checkpoints and the result, the mixture included" in text


def test_the_command_that_is_told_makes_what_the_recipe_names(tmp_path, monkeypatch, capsys):
    """Then nothing more is told but the start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my small").mkdir()
    write_model(tmp_path / "my small")
    base = replace(from_folder(tmp_path / "my small"), id="my small")
    answer = found(tmp_path, base)
    place = at(tmp_path / "r.toml")
    save.write(answer, place)

    _, words, command, start = save.told(answer, place)
    with pytest.raises(UserError, match="my small-8x is not made yet") as early:
        save.check_downloaded("my small-8x", tmp_path)
    with pytest.raises(UserError, match="my small-8x is not made yet"):
        save.make_first(answer, tmp_path)

    assert words == "before it can run, make its mixture:"
    assert start == f"then start it with: advisor run {tmp_path / 'r.toml'}"
    assert shlex.split(command) == shlex.split(early.value.do)
    assert early.value.code is ExitCode.NO_INPUT
    assert advisor_here(shlex.split(command)[1:]) == 0
    named = parse((tmp_path / "r.toml").read_text(), where="r").model.id
    assert making.made_of(tmp_path / named)["experts"] == 8
    save.check_downloaded(named, tmp_path)
    save.make_first(answer, tmp_path)
    assert save.told(answer, place) == [
        f"wrote {tmp_path / 'r.toml'}; start it with: advisor run {tmp_path / 'r.toml'}"
    ]
    capsys.readouterr()


def write_model(folder):
    """Zeros, without torch."""
    (folder / "config.json").write_text(json.dumps(DENSE))
    shapes = {"gate_proj": [128, 64], "up_proj": [128, 64], "down_proj": [64, 128]}
    header, size = {}, 128 * 64 * 2
    names = [
        (f"model.layers.{n}.mlp.{part}.weight", s) for n in (0, 1) for part, s in shapes.items()
    ]
    for at_, (name, shape) in enumerate(names):
        places = [at_ * size, (at_ + 1) * size]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": places}
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + bytes(size * len(names))
    (folder / "model.safetensors").write_bytes(data)


def test_a_model_of_the_hub_is_downloaded_first(tmp_path):
    """To where the mixture is made of it, beside the recipe."""
    answer = found(tmp_path, model("qwen2.5-1.5b", id="org/name", path=None))
    save.write(answer, at(tmp_path / "r.toml"))

    lines = save.told(answer, at(tmp_path / "r.toml"))

    dense = tmp_path / "org" / "name"
    assert parse((tmp_path / "r.toml").read_text(), where="r").model.id == "org/name-8x"
    assert lines[1:] == [
        "before it can run, its model must be downloaded:",
        f"  hf download org/name --local-dir {dense}",
        "then its mixture be made:",
        f"  advisor upcycle {dense} --out {dense}-8x",
        f"then start it with: advisor run {tmp_path / 'r.toml'}",
    ]
    assert "the base model's download included and the mixture" in shown(answer)


def test_the_disk_holds_the_mixture_and_the_dense_model_that_it_is_made_of(tmp_path):
    """Beside what the run writes."""
    here, away = (
        found(tmp_path, model("qwen2.5-1.5b", path=path)) for path in (str(tmp_path / "m"), None)
    )
    mixture = upcycled(here.model)
    written = storage.disk(mixture, here.fit.plan)

    assert here.disk_bytes == written.total()
    assert written.download_bytes == 2 * mixture.num_params
    assert away.disk_bytes - here.disk_bytes == storage.weight_bytes(away.model)


def test_the_appendix_is_about_the_mixture(tmp_path):
    """Its weights, not the dense model's."""
    answer = found(tmp_path)

    mixture, fit = trained_model(answer.rung, answer.model), answer.fit
    right, wrong = (
        " ".join(" ".join(explain.lines(base, fit, 100, on_gpu=True)).split())
        for base in (mixture, answer.model)
    )

    assert right in shown(answer, explained=True)
    assert wrong not in shown(answer, explained=True)
    assert answer.fit.memory == estimates.estimate(mixture, fit.plan)


def test_a_mixture_is_rehearsed_when_it_is_there(tmp_path):
    """Never its dense model under its name."""
    with pytest.raises(UserError, match="before it is made") as refused:
        client.choose(found(tmp_path))

    assert refused.value.code is ExitCode.USAGE
    assert Path(found(tmp_path).model.path).name == "small"
