"""Files that commands write: found from the command line itself, and never over others in silence.

Each writing option has a row in WRITERS, and meets all that can lie at the place it is given.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import tomllib
from pathlib import Path

import click
import pytest
from faulty_disk import Fault, FaultyDisk
from finished_run import finished_run

from advisor.recipe import is_recipe
from profiles import user_files
from profiles.errors import ExitCode, UserError
from profiles.machines import machine
from profiles.models import find_model
from profiles.runs import durable
from tui import output
from tui.cli import cli
from tui.commands import profile, save
from tui.main import run as advisor_here
from tui.output import Kind, Target
from tui.report import is_markdown

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
RECOMMEND = ("recommend", "--model", LLAMA, "--gpu", "1x RTX 4090", "--data", "orders.json")
WRITERS = {
    ("recommend", "--save"): (RECOMMEND, Kind.RECIPE),
    ("profile", "--md"): (("profile",), Kind.REPORT),
    ("profile", "--out"): (("profile", "--apply", "B14"), Kind.RECIPE),
}
"""(command, option): a command line that has something to write there, and its kind."""
FOLDERS = {("upcycle", "--out")}
"""The same for options that write a folder; its tests are those of the command."""
READ = {
    ("run", "--set"),
    ("recipe check", "--set"),
    ("profile", "--apply"),
    ("data check", "--eval"),
    ("data check", "--format"),
    ("data check", "--model"),
    *(
        (command, option)
        for command in ("data check", "data show", "recommend")
        for option in ("--chat-template", "--encoding", "--column", "--clean", "--mask")
    ),
    ("data show", "--model"),
    ("data show", "--at"),
    ("data show", "--format"),
    ("recommend", "--model"),
    ("recommend", "--data"),
    ("recommend", "--gpu"),
    ("recommend", "--ram"),
    ("recommend", "--disk"),
    ("recommend", "--task"),
    ("recommend", "--for"),
    ("recommend", "--format"),
    ("recommend", "--split-by"),
    ("data check", "--split-by"),
    ("data check", "--new-token"),
    ("data show", "--new-token"),
}
"""Options that take any text, and write nowhere."""
RECIPE = (
    '# changed by hand\nschema = 1\nname = "mine"\n[model]\nid = "m"\n[data]\ntrain = "d.json"\n'
    '[method]\nname = "lora"\nrank = 7\n'
)
REPORT = "# Bottleneck report\n\nmine\n"
NOTES = "my notes\n"
OF_KIND = {Kind.RECIPE: RECIPE, Kind.REPORT: REPORT}
IS_KIND = {Kind.RECIPE: is_recipe, Kind.REPORT: is_markdown}


def commands(group=cli, name=""):
    """Every command with its full name."""
    for part, command in group.commands.items():
        full = f"{name} {part}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, full)
        else:
            yield full, command


def options():
    """(command, option, what it is)."""
    for name, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield name, parameter.opts[0], parameter


def test_every_option_that_names_a_file_or_a_text_is_known():
    """A new one that writes gets a row above, and all the tests below."""
    writing = {(name, opt) for name, opt, o in options() if isinstance(o.type, click.Path)}
    texts = {
        (name, opt)
        for name, opt, o in options()
        if isinstance(o.type, click.types.StringParamType) and not o.is_flag
    }

    assert writing == set(WRITERS) | FOLDERS
    assert texts == READ
    assert {type(o.type).__name__ for _, _, o in options()} <= {
        *("Path", "StringParamType", "BoolParamType", "Choice"),
        *("IntRange", "IntParamType", "FloatParamType", "FloatRange"),
    }


def test_every_command_that_writes_can_be_forced_and_says_how_to_get_stdout():
    """In its help."""
    flags = {name for name, opt, o in options() if opt == "--force" and o.is_flag}

    assert flags == {name for name, _ in (*WRITERS, *FOLDERS)}
    assert all("- is stdout" in o.help for name, opt, o in options() if (name, opt) in WRITERS)


@pytest.fixture(params=WRITERS, ids=" ".join)
def writer(request, home, tmp_path, orders, monkeypatch, capsys):
    """Call a command with its option, a file and more: (code, stdout, stderr, what it read)."""
    command, option = request.param
    line, kind = WRITERS[command, option]
    finished_run(home, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    worked = []
    for module, name in ((find_model, "resolve"), (machine, "probe"), (profile, "load")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, _real=real, _name=name: worked.append(_name) or _real(*a)
        )

    def call(file, *more):
        worked.clear()
        code = advisor_here([*line, option, str(file), *more])
        said = capsys.readouterr()
        return code, said.out, said.err, list(worked)

    call.kind, call.other = kind, next(other for other in Kind if other is not kind)
    return call


def refused(answer):
    """The error, which came before any work, with nothing on stdout and four parts."""
    code, out, err, worked = answer
    assert (code, out, worked) == (ExitCode.CANNOT_CREATE, "", []), err
    starts = [line.partition(":")[0] for line in err.splitlines() if line[:1].strip()]
    assert starts == ["error", "why", "do", "where"]
    return " ".join(err.split())


def test_a_new_file_is_of_its_kind_and_whole(writer, tmp_path):
    """Nothing else lies beside it."""
    before = set(tmp_path.iterdir())

    code, _, err, _ = writer("new")

    assert code == 0, err
    assert "wrote new" in err
    assert IS_KIND[writer.kind]((tmp_path / "new").read_text())
    assert set(tmp_path.iterdir()) - before == {tmp_path / "new"}


def test_a_file_that_is_there_is_replaced_only_by_force(writer, tmp_path):
    """The advice of the refusal works; permissions stay."""
    file = tmp_path / "mine"
    file.write_text(OF_KIND[writer.kind])
    file.chmod(0o640)

    told = refused(writer("mine"))

    assert f"mine exists already why: it is a {writer.kind}" in told
    assert "add --force to replace it" in told
    assert file.read_text() == OF_KIND[writer.kind]

    code, _, err, _ = writer("mine", "--force")

    assert code == 0, err
    assert "replaced mine" in err
    assert IS_KIND[writer.kind](file.read_text())
    assert file.read_text() != OF_KIND[writer.kind]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_file_of_another_kind_is_never_replaced(writer, tmp_path, force):
    """A recipe by a report, or anything by either; it is told what it is."""
    kinds = {OF_KIND[writer.other]: f"a {writer.other}", NOTES: "neither a recipe nor a report"}
    for content, words in kinds.items():
        (tmp_path / "mine").write_text(content)

        told = refused(writer("mine", *force))

        assert f"it is {words}, and a {writer.kind} takes the place of a {writer.kind}" in told
        assert "do: name another file where" in told
        assert (tmp_path / "mine").read_text() == content


def test_an_empty_file_is_replaced_by_force(writer, tmp_path):
    """It holds nothing to lose."""
    (tmp_path / "mine").touch()

    assert "it is empty" in refused(writer("mine"))
    assert writer("mine", "--force")[0] == 0
    assert IS_KIND[writer.kind]((tmp_path / "mine").read_text())


def of_a_folder(place):
    place.mkdir()


def of_a_pipe(place):
    os.mkfifo(place)


def of_a_link(place):
    place.with_name("target").write_text(RECIPE)
    place.symlink_to("target")


def of_a_link_to_nowhere(place):
    place.symlink_to("target")


def of_a_link_to_a_device(place):
    place.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (of_a_folder, "place names a folder why: {a} is written to a file do: name a file in it: "),
        (of_a_pipe, "place is no regular file"),
        (of_a_link, "place is a symbolic link"),
        (of_a_link_to_nowhere, "place is a symbolic link"),
        (of_a_link_to_a_device, "place is no regular file"),
    ],
)
def test_what_is_no_regular_file_is_refused_even_by_force(writer, tmp_path, make, words):
    """Nothing is followed, opened or replaced."""
    make(tmp_path / "place")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.iterdir()}

    told = refused(writer("place", "--force"))

    assert words.format(a=f"a {writer.kind}") in told
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_the_advice_for_a_link_works(writer, tmp_path):
    """It names the file that the link leads to."""
    (tmp_path / "place").symlink_to("target")

    told = refused(writer("place"))
    named = told.partition("do: name the file itself: ")[2].partition(" where:")[0]

    assert writer(named)[0] == 0
    assert IS_KIND[writer.kind]((tmp_path / "target").read_text())


def test_the_advice_for_a_folder_and_for_a_missing_one_works(writer, tmp_path):
    """Name a file in it, make it first."""
    told = refused(writer("sub/"))
    named = told.partition("do: name a file in it: ")[2].partition(" where:")[0]
    told = refused(writer(named))

    assert f"cannot write {writer.kind.example}: there is no folder sub" in told
    assert "do: make it first: mkdir -p sub where" in told
    (tmp_path / "sub").mkdir()
    assert writer(named)[0] == 0


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("x" * 300, "File name too long"),
        ("orders.json/x", "Not a directory"),
        ("loop", "loop is a symbolic link"),
        ("loop/x", "Too many levels of symbolic links"),
        ("", ". names a folder"),
        ("/", "/ names a folder"),
        ("/dev/null", "null is no regular file"),
    ],
)
def test_names_that_cannot_be_are_told(writer, tmp_path, place, words):
    """In four parts like all else."""
    (tmp_path / "loop").symlink_to("loop")

    assert words in refused(writer(place, "--force"))


def test_a_read_only_file_is_refused_even_to_root(writer, tmp_path):
    """Its owner has protected it; the advice lets it be replaced."""
    file = tmp_path / "mine"
    file.write_text(OF_KIND[writer.kind])
    file.chmod(0o444)

    told = refused(writer("mine", "--force"))

    assert "mine is read-only" in told
    assert "chmod u+w mine where" in told
    assert file.read_text() == OF_KIND[writer.kind]
    file.chmod(0o644)
    assert writer("mine", "--force")[0] == 0


@pytest.mark.parametrize("number", [28, 30, 13], ids=["no room", "read-only disk", "no right"])
def test_a_place_that_takes_no_file_is_told_before_the_work(writer, tmp_path, monkeypatch, number):
    """Whatever operation it refuses; nothing is left there."""
    before = set(tmp_path.iterdir())
    for at in (1, 2, 3):
        disk = FaultyDisk(tmp_path, Fault(at=at, kind="error", number=number))
        monkeypatch.setattr(durable, "disk", disk)

        told = refused(writer("new"))

        assert f"cannot write new: {os.strerror(number)}" in told
        assert ("do: make room there" if number == 28 else "do: name a place that can") in told
        assert set(tmp_path.iterdir()) == before


def test_what_belongs_to_a_run_stays(writer, home):
    """Not even a recipe of its own gets in there."""
    file = next((home / "runs").iterdir()) / "recipe.toml"
    before = file.read_text()

    assert "recipe.toml would lie among the files of a run" in refused(writer(file, "--force"))
    assert file.read_text() == before


@pytest.mark.parametrize("place", [".", "checkpoints"])
@pytest.mark.parametrize("is_at_home", [True, False])
def test_nothing_new_is_written_into_a_run(writer, home, tmp_path, place, is_at_home):
    """Wherever the run lies."""
    run = next((home / "runs").iterdir())
    run = run if is_at_home else Path(shutil.copytree(run, tmp_path / "kept"))
    file = run / place / "new.toml"

    assert "new.toml would lie among the files of a run" in refused(writer(file))
    assert not file.exists()


@pytest.mark.parametrize("name", output.STDOUT)
def test_standard_output_gets_the_file_and_nothing_else(writer, tmp_path, name):
    """The rest is on stderr; no file of that name comes to be."""
    before = set(tmp_path.iterdir())

    code, out, err, _ = writer(name)

    assert code == 0, err
    assert IS_KIND[writer.kind](out)
    assert f"wrote the {writer.kind} to standard output" in err
    assert set(tmp_path.iterdir()) == before
    if writer.kind is Kind.RECIPE:  # it may come to lie anywhere
        assert Path(tomllib.loads(out)["data"]["train"]).is_absolute()
    else:
        assert writer("new")[0] == 0
        assert out == (tmp_path / "new").read_text()

    code, out, err, worked = writer(name, "--json")

    assert (code, worked) == (ExitCode.USAGE, [])
    assert "write to the same place" in err


def test_a_file_called_dash_is_written_by_its_path(writer, tmp_path):
    """As everywhere."""
    assert writer("./-")[0] == 0
    assert IS_KIND[writer.kind]((tmp_path / "-").read_text())


def test_a_tilde_is_the_home_also_behind_an_equals_sign(writer, tmp_path):
    """Where a shell leaves it."""
    assert writer("~/mine")[0] == 0
    assert (tmp_path / "mine").is_file()


def test_two_outputs_do_not_share_a_place(home, tmp_path, monkeypatch, capsys):
    """However it is written; nothing is."""
    finished_run(home, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    for first, second in (("x", "./x"), ("-", "/dev/stdout")):
        line = ["profile", "--apply", "B14", "--md", first, "--out", second]

        assert advisor_here(line) == ExitCode.USAGE

        assert "--md and --out write to the same place" in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


# Between the look and the writing


def test_of_many_who_create_a_file_at_once_one_wins(tmp_path):
    """The others are told, and the file is the winner's."""
    num = 8
    places = [output.target(str(tmp_path / "r"), Kind.RECIPE, force=False) for _ in range(num)]
    barrier, won, lost = threading.Barrier(num), [], []

    def write(index):
        barrier.wait()
        try:
            places[index].write(f"{RECIPE}# {index}\n" * 50)
            won.append(index)
        except UserError as error:
            lost.append((error.code, error.what))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert lost == [(ExitCode.CANNOT_CREATE, "r exists already")] * (num - 1)
    assert (tmp_path / "r").read_text() == f"{RECIPE}# {won[0]}\n" * 50
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_what_came_to_be_during_the_work_stays(tmp_path):
    """Also where force was given, if it is of another kind by then."""
    new = output.target(str(tmp_path / "new"), Kind.RECIPE, force=True)
    (tmp_path / "old").write_text(RECIPE)
    old = output.target(str(tmp_path / "old"), Kind.RECIPE, force=True)
    (tmp_path / "new").write_text(RECIPE)
    (tmp_path / "old").write_text(REPORT)

    for place, content in ((new, RECIPE), (old, REPORT)):
        with pytest.raises(UserError, match="exists already"):
            place.write("text")
        assert place.path.read_text() == content


