"""Advice about runs: each command that is named exists, takes its options, and means that run."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import odd_runs
import pytest
from alarm import alarm
from finished_run import finished_run

from profiles.errors import ExitCode, UserError
from profiles.runs import advice, find_run, rundir
from profiles.runs.rundir import RunDir
from profiles.runs.state import status
from runner.supervision import control
from tests.canned_run import canned_run
from tui import plain
from tui.cli import cli
from tui.main import run as advisor_here

ROOT = Path(__file__).parent.parent
ROOMS = ("tui", "runner", "profiles", "advisor")
WRITTEN_OUT = re.compile(r"`advisor ([a-z][^`]*)`|(?:: +)advisor ([a-z][^`;]*)")
ABOUT_NO_RUN = {"advisor watch --json", "advisor change"}
"""For whoever has no terminal, of any run; and what somebody asked for, which is no advice."""


@pytest.fixture
def call(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def called(*arguments):
        code = advisor_here([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text of a module but its docstrings; X is what is put in."""
    inner = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(p.value if isinstance(p, ast.Constant) else "X" for p in node.values)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command of a line and what follows its name; KeyError if there is none."""
    found: click.Command = cli
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        found, words = found.commands[words[0]], words[1:]
    return found, words


def faults(line: str) -> list[str]:
    """What is wrong with a command line that somebody is told to type."""
    try:
        found, rest = command_of(line.split())
    except KeyError as error:
        return [f"there is no command {error}"]
    known = {name for param in found.params for name in param.opts}
    wrong = [word for word in rest if word.startswith("-") and word.split("=")[0] not in known]
    takes_run = any(param.name == "run" for param in found.params)
    named = [word for word in rest if not word.startswith("-")]
    lacking = ["a run"] if takes_run and not named and f"advisor {line}" not in ABOUT_NO_RUN else []
    return [f"it has no {word}" for word in wrong] + lacking


def modules() -> list[Path]:
    """Every source file of the product."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_every_command_that_a_text_names_exists_with_its_options_and_its_run():
    """In all texts of the product."""
    lines = {
        (path.name, (one[1] or one[2]).strip())
        for path in modules()
        for text in texts(ast.parse(path.read_text()))
        for one in WRITTEN_OUT.finditer(text)
    }
    wrong = {f"{name}: advisor {line}": faults(line) for name, line in lines if faults(line)}

    assert len(lines) > 20
    assert wrong == {}


def test_every_command_about_a_run_that_is_put_together_exists():
    """With its options."""
    made = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "advice.command",
                "advice.line",
            ):
                verb, _, *options = node.args
                made.append(" ".join([ast.literal_eval(verb), *map(ast.literal_eval, options)]))

    assert len(made) > 10
    assert {line: faults(f"{line} X") for line in made if faults(f"{line} X")} == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("resum X", "there is no command 'resum'"),
        ("resume X --again", "it has no --again"),
        ("resume", "a run"),
        ("data check FILE", None),
    ],
)
def test_what_cannot_be_typed_is_seen(line, fault):
    """The check above can fail."""
    assert faults(line) == ([fault] if fault else [])


def test_a_run_is_named_by_its_id_and_one_from_elsewhere_by_its_path(tmp_path):
    """What is said is what commands take, from any folder."""
    at_home = canned_run()
    elsewhere = RunDir(tmp_path / "a place" / at_home.id)
    shutil.copytree(at_home.path, elsewhere.path)
    renamed = RunDir(at_home.path.with_name("mine"))
    shutil.copytree(at_home.path, renamed.path)

    assert advice.command("resume", at_home) == f"`advisor resume {at_home.id}`"
    for run in (at_home, elsewhere, renamed):
        *_, name = shlex.split(advice.line("stop", run, "--now"))
        assert find_run.find(name).path == run.path


