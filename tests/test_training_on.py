"""A run that begins with what another one has published, by the ready recipes that do.

A model is trained whole; an adapter on it learns texts, then instructions, then what is new a month
later; or it is merged and preferences are learnt. Each begins where the one before ended.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from reload import logits  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.registry.lookup import TASKS  # noqa: E402
from profiles import installation  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.models import find_model  # noqa: E402
from profiles.runs import parents  # noqa: E402
from profiles.runs.records.inputs import BegunWith  # noqa: E402
from profiles.runs.state import status  # noqa: E402
from runner import checkpoints  # noqa: E402
from runner.checks import adapters, replay  # noqa: E402
from runner.tasks import task_of  # noqa: E402
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

        self.folder, self.home, self.base = folder, folder / "home", base
        orders = instruction_rows(20, seed=1)
        pairs = [
            {"prompt": one["instruction"], "chosen": one["output"], "rejected": "no"}
            for one in orders[:12]
        ]
        self.texts = self._written("texts", [{"text": text} for text in base_lines(24, 1)])
        self.rows = self._written("rows", orders[:12])
        self.new = self._written("new", orders[12:16])
        self.held = self._written("held", orders[16:])
        self.pairs = self._written("pairs", pairs)

    def _written(self, name, rows):
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def run(self, ready, model, data, **train):
        """A run of a ready recipe, as it is but for its size: four steps of four rows."""
        text = (installation.recipes_dir() / f"{ready}.toml").read_text()
        content = tomllib.loads(text)
        content["model"] |= model
        content["data"] |= {"max_length": 96, "split": "1:0:0"} | data
        content["train"] |= {"max_steps": 4, "save_every": SAVED, "micro_batch": 4} | train
        content["train"] |= {"accumulation": 1, "precision": "fp32", "samples": 0}
        content["train"] |= {"learning_rate": 5e-3, "eval_every": 4}
        run = real_runs.new_run(self.base, self.rows)
        run.recipe.write_text(tomli_w.dumps(content))
        return run

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

        kind = task_of(TASKS[recipes.parse(run.recipe.read_text(), where="r").task]).TRAINER
        step, save = kind.training_step, kind.save_model
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(self.home))
            patch.setattr(kind, "training_step", stepping)
            patch.setattr(kind, "save_model", saving)
            (real_runs.next_attempt if again else real_runs.attempt)(run)
        return found[0], found[-1]

    def trained(self, *args, **train):
        """A run that was made, and what its model predicts."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(self.home))
            run = self.run(*args, **train)
        first, last = self.train(run)
        return SimpleNamespace(run=run, first=first, logits=last)

    def killed(self, *args, **train):
        """The same, but for its end, and gone on with."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(self.home))
            run = self.run(*args, **train)
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
def whole(place):
    """A model that was trained whole."""
    data = {"train": place.rows}
    return place.trained("full-24gb", {"id": str(place.base)}, data, max_steps=2)


@pytest.fixture(scope="module")
def read(place, whole):
    """The first stage: an adapter that has learnt texts, on that model."""
    return place.trained("pretrain", {"id": f"run:{whole.run.end}"}, {"train": place.texts})


@pytest.fixture(scope="module")
def instructed(place, whole, read):
    """The second: it is trained on, with instructions."""
    return place.trained(*second(place, whole, read))


def second(place, whole, read):
    """What the recipe of the second stage says."""
    return "sft-after-pretrain", on(whole, read), {"train": place.rows, "eval": place.held}


def on(whole, adapter):
    """[model] of a run that begins with the result of another."""
    return {"id": f"run:{whole.run.end}", "adapter": f"run:{adapter.run.end}"}


@pytest.fixture(scope="module")
def preferring(place, whole, instructed):
    """Preferences after that: its adapter is merged, and a new one begun."""
    return place.trained(*third(place, whole, instructed))


def third(place, whole, instructed):
    """What the recipe of the third stage says."""
    return "dpo-after-sft", on(whole, instructed), {"train": place.pairs}


@pytest.fixture(scope="module")
def refreshed(place, whole, instructed):
    """A month later: the second stage's adapter is trained on with new rows and old ones."""
    mix = [{"file": place.new, "weight": 1.0}, {"file": place.rows, "weight": 0.2}]
    asked = {"train": mix, "eval": {"new": place.held, "old": place.new}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_HOME", str(place.home))
        run = place.run("monthly-refresh", on(whole, instructed), asked)
        with pytest.raises(UserError, match="not as the adapter") as caught:
            checked(run)
        assert caught.value.do == "add --set 'method.rank=64' --set 'method.alpha=128'"
        text = run.recipe.read_text().replace("rank = 16", "rank = 64")
        run.recipe.write_text(text.replace("alpha = 32", "alpha = 128"))
        assert checked(run) == []
    first, last = place.train(run)
    return SimpleNamespace(run=run, first=first, logits=last)


def checked(run):
    """What is to be minded of the adapter of its recipe."""
    recipe = recipes.parse(run.recipe.read_text(), where="r")
    return adapters.check(recipe, find_model.named(recipe.model.id, Path("/")), Path("/"))


def losses_of(run):
    """On the rows that are held out: before training, and of what was published."""
    events = real_runs.events(run, "evaluated")
    found = {e["step"]: e["loss"] for e in events if e.get("data") == events[0].get("data")}
    (published,) = real_runs.events(run, "published")
    return found[0], found[published["step"]]


def apart(one, other):
    """How far logits are."""
    return float((one - other).abs().max())


def test_each_begins_where_the_one_before_ended(whole, read, instructed, preferring, refreshed):
    """With its weights, not with those of a base model, or new ones."""
    for one, before in (
        (read, whole),
        (instructed, read),
        (preferring, instructed),
        (refreshed, instructed),
    ):
        assert apart(one.first, before.logits) < 1e-4
        assert apart(one.first, one.logits) > 1e-2
    first, last = losses_of(instructed.run)
    again, _ = losses_of(refreshed.run)
    assert again == pytest.approx(last, abs=1e-5)
    assert first > last


def test_locks_and_events_name_the_parents(whole, read, instructed):
    """And the evaluation says what it compares with."""
    (parent,) = parents.of_run(read.run)
    model, adapter = parents.of_run(instructed.run)
    (told,) = real_runs.events(instructed.run, BegunWith.kind)

    assert (parent.key, parent.run, parent.step) == ("model.id", whole.run.id, 2)
    assert (parent.path, parent.use) == (str(whole.run.model), "")
    assert parents.since(parent) == ""
    assert (model.key, model.run) == ("model.id", whole.run.id)
    assert (adapter.key, adapter.run) == ("model.adapter", read.run.id)
    assert (adapter.ancestors, adapter.use) == ((whole.run.id,), "continue")
    prints = [one["fingerprint"] for one in told["parents"]]
    assert prints == [model.fingerprint, adapter.fingerprint]
    assert status(instructed.run).result.before == f"the result of run {read.run.id}"


def test_people_and_programs_are_told_of_the_parents(whole, read, instructed, refreshed, capsys):
    """`watch --json`, the report, and what is better than what."""
    runs.show_status(refreshed.run)
    told = json.loads(capsys.readouterr().out)
    report = "\n".join(page.lines(profile.load(refreshed.run), 400, Symbols.ASCII))
    (bare, *_) = real_runs.events(refreshed.run, "base_evaluated")

    assert [one["run"] for one in told["parents"]] == [whole.run.id, instructed.run.id]
    assert told["result"]["before"] == f"the result of run {instructed.run.id}"
    assert (
        f"run {instructed.run.id}, step 4, trained on, begun with that of {whole.run.id}" in report
    )
    assert f"than the result of run {instructed.run.id}: evaluation loss of new" in report
    assert f"without the adapter that was trained on: {bare['loss']:.4f}" in report
    assert report.count("base model") == 1


def test_without_its_adapter_it_is_the_model_below(read, instructed, refreshed):
    """On the same rows it had the same loss in every run; and it is no evaluation of a step."""
    (bare,) = real_runs.events(instructed.run, "base_evaluated")
    again, _ = real_runs.events(refreshed.run, "base_evaluated")

    assert (again["data"], again["loss"]) == ("new", pytest.approx(bare["loss"], abs=1e-6))
    assert bare["loss"] > losses_of(instructed.run)[0] + 1e-3
    assert real_runs.events(read.run, "base_evaluated") == []


def test_an_adapter_goes_with_the_weights_that_it_was_trained_on(place, whole, read):
    """Others of the same shape would do in silence; a copy of the right ones does too."""
    run = place.run(*second(place, whole, read))
    recipe = recipes.parse(run.recipe.read_text(), where="r")
    copy = shutil.copytree(whole.run.model, place.folder / "copy")

    def told(model):
        return adapters.check(recipe, find_model.named(str(model), Path("/")), Path("/"))

    assert told(recipe.model.id) == told(copy) == []
    with pytest.raises(UserError, match="was not trained on") as caught:
        told(place.base)
    assert "model.safetensors" in caught.value.why
    assert caught.value.do == f'write model.id = "{whole.run.model}"'
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert "config.json" in told(copy)[0]


def test_an_adapter_is_no_model_and_what_is_told_instead_works(place, whole, read):
    """The refusal of model.id has the lines to write."""
    with pytest.raises(UserError, match="an adapter, not a model") as caught:
        find_model.resolve(f"run:{read.run.end}")
    told = dict(re.findall(r'model\.(\w+) = "([^"]+)"', caught.value.do))

    assert told.pop("adapter_use") == "merge"
    assert told == {"id": str(whole.run.model), "adapter": f"run:{read.run.end}"}
    run = place.run("sft-after-pretrain", told, {"train": place.rows, "eval": place.held})
    assert checked(run) == []


def test_killed_and_gone_on_with_it_is_the_same_bit_for_bit(place, whole, read, instructed):
    """The checkpoint's adapter counts then, not the parent's."""
    run = place.killed(*second(place, whole, read))

    assert [e["from_step"] for e in real_runs.events(run, "resumed")] == [SAVED]
    same(run, instructed.run)


def test_a_merged_model_is_made_once_and_gone_on_with(place, whole, instructed, preferring):
    """A later attempt takes what is there; a folder that is not whole is made again."""
    run = place.killed(*third(place, whole, instructed))

    same(run, preferring.run)
    assert [e["phase"] for e in real_runs.events(run, "phase")].count("merging") == 1
    assert checkpoints.verify(preferring.run.base) is None
    told = json.loads((preferring.run.model / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(preferring.run.base)
    (shard,) = run.base.glob("*.safetensors")
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    folders = replay.folders_of(recipes.parse(run.recipe.read_text(), where="r"), Path("/"))
    merging.merged(real_runs.quiet(run), folders["model.id"], folders["model.adapter"])
    assert shard.read_bytes() == content


def same(run, other):
    """Weights and losses are."""
    ours, theirs = real_runs.weights(run), real_runs.weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert real_runs.losses(run) == real_runs.losses(other)


@pytest.mark.long
def test_a_whole_model_of_a_merged_one_needs_no_second(place, whole, instructed):
    """The folder that it began with goes, as nothing that is published belongs to it."""
    asked = on(whole, instructed) | {"adapter_use": "merge"}
    done = place.trained("full-24gb", asked, {"train": place.rows}, max_steps=1)

    assert apart(done.first, instructed.logits) < 1e-4
    assert not done.run.base.exists()
    (_, adapter) = parents.of_run(done.run)
    assert (adapter.run, adapter.use) == (instructed.run.id, "merge")


@pytest.fixture(scope="module")
def published(whole, read, instructed, preferring, refreshed):
    """Stage -> (what was trained, its folder, the folder that it is put on)."""
    below = str(whole.run.model)
    stages = {"read": read, "instructed": instructed, "refreshed": refreshed}
    found = {name: (one, str(one.run.model), below) for name, one in stages.items()}
    found["preferring"] = preferring, str(preferring.run.model), str(preferring.run.base)
    return found | {"whole": (whole, below, "")}


def test_libraries_alone_load_what_was_published(published):
    """On the model that the adapter names: it is what was trained."""
    for stage in ("preferring", "refreshed"):
        one, folder, below = published[stage]
        assert apart(logits(folder, below, IDS), one.logits) < 1e-4


@pytest.mark.long
def test_another_process_loads_what_was_published(published, tmp_path):
    """Of every stage, and each is another."""
    asked, answers = tmp_path / "asked.json", tmp_path / "answers.pt"
    models = {name: folders for name, (_, *folders) in published.items()}
    asked.write_text(json.dumps({"models": models, "ids": IDS.tolist()}))
    subprocess.run([sys.executable, "-I", RELOAD, asked, answers], check=True, timeout=300)
    found = torch.load(answers)

    assert all(apart(found[name], one.logits) < 1e-4 for name, (one, *_) in published.items())
    names = list(published)
    assert min(apart(found[a], found[b]) for a in names for b in names if a != b) > 1e-2