def test_a_recommendation_whose_file_somebody_took_is_shown_all_the_same(
    tmp_path, orders, monkeypatch, capsys
):
    """Minutes may have gone into it; JSON stays one document."""
    monkeypatch.chdir(tmp_path)
    write = save.write

    def late(found, place):
        (tmp_path / "r.toml").write_text(RECIPE)
        write(found, place)

    monkeypatch.setattr(save, "write", late)

    assert advisor_here([*RECOMMEND, "--save", "r.toml"]) == ExitCode.CANNOT_CREATE
    said = capsys.readouterr()
    assert said.out.startswith("recommended")
    assert "error: r.toml exists already" in said.err
    assert (tmp_path / "r.toml").read_text() == RECIPE

    (tmp_path / "r.toml").unlink()
    assert advisor_here([*RECOMMEND, "--save", "r.toml", "--json"]) == ExitCode.CANNOT_CREATE
    assert capsys.readouterr().out.startswith('{\n  "error"')


OPERATIONS = {
    True: ("open", "write", "sync", "chmod", "rename", "sync_dir"),
    False: ("open", "write", "sync", "link", "unlink", "sync_dir"),
}
"""Of a file that replaces another, and of a new one."""


@pytest.mark.parametrize("replaces", OPERATIONS)
@pytest.mark.parametrize("at", range(1, 8))
def test_a_disk_that_fails_late_leaves_the_old_or_the_new(tmp_path, monkeypatch, replaces, at):
    """Whichever operation fails: no part of either, and an error in four parts."""
    file, new, old = tmp_path / "r", f"{RECIPE}# new\n", {}
    if replaces:
        file.write_text(RECIPE)
        old = {"r": RECIPE}
    disk = FaultyDisk(tmp_path, Fault(at=at, kind="error", number=28))
    monkeypatch.setattr(durable, "disk", disk)
    operation = dict(enumerate(OPERATIONS[replaces], 1)).get(at, "none")
    place = Target(kind=Kind.RECIPE, path=file, replaces=replaces)

    # without links a name is taken otherwise; a second name that stays is no loss
    if operation in ("none", "link", "unlink"):
        place.write(new)
    else:
        with pytest.raises(UserError, match="cannot write r: No space left") as caught:
            place.write(new)
        assert (caught.value.code, caught.value.where) == (ExitCode.CANNOT_CREATE, str(file))

    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    litter = [left.pop(name) for name in list(left) if name != "r"]
    assert litter == ([new] if operation == "unlink" else [])
    assert left == ({"r": new} if operation in ("none", "link", "unlink", "sync_dir") else old)
    assert operation != "none" or disk.count == len(OPERATIONS[replaces])


