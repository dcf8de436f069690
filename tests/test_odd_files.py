"""Files that are not what they should be: special ones, endless ones, odd values."""

from __future__ import annotations

import json
import os
import time

import odd_runs
import on_disk
import pytest
from alarm import alarm
from small_model import recipe_text, small_model

from profiles.errors import ExitCode, UserError
from profiles.runs import copies, heartbeats, locks, parts, processes, reading, recipe_copy, rundir
from profiles.runs.journal import MAX_LINE_BYTES, Journal, Tail, last_record, last_seq, read_all
from profiles.runs.planned import planned
from profiles.runs.records import Record
from profiles.runs.records.metrics import Loss
from profiles.runs.state import State, status
from runner import checkpoints
from runner.checks import replay
from runner.supervision import launch, worker_command
from tests.canned_run import canned_run, finish
from tui import seen
from tui.main import run as advisor_here
from tui.screens import console

SPECIAL = sorted(odd_runs.KINDS.keys() - {"a hole", "an empty file", "not there"})
ENDLESS = ("a pipe", "a socket", "a device", "a link to a device")
LIMIT_SECONDS = 30


@pytest.fixture
def call(capsys):
    """Run a command line in this process, within a time: (exit code, stdout, stderr)."""

    def called(*arguments):
        with alarm(LIMIT_SECONDS):
            code = advisor_here([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


@pytest.fixture
def run(home):
    """A run that is over."""
    return canned_run(end="failed")


def put(path, kind):
    """Something of this kind in the file's place."""
    path.unlink(missing_ok=True)
    odd_runs.KINDS[kind](path)
    return path


def has_four_parts(told):
    """What, why, do and where."""
    return all(f"\n{part}: " in f"\n{told}" for part in ("error", "why", "do", "where"))


@pytest.mark.parametrize("kind", SPECIAL)
def test_nothing_but_a_regular_file_is_opened(tmp_path, kind):
    """Neither a link nor what would wait for somebody; nothing is done to a device."""
    path = put(tmp_path / "file", kind)

    with alarm(LIMIT_SECONDS), pytest.raises(OSError, match=r"\[Errno"):
        reading.open_regular(path)
    with alarm(LIMIT_SECONDS):
        assert rundir.read_json(path) is None
        assert list(read_all(path)) == []


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_special_file_is_not_even_opened(tmp_path, kind, monkeypatch):
    """Opening a device can do something, and wakes who writes into a pipe."""
    path = put(tmp_path / "file", kind)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))

    with pytest.raises(OSError, match=r"\[Errno"):
        reading.open_regular(path, through_links=True)
    assert locks.is_held(path) is False


