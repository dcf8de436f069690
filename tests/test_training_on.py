"""A run that begins with what another one has published: a model, or an adapter to go on with.

Texts are learnt with all weights, then instructions with an adapter, then more instructions with
that adapter. Every run is judged by the same rows, so that one begins where the one before ended.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.models import find_model  # noqa: E402
from profiles.runs import parents  # noqa: E402
from profiles.runs.records.inputs import BegunWith  # noqa: E402
from profiles.runs.state import status  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.checks import adapters, replay  # noqa: E402
from runner.tasks.pretrain import TRAINER as PRETRAIN  # noqa: E402
from runner.tasks.sft import TRAINER as SFT  # noqa: E402
from runner.training import merging  # noqa: E402
from tui import report as page  # noqa: E402
from tui.commands import profile, runs  # noqa: E402
from tui.terminal import Symbols  # noqa: E402

pytestmark = pytest.mark.slow
IDS = torch.arange(3, 19)[None]
RELOAD = Path(__file__).parent / "support" / "reload.py"
KILLED, SAVED = 3, 2


class KilledError(BaseException):
    """As abrupt as a signal."""


class Place:
    """A home that the runs of this file share, with what they learn."""

    def __init__(self, folder, base):
        from runner.demo_text import base_lines, instruction_rows

        self.home, self.base = folder / "home", base
        self.texts, self.rows, self.held = (
            folder / name for name in ("t.jsonl", "r.json", "h.json")
        )
        self.texts.write_text("".join(json.dumps({"text": t}) + "\n" for t in base_lines(24, 1)))
        self.rows.write_text(json.dumps(instruction_rows(16, seed=1)))
        self.held.write_text(json.dumps(instruction_rows(6, seed=2)))

    def run(self, data, *, model="", method="lora", task="sft", adapter="", **settings):
        """Of four steps of four rows; `model`: lines of [model]."""
        found = real_runs.new_run(
            self.base,
            data,
            method=method,
            adapter=adapter,
            **{"steps": 4, "micro_batch": 4, "accumulation": 1, "save_every": SAVED} | settings,
        )
        text = found.recipe.read_text().replace("\nname", f'\ntask = "{task}"\nname', 1)
        if task == "sft":
            text = text.replace("\n[method]", f'\neval = "{self.held}"\n[method]')
        if model:
            text = text.replace(f'id = "{self.base}"', model)
        found.recipe.write_text(text)
        return found

    def train(self, run, *, dies_at=None, again=False):
        """An attempt; the logits of the model before its first step, and as it was published."""
        found = []

        def look(trainer):
            with torch.no_grad():
                found.append(trainer.model.eval()(input_ids=IDS).logits.clone())

        def stepping(trainer, model, *args, **kw):
            if trainer.state.global_step == dies_at:
                raise KilledError
            if not found:
                look(trainer)
                model.train()
            return step(trainer, model, *args, **kw)

        def saving(trainer, folder=None, _internal_call=False):
            if not _internal_call:
                look(trainer)
            save(trainer, folder, _internal_call)

        kind = PRETRAIN if 'task = "pretrain"' in run.recipe.read_text() else SFT
        step, save = kind.training_step, kind.save_model
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(self.home))
            patch.setattr(kind, "training_step", stepping)
            patch.setattr(kind, "save_model", saving)
            (real_runs.next_attempt if again else real_runs.attempt)(run)
        return found[0], found[-1]

    def trained(self, *args, **settings):
        """A run that was made, and what its model predicts."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(self.home))
            run = self.run(*args, **settings)
        first, last = self.train(run)
        return SimpleNamespace(run=run, first=first, logits=last)

    def killed(self, *args, **settings):
        """The same, but for its end, and gone on with."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(self.home))
            run = self.run(*args, **settings)
        with pytest.raises(KilledError):
            self.train(run, dies_at=KILLED)
        self.train(run, again=True)
        return run


@pytest.fixture(scope="module")
def place(tiny_model, tmp_path_factory):
    """Where all of them are."""
    return Place(tmp_path_factory.mktemp("on"), tiny_model)


@pytest.fixture(autouse=True)
def shared(place, monkeypatch):
    """Instead of a home for each test."""
    monkeypatch.setenv("TUNEDECK_HOME", str(place.home))


@pytest.fixture(scope="module")
def read(place):
    """The first stage: texts, all weights."""
    return place.trained(place.texts, method="full", task="pretrain", steps=2)


@pytest.fixture(scope="module")
def instructed(place, read):
    """The second: instructions, an adapter on what the first has published."""
    return place.trained(place.rows, model=f'id = "run:{read.run.end}"', adapter=ADAPTER)


@pytest.fixture(scope="module")
def furthered(place, read, instructed):
    """The third: it goes on with that adapter."""
    return place.trained(place.rows, **onward(read, instructed))


ADAPTER = "rank = 8\nalpha = 16"


@pytest.fixture(scope="module")
def merged(place, read, instructed):
    """The third in another way: that adapter is merged, and a new one begun."""
    return place.trained(place.rows, **onward(read, instructed, "merge"))


def onward(read, instructed, use="continue"):
    """What the recipe of a third stage says."""
    names = f'id = "run:{read.run.end}"\nadapter = "run:{instructed.run.end}"'
    return {"model": f'{names}\nadapter_use = "{use}"', "adapter": ADAPTER}


def losses_of(run):
    """On the rows that are held out: before training, and of what was published."""
    found = {e["step"]: e["loss"] for e in real_runs.events(run, "evaluated")}
    (published,) = real_runs.events(run, "published")
    return found[0], found[published["step"]]


def apart(one, other):
    """How far logits are."""
    return float((one - other).abs().max())


def test_each_begins_where_the_one_before_ended(read, instructed, furthered, merged):
    """With its weights, not with those of a base model, or new ones."""
    assert apart(instructed.first, read.logits) < 1e-5
    assert apart(furthered.first, instructed.logits) < 1e-5
    assert min(apart(one.first, one.logits) for one in (read, instructed, furthered)) > 1e-2
    first, last = losses_of(instructed.run)
    assert apart(merged.first, instructed.logits) < 1e-5
    assert apart(merged.first, merged.logits) > 1e-2
    again, further = losses_of(furthered.run)
    assert again == pytest.approx(last, abs=1e-5)
    assert first > last > further


def test_locks_and_events_name_the_parents(read, instructed, furthered):
    """And the evaluation says what it compares with."""
    (parent,) = parents.of_run(instructed.run)
    model, adapter = parents.of_run(furthered.run)
    (told,) = real_runs.events(furthered.run, BegunWith.kind)

    assert (parent.key, parent.run, parent.step) == ("model.id", read.run.id, 2)
    assert parent.path == str(read.run.model)
    assert parents.since(parent) == ""
    assert (model.key, model.run) == ("model.id", read.run.id)
    assert (adapter.key, adapter.run) == ("model.adapter", instructed.run.id)
    assert adapter.ancestors == (read.run.id,)
    assert [one["fingerprint"] for one in told["parents"]] == [
        model.fingerprint,
        adapter.fingerprint,
    ]
    assert status(furthered.run).result.before == f"the result of run {instructed.run.id}"


def test_people_and_programs_are_told_of_the_parents(read, instructed, furthered, capsys):
    """`watch --json`, the report, and what is better than what."""
    runs.show_status(furthered.run)
    told = json.loads(capsys.readouterr().out)
    report = "\n".join(page.lines(profile.load(furthered.run), 400, Symbols.ASCII))

    assert [one["run"] for one in told["parents"]] == [read.run.id, instructed.run.id]
    assert told["result"]["before"] == f"the result of run {instructed.run.id}"
    assert (
        f"the result of run {instructed.run.id}, step 4, trained on, begun with that of" in report
    )
    assert f"than the result of run {instructed.run.id}: evaluation loss" in report
    assert "base model" not in report


def test_an_adapter_goes_with_the_weights_that_it_was_trained_on(place, read, instructed):
    """Others of the same shape would do in silence; a copy of the right ones does too."""
    recipe = recipes.parse(
        place.run(place.rows, **onward(read, instructed)).recipe.read_text(), where="r"
    )
    other = find_model.named(str(place.base), Path("/"))
    copy = shutil.copytree(read.run.model, place.home.parent / "copy")

    assert adapters.check(recipe, find_model.named(recipe.model.id, Path("/")), Path("/")) == []
    assert adapters.check(recipe, find_model.named(str(copy), Path("/")), Path("/")) == []
    with pytest.raises(UserError, match="was not trained on") as caught:
        adapters.check(recipe, other, Path("/"))
    assert "model.safetensors" in caught.value.why
    assert caught.value.do == f'write model.id = "{read.run.model}"'

    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    (told,) = adapters.check(recipe, find_model.named(str(copy), Path("/")), Path("/"))
    assert "config.json" in told


def test_killed_and_gone_on_with_it_is_the_same_bit_for_bit(place, read, instructed, furthered):
    """The checkpoint's adapter counts then, not the parent's."""
    run = place.killed(place.rows, **onward(read, instructed))

    assert [e["from_step"] for e in real_runs.events(run, "resumed")] == [SAVED]
    same(run, furthered.run)


def test_a_merged_model_is_made_once_and_gone_on_with(place, read, instructed, merged):
    """A later attempt takes what is there; a folder that is not whole is made again."""
    run = place.killed(place.rows, **onward(read, instructed, "merge"))

    same(run, merged.run)
    assert [e["phase"] for e in real_runs.events(run, "phase")].count("merging") == 1
    assert checkpoints.verify(merged.run.base) is None
    told = json.loads((merged.run.model / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(merged.run.base)
    (shard,) = run.base.glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    folders = replay.folders_of(recipes.parse(run.recipe.read_text(), where="r"), Path("/"))
    merging.merged(real_runs.quiet(run), folders["model.id"], folders["model.adapter"])
    assert shard.read_bytes() == whole


def test_a_whole_model_of_a_merged_one_needs_no_second(place, read, instructed):
    """The folder that it began with goes, as nothing that is published belongs to it."""
    asked = onward(read, instructed, "merge") | {"adapter": "", "method": "full", "steps": 1}
    whole = place.trained(place.rows, **asked)

    assert apart(whole.first, instructed.logits) < 1e-5
    assert not whole.run.base.exists()
    (_, adapter) = parents.of_run(whole.run)
    assert (adapter.run, adapter.use) == (instructed.run.id, "merge")


def same(run, other):
    """Weights and losses are."""
    ours, theirs = real_runs.weights(run), real_runs.weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert real_runs.losses(run) == real_runs.losses(other)


def test_libraries_alone_load_what_was_published(read, instructed, furthered, merged, tmp_path):
    """In another process: on the model that the adapter names, and it is what was trained."""
    asked, answers = tmp_path / "asked.json", tmp_path / "answers.pt"
    base = str(read.run.model)
    stages = {"read": read, "instructed": instructed, "furthered": furthered}
    models = {name: (str(one.run.model), base) for name, one in stages.items()}
    stages["merged"] = merged
    models["merged"] = str(merged.run.model), str(merged.run.base)
    asked.write_text(json.dumps({"models": models, "ids": IDS.tolist()}))
    subprocess.run([sys.executable, "-I", RELOAD, asked, answers], check=True, timeout=300)
    found = torch.load(answers)

    for name, one in stages.items():
        assert apart(found[name], one.logits) < 1e-4
    assert apart(found["furthered"], found["instructed"]) > 1e-2
    assert apart(found["instructed"], found["read"]) > 1e-2
