"""A run that begins with what another one has published."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from profiles.runs import parents  # noqa: E402
from profiles.runs.records.inputs import BegunWith  # noqa: E402
from profiles.runs.state import status  # noqa: E402
from tui import report as page  # noqa: E402
from tui.commands import profile, runs  # noqa: E402
from tui.terminal import Symbols  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Texts, and instructions."""
    from runner.demo_text import base_lines, instruction_rows

    folder = tmp_path_factory.mktemp("rows")
    texts, orders = folder / "texts.jsonl", folder / "orders.json"
    texts.write_text("".join(json.dumps({"text": t}) + "\n" for t in base_lines(40, 1)))
    orders.write_text(json.dumps(instruction_rows(30, seed=1)))
    return SimpleNamespace(texts=texts, orders=orders)


@pytest.fixture(scope="module")
def kept_home(tmp_path_factory):
    """A home that the runs of this file share."""
    return tmp_path_factory.mktemp("shared") / "home"


@pytest.fixture(autouse=True)
def shared(kept_home, monkeypatch):
    """Instead of one for each test."""
    monkeypatch.setenv("TUNEDECK_HOME", str(kept_home))


WHOLE = {"method": "full", "steps": 2, "micro_batch": 4, "accumulation": 1, "save_every": 1}


@pytest.fixture(scope="module")
def pretrained(kept_home, tiny_model, rows):
    """The first stage: texts, all weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_HOME", str(kept_home))
        run = real_runs.new_run(tiny_model, rows.texts, **WHOLE)
        text = run.recipe.read_text().replace('name = "tiny"', 'name = "tiny"\ntask = "pretrain"')
        run.recipe.write_text(text)
        assert real_runs.attempt(run) == 0
    return run


@pytest.fixture(scope="module")
def tuned(kept_home, pretrained, rows):
    """The second: instructions, from what the first has published."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_HOME", str(kept_home))
        run = second(pretrained, rows)
        assert real_runs.attempt(run) == 0
    return run


def second(parent, rows, **changes):
    """A run of instructions that begins with the result of another."""
    settings = WHOLE | {"split": "8:2:0", "steps": 4, "save_every": 2} | changes
    return real_runs.new_run(f"run:{parent.end}", rows.orders, **settings)


def test_training_begins_with_the_weights_of_the_parent(pretrained, tuned, tiny_model, rows):
    """Not with the base model's: the loss before the first step is that of the published folder."""
    (first, *_) = real_runs.events(tuned, "evaluated")
    named = second(pretrained, rows, steps=1)
    named.recipe.write_text(
        named.recipe.read_text().replace(f"run:{pretrained.end}", str(pretrained.model))
    )
    assert real_runs.attempt(named) == 0
    (same, *_) = real_runs.events(named, "evaluated")

    assert first["loss"] == same["loss"]
    assert not torch.equal(
        load_file(pretrained.model / "model.safetensors")["model.norm.weight"],
        load_file(tiny_model / "model.safetensors")["model.norm.weight"],
    )


def test_its_lock_and_its_events_name_the_parent(pretrained, tuned):
    """And the evaluation says what it compares with."""
    (parent,) = parents.of_run(tuned)
    (told,) = (e for e in real_runs.read_all(tuned.worker_events) if e["kind"] == BegunWith.kind)
    found = status(tuned).result

    assert (parent.key, parent.run, parent.step) == ("model.id", pretrained.id, 2)
    assert parent.path == str(pretrained.model)
    assert told["parents"][0]["fingerprint"] == parent.fingerprint
    assert found.before == f"the result of run {pretrained.id}"
    assert parents.since(parent) == ""


def test_people_and_programs_are_told_of_the_parent(pretrained, tuned, capsys):
    """`watch --json`, the report, and what is better than what."""
    runs.show_status(tuned)
    told = json.loads(capsys.readouterr().out)
    report = "\n".join(page.lines(profile.load(tuned), 300, Symbols.ASCII))

    assert told["parents"][0]["run"] == pretrained.id
    assert told["result"]["before"] == f"the result of run {pretrained.id}"
    assert f"the result of run {pretrained.id}, step 2\n" in report
    assert f"than the result of run {pretrained.id}: evaluation loss" in report
    assert "base model" not in report


def test_a_killed_second_stage_goes_on_to_the_last_bit(pretrained, tuned, rows):
    """From the checkpoint of step 2."""
    run = second(pretrained, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.training.telemetry.StepRecorder.finish", killed_at(3))
        with pytest.raises(KilledError):
            real_runs.attempt(run)
    assert real_runs.next_attempt(run) == 0

    ours, theirs = real_runs.weights(run), real_runs.weights(tuned)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class KilledError(BaseException):
    """No code of ours may take it for a failure."""


def killed_at(step):
    """In place of closing a step's record: the process dies there."""

    def finish(_recorder, number, _counts):
        if number == step:
            raise KilledError

    return finish