def test_people_may_name_a_link(tmp_path):
    """Caches are full of them; a run directory has none."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")

    with reading.open_regular(tmp_path / "link", through_links=True) as file:
        assert file.read() == b"text"
    with pytest.raises(OSError, match="symbolic link"):
        reading.open_regular(tmp_path / "link")


def test_a_file_with_a_hole_of_gigabytes_is_read_in_part_or_not_at_all(tmp_path):
    """Its end where the end is wanted, nothing where all of it is."""
    path = put(tmp_path / "file", "a hole")

    assert reading.end_of(path, 10) == bytes(10)
    for read in (reading.content, reading.text):
        with pytest.raises(reading.UnfitError, match="file has over"):
            read(path)
    assert rundir.read_json(path) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9" * 400, None),
        ("-" + "9" * 400, None),
        ("9" * 5000, None),
        (str(2**63), None),
        (str(2**63 - 1), 2**63 - 1),
        ("1e400", None),
        ("-1e101", None),
        ("NaN", None),
        ("-Infinity", None),
        ("1e99", 1e99),
        ("-7", -7),
    ],
)
def test_a_number_that_nobody_computes_with_counts_as_not_said(tmp_path, text, value):
    """The rest of the object stands."""
    path = tmp_path / "file.json"
    path.write_text(f'{{"a": {text}, "b": 1}}')

    assert reading.json_object(path) == {"a": value, "b": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65,
        '{"a": 1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        b"{}\0",
        b"[]",
        b"7",
        b"",
        b'{"a": "' + b"x" * reading.MOST_JSON_BYTES + b'"}',
    ],
)
def test_what_is_no_object_of_ours_counts_as_damaged(tmp_path, content):
    """Nested too deeply, too long, in another encoding."""
    path = tmp_path / "file.json"
    path.write_bytes(content)

    assert reading.json_object(path) is None


def test_values_of_another_type_count_as_not_said():
    """The reverse of each: texts for numbers, numbers for texts."""
    content = {"text": "7", "yes": True, "number": 1.5, "whole": 7, "large": 10**400}

    assert [reading.whole(content, name) for name in content] == [0, 0, 0, 7, 10**400]
    assert [reading.number(content, name) for name in content] == [None, None, 1.5, 7.0, None]
    assert [reading.words(content, name) for name in content] == ["7", "", "", "", ""]


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 5000, str(2**63), "-1", "x", "", "1.5"])
def test_a_text_is_a_whole_number_or_none(digits, run):
    """Of the attempt and of the heartbeats."""
    with pytest.raises(ValueError, match=r"."):
        reading.whole_of(digits)
    run.attempt_file.write_text(digits)
    run.worker_heartbeat.write_text(f"1 {digits} training 0 {digits}")

    assert run.attempt() == 1
    assert heartbeats.of_worker(run) == heartbeats.Beat()


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800", "x" * 300, "y/" * 2000, 7, None])
def test_a_text_that_is_no_path_is_none(text, run):
    """Then a run's paths begin in its directory, and it is no copy of another one."""
    run.manifest.write_text(json.dumps({"base_dir": text, "path": text, "created": 1e9}))

    assert reading.place({"a": text}, "a") is None
    assert run.base_dir() == run.path
    assert copies.original(run) is None
    assert status(run).state is State.FAILED


def test_an_identity_is_of_texts_and_whole_numbers(run):
    """Numbers in texts, infinite ones and lists name no process."""
    sound = json.loads(run.processes.read_text())["worker"]

    assert processes.identity.from_dict(sound) is not None
    for odd in (float("inf"), "7", None, [], True):
        assert processes.identity.from_dict(sound | {"pid": odd}) is None
    assert processes.identity.from_dict(sound | {"host": 7}) is None
    assert processes.identity.from_dict([]) is None


def test_an_attempt_is_claimed_by_a_number(run):
    """What else lies among the claims claims nothing."""
    run.claims.mkdir()
    for name in ("3", "9" * 250, "0", "x", "\u0663"):
        (run.claims / name).mkdir()

    assert run.attempt() == 3


def test_the_last_record_is_found_behind_long_damage(run):
    """In pieces: of lines that go over the end of one, and of pieces without a line."""
    for filler in (b"x" * 200_000, b"\0" * 70_000 + b"\n", b"damaged\n" * 30_000, b"\n" * 65_536):
        for size in range(0, 200, 37):
            run.metrics.write_bytes(b"")
            on_disk.write(run.metrics, "loss", step=7, loss=1.0)
            with run.metrics.open("ab") as file:
                file.write(filler + b"y" * size)

            assert last_record(run.metrics, Record).step == 7
            assert last_seq(run.metrics) == 1


def test_the_last_record_is_that_of_a_long_file(run):
    """Whatever its length, a line without its end does not count."""
    run.metrics.unlink()
    journal = Journal(run.metrics, attempt=1)
    for step in range(1, 1500):
        journal.append(Loss(step=step, loss=1.0), sync=False)
        assert last_record(run.metrics, Record).step == step
    with run.metrics.open("ab") as file:
        file.write(run.metrics.read_bytes().splitlines()[0])

    assert last_record(run.metrics, Record).step == 1499