def test_advice_of_a_run_by_path_is_not_about_the_newest(call, tmp_path):
    """A copy of an older run; the newest has the same state."""
    run = canned_run(end="stopped")
    elsewhere = tmp_path / "copy"
    shutil.copytree(run.path, elsewhere)
    newest = canned_run(end="stopped")

    code, _, said = call("stop", elsewhere)

    assert code == ExitCode.USAGE
    assert f"`advisor resume {elsewhere}`" in said
    assert newest.id not in said


def test_a_command_is_never_broken_at_the_end_of_a_line():
    """It is copied as it stands."""
    told = advice.command("stop", canned_run(), "--now")

    lines = plain.wrap(f"{'word ' * 9}{told} and more words that follow it", 60)

    assert len(lines) > 1
    assert any(told in line for line in lines)


def test_a_moved_run_tells_of_its_result_where_it_is(tmp_path):
    """And of commands with the name that it has there; other paths are left alone."""
    run = canned_run()
    manifest = json.loads(run.manifest.read_text()) | {"path": str(run.path)}
    run.manifest.write_text(json.dumps(manifest))
    text = f"the result is in {run.model}, not in {run.path}-old; `advisor resume {run.id}` goes on"
    moved = RunDir(tmp_path / "moved")
    assert advice.told_here(run, text) == text
    run.path.rename(moved.path)

    assert advice.told_here(moved, text) == (
        f"the result is in {moved.model}, not in {run.path}-old; "
        f"`advisor resume {moved.path}` goes on"
    )


def test_a_copy_that_lost_its_manifest_advises_on_itself_all_the_same(tmp_path):
    """Not on the run that it is a copy of."""
    run = canned_run()
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    copy.manifest.write_text("{")

    told = advice.told_here(copy, f"`advisor resume {run.id}` goes on; `advisor data check` shows")

    assert told == f"`advisor resume {copy.path}` goes on; `advisor data check` shows"


def test_the_reason_of_a_renamed_run_names_a_path_that_is_there(home, tmp_path):
    """As every reader has it."""
    run = finished_run(home, tmp_path / "base")
    ended = json.loads(run.exit.read_text()) | {"what": f"the result is in {run.model}"}
    run.exit.write_text(json.dumps(ended))
    manifest = json.loads(run.manifest.read_text()) | {"path": str(run.path)}
    run.manifest.write_text(json.dumps(manifest))
    renamed = RunDir(run.path.rename(run.path.with_name("best")))

    assert status(renamed).reason == f"the result is in {renamed.model}"


def test_a_place_that_no_manifest_tells_is_known_by_the_id(home, tmp_path):
    """As runs of the first version are."""
    run = finished_run(home, tmp_path / "base")

    assert status(run).reason.endswith(f", the result is in {run.model}")


@pytest.mark.parametrize("command", ["resume", "profile", "run"])
def test_what_needs_the_place_of_the_data_names_a_damaged_manifest(call, home, tmp_path, command):
    """Not what is missing where relative paths lead to without it."""
    run = finished_run(home, tmp_path / "base")
    run.manifest.write_text("{")
    run.exit.write_text(run.exit.read_text().replace("finished", "stopped"))

    code, _, said = call(command, run.path)

    assert code == ExitCode.BAD_DATA
    assert "run.json cannot be read" in said
    assert "it is missing or damaged" in said


@pytest.mark.parametrize("command", ["watch", "profile", "logs"])
def test_a_run_whose_manifest_is_a_pipe_is_found_by_its_path(call, home, tmp_path, command):
    """And says what is wrong with it, as it does by its id."""
    run = finished_run(home, tmp_path / "base")
    run.manifest.unlink()
    os.mkfifo(run.manifest)
    elsewhere = run.path.rename(tmp_path / "elsewhere")

    _, _, said = call(command, elsewhere)

    assert "no run is called" not in said
    assert "is no run directory" not in said
    assert command == "logs" or "run.json cannot be read" in said


def test_an_unknown_id_is_answered_with_ids_that_are_like_it():
    """Or with the newest where none is."""
    run, _ = canned_run(), canned_run()
    wrong = run.id[:-1] + ("a" if run.id[-1] != "a" else "b")

    with pytest.raises(UserError, match="no run is called") as near:
        find_run.find(wrong)
    with pytest.raises(UserError, match="no run is called") as far:
        find_run.find("%%%")

    assert run.id in near.value.why
    assert near.value.why.startswith("ids like it: ")
    assert far.value.why.startswith("the newest runs are: ")
    assert "`advisor runs` lists" in near.value.do