class NoLinks(durable.Disk):
    """A file system without hard links."""

    def link(self, source, target):
        raise PermissionError(1, "Operation not permitted", source, None, target)


def test_a_file_is_made_exclusively_on_a_disk_without_links_too(tmp_path, monkeypatch):
    """The first one has it."""
    monkeypatch.setattr(durable, "disk", NoLinks())
    user_files.create(tmp_path / "r", b"first")

    with pytest.raises(FileExistsError):
        user_files.create(tmp_path / "r", b"second")

    assert (tmp_path / "r").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_a_rename_that_fails_on_such_a_disk_leaves_no_empty_file(tmp_path, monkeypatch):
    """Which would stand in the way of the next attempt."""
    disk = NoLinks()
    monkeypatch.setattr(disk, "rename", lambda *_: (_ for _ in ()).throw(OSError(5, "bad")))
    monkeypatch.setattr(durable, "disk", disk)

    with pytest.raises(OSError, match="bad"):
        user_files.create(tmp_path / "r", b"first")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "is_one"),
    [
        (RECIPE, True),
        (RECIPE + "rnak = 8\n", True),
        (RECIPE.replace("schema = 1", "schema = 9"), True),
        (RECIPE.replace("[method]", "[mehtod]"), False),
        (RECIPE + "[", False),
        ("a" * 9, False),
        ("x = " + "[" * 100_000, False),
    ],
)
def test_a_recipe_is_one_even_with_mistakes_in_its_values(content, is_one):
    """What cannot be told to be one is not replaced."""
    assert is_recipe(content) is is_one


def test_ready_recipes_are_recipes():
    """So are those that are in use."""
    from profiles import installation

    assert all(is_recipe(p.read_text()) for p in installation.recipes_dir().glob("*.toml"))


def test_a_long_or_binary_file_is_neither_kind(tmp_path):
    """It is not read to its end, nor understood."""
    (tmp_path / "long").write_text(RECIPE + "#" * 1_000_000)
    (tmp_path / "binary").write_bytes(b"\xff\x00" * 9)
    for name in ("long", "binary"):
        with pytest.raises(UserError, match="exists already") as caught:
            output.target(str(tmp_path / name), Kind.RECIPE, force=True)
        assert "neither a recipe nor a report" in caught.value.why


@pytest.mark.parametrize("name", output.STDOUT)
def test_the_app_has_no_standard_output(name):
    """Its screen is drawn there."""
    with pytest.raises(UserError, match="is standard output"):
        output.target(name, Kind.RECIPE, force=True)