def test_a_part_is_read_up_to_a_limit(run, monkeypatch):
    """And once: what lies beyond is neither read nor taken for a new file."""
    before = list(read_all(run.metrics))
    monkeypatch.setattr(parts, "MOST_BYTES", run.metrics.stat().st_size)
    os.truncate(run.metrics, odd_runs.HOLE_BYTES)
    tail = Tail(run.metrics)

    with alarm(LIMIT_SECONDS):
        assert list(tail.stream()) == before
        assert tail.poll() == []
        assert last_record(run.metrics, Record) == before[-1]
    assert parts.size(run.metrics) == parts.MOST_BYTES


def test_a_hole_after_the_records_hides_none(run):
    """The state and the lines of a run whose file goes on for gigabytes."""
    before = len(list(read_all(run.metrics)))
    os.truncate(run.metrics, odd_runs.HOLE_BYTES)

    with alarm(LIMIT_SECONDS):
        assert len(list(read_all(run.metrics))) == before
        assert status(run).state is State.FAILED


def test_a_special_file_among_the_parts_hides_no_other(run):
    """The parts before and after it are read."""
    before = list(read_all(run.metrics))
    put(run.metrics.with_name("metrics.00001.jsonl"), "a pipe")
    on_disk.write(run.metrics.with_name("metrics.00002.jsonl"), "loss", step=21, loss=1.0)

    with alarm(LIMIT_SECONDS):
        assert [r.reached for r in read_all(run.metrics)] == [*[r.reached for r in before], 21]


def test_a_line_that_no_writer_makes_is_damaged(run):
    """However sound its checksum is."""
    with run.metrics.open("ab") as file:
        file.write(on_disk.seal({"kind": "loss", "step": 21, "what": "x" * MAX_LINE_BYTES}))
    tail = Tail(run.metrics)
    list(tail.stream())

    assert tail.num_damaged == 1


def test_an_empty_folder_among_the_runs_is_told_as_damaged(call, home):
    """Not as a run that was lost in 1970; every command says so."""
    path = home / "runs" / "2026-11-22_0450_empty_aaaaa"
    path.mkdir(parents=True)

    _, out, _ = call("runs")
    _, found, _ = call("watch", path.name, "--json")

    assert out.splitlines()[1].split()[:2] == [path.name, "damaged"]
    assert " d " not in out
    assert json.loads(found)["reason"] == "run.json is missing or damaged"
    assert call("watch", path.name, "--plain")[0] == ExitCode.BAD_DATA
    for command, code in (("resume", ExitCode.CANNOT_CREATE), ("stop", ExitCode.USAGE)):
        found, _, told = call(command, path.name)
        assert found == code
        assert "damaged" in told
        assert has_four_parts(told)
    assert call("profile", path.name)[0] == ExitCode.NO_INPUT
    assert list(path.iterdir()) == []


def test_a_run_whose_first_files_are_being_written_is_queued(home):
    """Its folders are there; half a minute later it is damaged."""
    run = rundir.create("new")

    assert status(run).state is State.QUEUED
    os.utime(run.path, (time.time() - 60, time.time() - 60))
    assert status(run).state is State.DAMAGED


def test_what_else_is_recorded_counts_without_a_manifest(run):
    """Only nothing is damaged: how a run ended is still told."""
    run.manifest.write_text("{")

    assert status(run).state is State.FAILED
    assert abs(rundir.created(run) - time.time()) < 3600


