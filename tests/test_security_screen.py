"""Names and texts from strangers on the terminal: S19."""

from __future__ import annotations

import json
import unicodedata

import pytest
from small_model import CONFIG, recipe_text, small_model

from tests.canned_run import canned_run
from tui.main import run as advisor_here

EVIL = "e\x1b]0;title\x07\x1b[2J\x9b31m\u202e[b][red]\u2066v"


def harmful(text):
    """Characters that would do something to a terminal."""
    return [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs"} and c != "\n"]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A folder in which everything that has a name has a hostile one."""
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / EVIL, config=CONFIG | {"_name_or_path": EVIL, EVIL: EVIL})
    (tmp_path / "model").symlink_to(tmp_path / EVIL)
    (tmp_path / EVIL / f"{EVIL}.bin").touch()
    rows = [{"prompt": f"{EVIL} {{{{{EVIL}}}}}", "completion": EVIL, EVIL: EVIL, "task": EVIL}] * 3
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "bad.json").write_text(json.dumps([{EVIL: EVIL}]))
    (tmp_path / "r.toml").write_text(recipe_text())
    (tmp_path / "typo.toml").write_text(recipe_text(extra=f"{json.dumps('k' + EVIL)} = 1\n"))
    (tmp_path / f"{EVIL}.toml").write_text("x")
    return tmp_path


COMMANDS = [
    *(["data", "check", "rows.json"], ["data", "check", "bad.json"], ["data", "check", EVIL]),
    *(["model", "show", "model"], ["model", "show", EVIL], ["model", "show", f"{EVIL}x"]),
    *(["recipe", "check", "r.toml"], ["recipe", "check", "typo.toml"]),
    *(["recipe", "check", f"{EVIL}.toml"], ["run", "r.toml", "--dry-run"]),
    *(["run", "r.toml", "--dry-run", "--set", EVIL], ["watch", EVIL], ["logs", EVIL]),
    ["run", "r.toml", "--dry-run", "--set", f"data.train={EVIL}"],
    ["recommend", "--model", "model", "--data", "rows.json"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda a: ascii(" ".join(a))[:40])
def test_what_commands_print_does_nothing_to_a_terminal(evil, capfd, arguments):
    """Folders, files, columns, values and arguments with escape codes in them."""
    advisor_here(arguments)

    said = capfd.readouterr()
    assert said.out + said.err
    assert harmful(said.out + said.err) == []


def test_json_for_scripts_stays_json_and_harmless(evil, capfd):
    """What a terminal would obey is escaped, and comes back as it was."""
    assert advisor_here(["model", "show", "model", "--json"]) == 0

    said = capfd.readouterr().out
    assert harmful(said) == []
    assert json.loads(said)["id"] == EVIL


@pytest.mark.parametrize("arguments", [["runs"], ["watch", "--plain"], ["logs"]])
def test_what_a_run_left_behind_does_nothing_to_a_terminal(capfd, arguments):
    """Its name, its error and its log."""
    run = canned_run(name="x", done=12, end="failed")
    manifest = json.loads(run.manifest.read_text())
    run.manifest.write_text(json.dumps(manifest | {"name": EVIL}))
    ended = json.loads(run.exit.read_text())
    run.exit.write_text(json.dumps(ended | {"what": EVIL, "why": EVIL, "do": EVIL, "where": EVIL}))
    run.console.write_text(f"step 1 {EVIL}\n")

    advisor_here(arguments)

    said = capfd.readouterr()
    assert said.out + said.err
    assert harmful(said.out + said.err) == []
