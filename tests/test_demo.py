"""`advisor demo` without its training: the base model, what is said on the way, the code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_model import small_model

from profiles import installation
from profiles.errors import ExitCode, UserError
from tui.commands import demo


class Maker:
    """Stands in for the process that makes the base model."""

    def __init__(self, code=0):
        self.code = code
        self.commands = []

    def run(self, command, *, env, check):
        """Make the model that was asked for, unless it is to fail."""
        assert (env["PYTHONSAFEPATH"], check) == ("1", False)
        self.commands.append(command)
        small_model(Path(command[-1]))
        return SimpleNamespace(returncode=self.code)


@pytest.fixture
def maker(monkeypatch):
    """A process that succeeds."""
    made = Maker()
    monkeypatch.setattr(demo, "subprocess", made)
    return made


@pytest.fixture
def folder(home):
    """Where the demo keeps its files."""
    (home / "demo").mkdir(parents=True)
    return home / "demo"


def test_the_base_model_is_made_once_for_each_version(maker, folder, capsys, monkeypatch):
    """In a process of its own, complete or not at all."""
    base = demo._base_model(folder)
    assert demo._base_model(folder) == base == folder / "base"

    (command,) = maker.commands
    assert command[1:4] == ["-P", "-m", "runner.demo_base"]
    assert (base / "config.json").is_file()
    assert "made by an earlier demo" in capsys.readouterr().out
    assert not Path(command[-1]).exists()

    monkeypatch.setattr(demo.installation, "version", lambda: "another")
    (base / "old").write_text("")
    demo._base_model(folder)
    assert len(maker.commands) == 2
    assert not (base / "old").exists()


@pytest.mark.parametrize("lost", ["base", "base.version"])
def test_a_half_of_it_is_no_base_model(maker, folder, lost):
    """Model and mark belong together."""
    demo._base_model(folder)
    (folder / lost).rename(folder / "away")

    demo._base_model(folder)

    assert len(maker.commands) == 2


def test_a_base_model_that_cannot_be_made_is_told(maker, folder):
    """Nothing is left that looks like one."""
    maker.code = 1

    with pytest.raises(UserError) as caught:
        demo._base_model(folder)

    assert caught.value.code is ExitCode.INTERNAL
    assert not (folder / "base").exists()


@pytest.fixture
def whole(maker, monkeypatch):
    """The demo with a training that ends at once, with a code; returns what was started."""
    started = {}

    def begin(code):
        def start(text, *, name, base_dir, devices, kept, tell):
            tell(SimpleNamespace(id="the-run"))
            assert kept == {"a": "b"}
            started.update(text=text, name=name, base_dir=base_dir, devices=devices)
            return SimpleNamespace(id="the-run")

        facts = {"devices": ("0",), "kept": {"a": "b"}}
        ready = SimpleNamespace(for_launch=facts)
        monkeypatch.setattr(
            demo.preflight, "check", lambda recipe, _dir: started.update(recipe=recipe) or ready
        )
        monkeypatch.setattr(demo.launch, "start", start)
        monkeypatch.setattr(demo, "follow", lambda _run: code)
        monkeypatch.setattr(demo.profile, "load", lambda run: run.id)
        monkeypatch.setattr(demo.report, "lines", lambda found, *_: [f"report of {found}"])
        return demo.demo(), started

    return begin


def test_the_whole_way(whole, capsys, home):
    """Five headings; the recipe that is started is the one that can be replayed."""
    code, started = whole(0)

    said = capsys.readouterr()
    rows = said.out.splitlines()
    assert code == 0
    assert [row[3:6] for row in rows if row.startswith("== ")] == [f"{n}/5" for n in range(1, 6)]
    recipe = home / "demo" / "demo.toml"
    assert started["text"] == recipe.read_bytes()
    assert (started["base_dir"], started["devices"]) == (home / "demo", ("0",))
    assert started["name"] == started["recipe"].name
    assert "run the-run" in rows
    assert rows[-1] == "report of the-run"
    told = said.err.splitlines()
    assert told[-3].startswith("the demo took ")
    assert told[-2] == f"replay it:   advisor run {recipe}"
    assert told[-1].startswith("your own:    advisor recommend --model FOLDER")
    assert len(json.loads((home / "demo" / "orders.json").read_text())) == 1200
    assert (installation.home() / "demo").stat().st_mode & 0o077 == 0


def test_the_demo_can_be_done_again(whole, maker):
    """In the same folder, with the same base model."""
    assert [whole(0)[0], whole(0)[0]] == [0, 0]

    assert len(maker.commands) == 1


def test_a_training_that_fails_has_no_report(whole, capsys):
    """The code is that of the run."""
    code, _ = whole(70)

    said = capsys.readouterr()
    assert code == 70
    assert "== 5/5" not in said.out
    assert said.err == "starting the-run\n"