@pytest.mark.parametrize("state", ["running", "queued", "unknown", "x", 7, None, ["failed"]])
def test_an_end_that_is_none_counts_as_a_failure(run, state):
    """Who follows a run would wait for ever."""
    run.exit.write_text(json.dumps({"attempt": 1, "state": state, "code": 10**400, "what": [7]}))
    found = status(run)

    assert (found.state, found.reason, found.exit_code) == (State.FAILED, "", None)


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.00001.jsonl"])
@pytest.mark.parametrize("kind", SPECIAL)
def test_a_state_for_scripts_has_no_loss_where_the_metrics_cannot_be_read(call, run, kind, name):
    """And says so."""
    put(run.path / name, kind)

    code, out, _ = call("watch", run.id, "--json")

    assert (code, json.loads(out)["loss"]) == (0, None)
    assert name in json.loads(out)["notice"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_the_log_is_a_regular_file_or_cannot_be_read(call, run, kind):
    """On the command line, on the screen, in a message."""
    put(run.console, kind)
    code, out, told = call("logs", run.id)

    assert (code, out) == (ExitCode.IO_ERROR, "")
    assert has_four_parts(told)
    with alarm(LIMIT_SECONDS):
        assert console.tail(run.console)[0].startswith("cannot read the log")
        assert launch.console_tail(run) == ""


def test_the_end_of_an_endless_log_is_shown(call, run):
    """After gigabytes of nothing."""
    put(run.console, "a hole")
    with run.console.open("ab") as file:
        file.write(b"\nthe end\n")

    assert call("logs", run.id, "-n", "1")[1] == "the end\n"
    assert launch.console_tail(run, 1) == "the end"


@pytest.mark.parametrize("kind", [*SPECIAL, "a hole", "not there"])
def test_the_recipe_of_a_run_is_read_or_told(call, run, kind):
    """The report says it; the live screen and the supervisor do without."""
    put(run.recipe, kind)

    with alarm(LIMIT_SECONDS), pytest.raises(UserError, match="the run's recipe cannot be read"):
        recipe_copy.text_of(run)
    code, _, told = call("profile", run.id)
    assert code == (ExitCode.NO_INPUT if kind == "not there" else ExitCode.BAD_DATA)
    assert has_four_parts(told)
    with alarm(LIMIT_SECONDS):
        assert planned(run).tokens_per_second is None
        assert worker_command.worker_argv(run.path)[-1] == str(run.path)


def test_a_recipe_of_a_run_in_another_encoding_is_told(run):
    """It is text of ours."""
    run.recipe.write_bytes("schema = 1".encode("utf-16"))

    with pytest.raises(UserError, match="it is not UTF-8"):
        recipe_copy.text_of(run)


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["recipe", "check"]])
@pytest.mark.parametrize("kind", [*ENDLESS, "a link to itself", "a hole", "not there"])
def test_a_recipe_that_is_no_page_of_text_is_refused_at_once(call, tmp_path, command, kind):
    """A pipe has no writer, a device no end, and of a hole a part is read."""
    path = put(tmp_path / "r.toml", kind)
    code, out, told = call(*command, path)

    assert code == (ExitCode.BAD_RECIPE if kind == "a hole" else ExitCode.NO_INPUT)
    assert out == ""
    assert has_four_parts(told)
    assert str(path) in told


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("name", ["rows.json", "model/config.json", "model/tokenizer_config.json"])
def test_data_and_model_of_a_recipe_are_regular_files(call, tmp_path, name, kind):
    """Before anything starts, also where a lock has them hashed."""
    small_model(tmp_path / "model")
    (tmp_path / "r.toml").write_text(recipe_text())
    (tmp_path / "rows.json").write_text(json.dumps([{"text": "a"}] * 20))
    (tmp_path / replay.LOCK_NAME).write_text(json.dumps({"sha256": {"data.train": "0"}}))
    put(tmp_path / name, kind)
    arguments = ["run", "--dry-run", "--allow-changed", "--allow-outside", tmp_path / "r.toml"]
    code, out, told = call(*arguments)

    assert code in (ExitCode.NO_INPUT, ExitCode.BAD_DATA)
    assert out == ""
    assert "error: " in told
    assert "regular file" in told


def test_a_hash_is_of_a_regular_file(tmp_path):
    """Or of a link to one; a pipe would never end."""
    for kind in ENDLESS:
        with alarm(LIMIT_SECONDS), pytest.raises(OSError, match=r"\[Errno"):
            checkpoints.hash_file(put(tmp_path / "file", kind))