def test_of_many_ids_that_fit_it_is_told_how_many_are_not_shown():
    """Nothing is cut in silence."""
    for _ in range(7):
        canned_run()

    with pytest.raises(UserError, match="fits 7 runs") as several:
        find_run.find("_")

    assert several.value.why.endswith(" and 2 more")


def test_a_path_without_a_run_is_told_as_a_path(tmp_path):
    """Not as an id that nothing is called."""
    with pytest.raises(UserError, match="is no run directory") as empty:
        find_run.find(str(tmp_path))
    with pytest.raises(UserError, match="is no run directory") as none:
        find_run.find(str(tmp_path / "none"))

    assert (empty.value.why, none.value.why) == ("it holds no run.json", "there is no such folder")


@pytest.mark.parametrize("by_path", [False, True])
def test_the_run_of_another_user_is_told_as_theirs(monkeypatch, by_path):
    """By id and by path: it is there, it is only closed."""
    run = canned_run()
    monkeypatch.setattr(rundir.os, "access", lambda path, _: str(path) != str(run.path))
    monkeypatch.setattr(find_run.os, "getuid", lambda: 12345)

    with pytest.raises(UserError, match=f"this user may not look into {run.id}") as closed:
        find_run.find(str(run.path) if by_path else run.id)

    assert closed.value.why.startswith("it belongs to ")
    assert closed.value.code == ExitCode.REFUSED


def test_a_damaged_run_is_told_what_can_be_done_with_it():
    """A resume is refused, so it is not offered."""
    run = canned_run(end="stopped")
    recipe = run.recipe
    for path in (run.manifest, run.exit, run.attempt_file, run.processes):
        path.unlink(missing_ok=True)
    shutil.rmtree(run.claims, ignore_errors=True)
    recipe.write_text("name = 1")
    os.utime(run.path, (1.7e9, 1.7e9))

    found = status(run)
    with pytest.raises(UserError) as refused:
        control.send(run, "stop")

    assert found.state == "damaged", found
    assert "resume" not in refused.value.do
    assert f"copy {recipe} into the folder" in refused.value.do
    assert refused.value.do.startswith("put its run.json back, or copy ")


def test_a_recipe_is_started_anew_with_a_command_that_is_told(home, tmp_path):
    """From the run's own directory, whose recipe's paths begin where the run began."""
    run = finished_run(home, tmp_path / "base")

    assert advice.anew(run) == f"`advisor run {run.path}` starts its recipe anew"
    run.recipe.unlink()
    assert advice.anew(run) == "no recipe.toml is left to start anew"


@pytest.mark.parametrize("name", ["exit.json", "events.runner.jsonl", "metrics.jsonl"])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder", "a link to a device"])
def test_watching_ends_where_a_file_can_never_be_read(call, name, kind):
    """And names it."""
    run = canned_run()
    path = run.path / name
    path.unlink(missing_ok=True)
    odd_runs.KINDS[kind](path)

    with alarm(20):
        code, _, said = call("watch", run.id, "--plain")

    assert code == ExitCode.IO_ERROR
    assert f"{name} cannot be read: it is " in said


@pytest.mark.parametrize("content", ["", "{", "[]", None])
def test_a_run_whose_manifest_is_damaged_says_so(content):
    """What is read of it is a guess from then on."""
    run = canned_run(end="stopped")
    if content is None:
        run.manifest.unlink()
    else:
        run.manifest.write_text(content)

    assert status(run).notice.startswith("run.json is ")


def test_a_link_to_itself_among_the_runs_ends_no_listing(call, home):
    """It is no folder; somebody made it."""
    run = canned_run()
    (home / "runs" / "loop").symlink_to("loop")

    code, out, _ = call("runs")

    assert code == 0
    assert run.id in out
