"""`advisor run` up to the start: what is read, what is said, what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from made_up import duration, estimate, fit, speed
from small_model import recipe_text

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.facts import GIB
from tests.canned_run import canned_run
from tui.commands import run as command

READY = SimpleNamespace(
    fit=fit(memory=estimate(expected_bytes=3 * GIB), speed=speed(tokens_per_second=1234.0)),
    model=SimpleNamespace(id="the-model"),
    rows="12 400 rows of alpaca data: 9 920 to train on",
    duration=duration(1.0),
    for_launch={
        "devices": ("0",),
        "kept": {"planned": {"tokens_per_second": 700.0}},
    },
    warnings=("little room",),
)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Run the recipe with everything behind it replaced; returns the code and what happened."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    calls = []
    run = canned_run()

    def accept(recipe, path, base_dir, set_keys, *, allow_outside):
        calls.append(("accept", recipe.name, path, base_dir, set_keys, allow_outside))

    def check(recipe, base_dir, *, share):
        calls.append(("check", recipe.name, base_dir, share))
        return READY

    def start(text, *, name, base_dir, devices, kept, tell):
        tell(run)
        calls.append(("start", text, name, base_dir, devices, kept))
        return run

    monkeypatch.setattr(command.inputs, "accept", accept)
    monkeypatch.setattr(command.inputs, "remember", lambda *_: calls.append(("remember",)))
    monkeypatch.setattr(command.preflight, "check", check)
    monkeypatch.setattr(command.launch, "start", start)
    monkeypatch.setattr(command, "follow_run", lambda one: calls.append(("follow", one.id)) or 9)
    (tmp_path / "r.toml").write_text(recipe_text())

    def begin(*changes, **options):
        given = {"follow": False, "dry_run": False} | options
        return command.run(Path("r.toml"), changes, **given), calls

    return SimpleNamespace(begin=begin, run=run, folder=tmp_path)


def test_a_run_is_told_checked_and_started(started, capsys):
    """Its id alone is data; the recipe is kept byte by byte."""
    code, calls = started.begin()

    said, tail = capsys.readouterr(), started.run.id.rsplit("_")[-1]
    assert (code, said.out) == (0, f"{started.run.id}\n")
    assert said.err.splitlines() == [
        "small: lora of the-model",
        "12 400 rows of alpaca data: 9 920 to train on",
        "predicted peak 3.0 GiB of 24.0 GiB free, about 700 tokens/s",
        "about 1 m 10 s to the first step, about 1 h 0 m in all",
        "! little room",
        f"starting {started.run.id}",
        f"it goes on without this terminal; watch it with: advisor watch {tail}",
    ]
    told = READY.for_launch.values()
    assert calls == [
        ("accept", "small", Path("r.toml"), calls[0][3], (), False),
        ("check", "small", calls[0][3], False),
        ("start", recipe_text().encode(), "small", calls[0][3], *told),
        ("remember",),
    ]


def test_a_dry_run_starts_nothing(started, capsys):
    """After all checks."""
    code, calls = started.begin(dry_run=True)

    said = capsys.readouterr()
    assert (code, said.out) == (0, "")
    assert said.err.endswith("dry run: nothing was started\n")
    assert [name for name, *_ in calls] == ["accept", "check"]


def test_a_run_that_is_followed_gives_the_code_of_its_end(started, capsys):
    """Nothing is said about watching it."""
    code, calls = started.begin(follow=True, share=True, allow_outside=True)

    assert code == 9
    assert calls[0][-1] is True
    assert calls[1][-1] is True
    assert calls[-1] == ("follow", started.run.id)
    assert "watch it with" not in capsys.readouterr().err


def test_changed_keys_are_in_the_recipe_that_is_kept(started):
    """And are known to have been set by hand."""
    _, calls = started.begin("train.epochs = 2", "name=other")

    kept = recipes.parse(calls[2][1].decode(), where="r")
    assert (kept.train.epochs, kept.name) == (2, "other")
    assert calls[0][4] == ("train.epochs", "name")


@pytest.mark.parametrize("change", ["train.epochs", "=2", ""])
def test_a_change_needs_a_key_and_a_value(started, change):
    """Before anything is looked at."""
    with pytest.raises(UserError, match="is no KEY=VALUE") as caught:
        started.begin(change)

    assert caught.value.code is ExitCode.USAGE


def test_a_run_directory_stands_for_its_recipe(started, tmp_path):
    """The same run again."""
    started.run.recipe.write_text(recipe_text())

    command.run(started.run.path, (), follow=False, dry_run=True)
    with pytest.raises(UserError, match="cannot read the recipe"):
        command.run(tmp_path, (), follow=False, dry_run=True)


def test_a_recipe_that_is_none_is_told(tmp_path):
    """Not there, not text, not a page."""
    with pytest.raises(UserError, match="cannot read the recipe: No such file") as missing:
        command.load(tmp_path / "r.toml", ())
    (tmp_path / "r.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="it is not UTF-8"):
        command.load(tmp_path / "r.toml", ())
    (tmp_path / "r.toml").write_bytes(b"#" * (recipes.MAX_BYTES + 1))
    with pytest.raises(UserError, match=f"is over {recipes.MAX_BYTES // 1000} kB") as large:
        command.load(tmp_path / "r.toml", ())

    assert (missing.value.code, large.value.code) == (ExitCode.NO_INPUT, ExitCode.BAD_RECIPE)
    text = recipe_text()
    (tmp_path / "r.toml").write_text(text + "#" * (recipes.MAX_BYTES - len(text)))
    assert command.load(tmp_path / "r.toml", ())[0].name == "small"


def test_what_the_device_does_is_left_out_where_it_is_not_known():
    """No rate, no warnings."""
    unknown = {"fit": fit(speed=None), "duration": None, "warnings": ()}
    ready = SimpleNamespace(**(vars(READY) | unknown))
    recipe = recipes.parse(recipe_text(), where="r")

    assert command._summary(recipe, ready)[2:] == ["predicted peak 12.0 GiB of 24.0 GiB free"]


@pytest.fixture
def locked(monkeypatch):
    """A recipe with a lock beside it, of which facts have changed; returns what was refused."""
    refused = []

    def changed(*found):
        changes = [SimpleNamespace(name=n, then=t, now=w) for n, t, w in found]
        monkeypatch.setattr(command.replay, "lock_beside", lambda _path, **_: {"a": "lock"})
        monkeypatch.setattr(command.replay, "found", lambda *_: {})
        monkeypatch.setattr(command.replay, "changes", lambda _lock, _found: changes)
        monkeypatch.setattr(command.replay, "refuse", lambda *given: refused.append(given))
        return changes, refused

    return changed


def test_a_recipe_with_a_lock_is_compared(started, locked, capsys):
    """What changed is told, hashes as far as they tell files apart; then it may be refused."""
    changes, refused = locked(("data", "a" * 64, "b" * 64), ("peft", "1", "2"))

    started.begin("data.train=x", dry_run=True)

    rows = capsys.readouterr().err.splitlines()
    assert rows[:4] == [
        "comparing with recipe.lock.json",
        "  changed  then              now",
        f"  data     {'a' * 16}  {'b' * 16}",
        "  peft     1                 2",
    ]
    assert refused == [(changes, ("data.train",), Path("r.toml"))]


def test_changes_can_be_allowed_and_none_is_said(started, locked, capsys):
    """Where nothing changed, that is a sentence."""
    _, refused = locked(("data", "a", "b"))
    started.begin(dry_run=True, allow_changed=True)
    assert refused == []
    assert "  data     a     b" in capsys.readouterr().err

    locked()
    started.begin(dry_run=True)
    said = capsys.readouterr().err
    assert "data, model, recipe, packages and machine are as the lock has them" in said


def test_the_end_of_an_id_is_enough_unless_two_runs_share_it():
    """Then the whole id is told."""
    run = canned_run()
    tail = run.id.rsplit("_", maxsplit=1)[-1]
    assert command.short(run) == tail

    other = run.path.parent / f"2025-01-01_0000_other_{tail}"
    other.mkdir()
    assert command.short(run) == run.id