@pytest.mark.parametrize(
    "change", ["train.epochs=1\n[odd]\nx=1", "name=a\rb", "train.epochs=\x1b1"]
)
@pytest.mark.parametrize("command", [["run", "--dry-run"], ["recipe", "check"]])
def test_a_change_is_one_line(call, tmp_path, command, change):
    """What came after the first one was dropped in silence."""
    (tmp_path / "r.toml").write_text(recipe_text())
    code, _, told = call(*command, tmp_path / "r.toml", "--set", change)

    assert code == ExitCode.USAGE
    assert "is more than one line" in told
    assert has_four_parts(told)


def test_a_table_set_to_a_value_is_a_mistake_of_the_recipe(call, tmp_path):
    """Also together with a key of it."""
    (tmp_path / "r.toml").write_text(recipe_text())
    changes = ["--set", "method.name=lora", "--set", "method=3"]

    assert call("recipe", "check", tmp_path / "r.toml", *changes)[0] == ExitCode.BAD_RECIPE


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 200_000) + " = 1",
        "[" + " . ".join("a" * 100_000) + "]",
        "x = {" + ".".join(["'a'", '"b"'] * 50_000) + " = 1}",
        "x = " + "[" * 300_000,
    ],
)
def test_a_recipe_that_would_fill_the_memory_is_refused_before_it_is_parsed(call, tmp_path, text):
    """A library keeps every beginning of a dotted key."""
    (tmp_path / "r.toml").write_text(recipe_text(extra=text))
    code, _, told = call("recipe", "check", tmp_path / "r.toml")

    assert code == ExitCode.BAD_RECIPE
    assert "not TOML: " in told


def test_dots_in_a_text_are_no_parts_of_a_key(call, tmp_path):
    """A file may be called so."""
    name = ".".join("a" * 60)
    (tmp_path / "r.toml").write_text(recipe_text(train=f"{name}.json"))

    assert call("recipe", "check", tmp_path / "r.toml")[0] == 0


def test_of_very_many_mistakes_the_first_are_told(call, tmp_path):
    """In seconds, with the number of all."""
    extra = "\n".join(f"odd_{number} = 1" for number in range(40_000))
    (tmp_path / "r.toml").write_text(recipe_text(extra=extra))
    code, _, told = call("recipe", "check", tmp_path / "r.toml")

    assert code == ExitCode.BAD_RECIPE
    assert "the recipe has 40000 mistakes" in told
    assert "unknown key `method.odd_49`" in told
    assert "unknown key `method.odd_50`" not in told
    assert "and 39950 more" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["exit.json", "metrics.jsonl", "console.log", "recipe.toml", "."])
def test_a_file_without_the_right_to_read_it_is_told(call, run, name):
    """Its run is neither alive nor dead; no command ends in a traceback."""
    run.console.write_text("a line")
    (run.path / name).chmod(0)
    try:
        for line in (["runs"], ["logs", run.id], ["profile", run.id], ["watch", run.id, "--json"]):
            assert "Traceback" not in call(*line)[2]
    finally:
        (run.path / name).chmod(0o700)


def test_what_cannot_be_read_is_ended_by_nobody(call, run):
    """Whether the supervisor lives is not known."""
    finish(run, "failed", 20)
    put(run.processes, "a link to a device")
    code, _, told = call("stop", "--now", "--yes", run.id)

    assert code == ExitCode.USAGE
    assert has_four_parts(told)


def test_odd_marks_of_checkpoints_and_looks_count_as_none(run, home):
    """Numbers of 400 digits, texts and lists."""
    for step, loss in ((10**400, 1.0), (4, 10**400), ("4", 1.0), (4, "x"), (-4, 1.0), (True, 1.0)):
        (run.checkpoints / "best.json").write_text(json.dumps({"step": step, "loss": loss}))
        assert checkpoints.best(run) is None
    for look in (10**400, [10**400, 7], ["x", 7], [1.0], 7, None, {}):
        (home / "seen.json").write_text(json.dumps({"a run": look}))
        assert seen.last_look("a run") is None
    (home / "seen.json").write_text('{"a run": [1.5, 7]}')
    assert seen.last_look("a run") == (1.5, 7)


def test_a_lock_with_a_package_without_a_name_is_compared():
    """Of a package that cannot be, none is there."""
    assert replay._version("") is None
