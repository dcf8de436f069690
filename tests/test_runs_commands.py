"""`advisor runs`, `watch --json`, `logs` and the requests to a run, in this process."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import pytest

from profiles.errors import ExitCode
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Paused
from runner.checks import preflight
from runner.resume import Start
from runner.supervision import control
from runner.supervision.escalation import FORCE_AFTER_SECONDS
from tests.canned_run import canned_run, finish
from tui.commands import runs as command
from tui.commands import start
from tui.main import run as advisor_here
from tui.terminal import decide

START = Start(what="going on from step 4")


@pytest.fixture
def call(capsys):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def called(*arguments):
        code = advisor_here([*map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return called


def test_without_runs_the_place_is_named(call, home):
    """Nothing is printed as data."""
    assert call("runs") == (0, "", f"no runs yet in {home / 'runs'}\n")
    assert call("runs", "--json") == (0, "[]\n", "")


def test_a_home_that_cannot_be_read_is_an_error_and_not_an_empty_one(call, home, monkeypatch):
    """Permissions, a stale mount."""
    canned_run()
    real = os.scandir

    def refuse(path="."):
        if str(path) == str(home / "runs"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for command_line in (["runs"], ["watch"], ["stop"]):
        code, out, err = call(*command_line)
        assert (code, out) == (ExitCode.IO_ERROR, "")
        assert "the runs cannot be listed: Permission denied" in err


@pytest.mark.parametrize(("number", "words"), [(1, "1 run of another user is"), (2, "2 runs of")])
def test_of_a_shared_home_each_sees_their_own_and_is_told(call, monkeypatch, number, words):
    """What is there beside them."""
    mine, *theirs = (canned_run() for _ in range(number + 1))
    hidden = {str(run.path) for run in theirs}
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: str(p) not in hidden and real(p, mode))

    _, out, err = call("runs", "--json")

    assert [one["id"] for one in json.loads(out)] == [mine.id]
    assert err.startswith(words)


def test_every_run_is_listed_newest_first(call):
    """As a table, and as JSON with its place and its state."""
    old, new = canned_run(end="failed"), canned_run(done=7)

    _, out, _ = call("runs")
    found = json.loads(call("runs", "--json")[1])

    rows = out.splitlines()
    assert rows[0].split()[:3] == ["run", "state", "step"]
    assert {row.split()[0] for row in rows[1:3]} == {old.id, new.id}
    assert {one["id"]: one["state"] for one in found} == {old.id: "failed", new.id: "running"}
    assert {one["id"]: one["path"] for one in found} == {
        old.id: str(old.path),
        new.id: str(new.path),
    }
    assert {one["id"]: one["step"] for one in found} == {old.id: 20, new.id: 7}


def test_the_state_of_one_run_as_json(call):
    """Named by the end of its id."""
    run = canned_run(done=7)

    code, out, _ = call("watch", run.id.rsplit("_", maxsplit=1)[-1], "--json")

    found = json.loads(out)
    assert (code, found["id"], found["path"]) == (0, run.id, str(run.path))
    assert (found["state"], found["step"], found["num_steps"]) == ("running", 7, 40)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("stop", "asked to save and stop"),
        ("pause", "asked to pause"),
        ("checkpoint", "asked for a checkpoint"),
    ],
)
def test_a_request_is_left_and_told(call, verb, words):
    """The run answers it at its next step."""
    run = canned_run()

    assert call(verb, run.id) == (0, "", f"{run.id} {words}\n")

    assert [request.verb for request in control.waiting(run)] == [verb]


class Clock:
    """Time passes while one sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        """Of this clock."""
        return self.now

    def sleep(self, seconds):
        """At once."""
        self.now += seconds


@pytest.mark.parametrize(
    ("verb", "reason", "is_told"),
    [("stop", "disk_full", True), ("stop", "asked", False), ("checkpoint", "disk_full", False)],
)
def test_what_a_stop_without_room_loses_is_said_before_it_is_asked(call, verb, reason, is_told):
    """Of a run that waits for room alone."""
    run = canned_run()
    lost = "all that was learnt after step 4 is lost"
    Journal(run.worker_events, attempt=1).append(Paused(step=20, reason=reason, what=lost))

    assert call(verb, run.id)[2].splitlines() == [
        *([f"! {lost}"] if is_told else []),
        f"{run.id} {command._SAID[verb]}",
    ]


@pytest.fixture
def stop_now(call, monkeypatch):
    """`stop --now` of a run with a supervisor or without one, that ends after a while or never."""
    ended = []

    def stopped(*, supervised, ends_after, left=(), done=("worker",)):
        run, clock = canned_run(), Clock()
        monkeypatch.setattr(command, "time", clock)
        monkeypatch.setattr(command.processes, "supervisor_is_alive", lambda _run: supervised)
        real = command.status

        def status(one):
            if clock.now >= ends_after and not one.exit.exists():
                finish(one, "stopped", 20)
            return real(one)

        def end(_run):
            ended.append(clock.now)
            return [SimpleNamespace(pid=n) for n, _ in enumerate(done, 11)], list(left)

        monkeypatch.setattr(command, "status", status)
        monkeypatch.setattr(command.leftovers, "end", end)
        monkeypatch.setattr(command.leftovers, "stuck", lambda names: [f"{n} hangs" for n in names])
        code, out, err = call("stop", run.id, "--now", "--yes")
        assert (code, out) == (0, "")
        first, *rest = err.splitlines()
        assert first == f"{run.id} asked to stop without saving"
        return [row.removeprefix(f"{run.id} ") for row in rest], ended, clock.now

    return stopped


def test_a_supervisor_sees_to_a_stop_by_itself(stop_now):
    """The command waits for nothing."""
    assert stop_now(supervised=True, ends_after=1e9) == ([], [], 0.0)


def test_without_a_supervisor_the_command_waits_for_the_end(stop_now):
    """And does nothing if it comes."""
    rows, ended, now = stop_now(supervised=False, ends_after=1.0)

    assert (rows, ended) == ([], [])
    assert now == pytest.approx(1.0, abs=0.2)


def test_a_worker_that_does_not_answer_is_ended_by_the_command(stop_now):
    """Once its time is over; what cannot be ended is told."""
    rows, (at,), _ = stop_now(
        supervised=False, ends_after=1e9, left=("a process",), done=("one", "two")
    )

    assert rows == ["ended leftover processes: 11, 12", "! a process hangs"]
    assert FORCE_AFTER_SECONDS < at < FORCE_AFTER_SECONDS + 1


@pytest.mark.parametrize(
    ("done", "left", "is_refused"),
    [([11], [], False), ([], ["a process"], False), ([], [], True)],
)
def test_stop_now_of_a_run_that_is_over_ends_what_it_left(
    call, monkeypatch, done, left, *, is_refused
):
    """Where nothing is left nobody obeys."""
    run = canned_run(end="killed")
    processes = [SimpleNamespace(pid=pid) for pid in done]
    monkeypatch.setattr(command.processes, "supervisor_is_alive", lambda _run: False)
    monkeypatch.setattr(command.leftovers, "end", lambda _run: (processes, left))
    monkeypatch.setattr(command.leftovers, "stuck", lambda names: [f"{n} hangs" for n in names])

    code, _, err = call("stop", run.id, "--now", "--yes")

    assert (code == 2) == is_refused
    assert ("ended leftover processes: 11" in err) == bool(done)
    assert ("! a process hangs" in err) == bool(left)


def test_leftovers_are_the_supervisors_business_while_it_lives(call, monkeypatch):
    """It ends them itself."""
    run = canned_run(end="killed")
    monkeypatch.setattr(command.processes, "supervisor_is_alive", lambda _run: True)
    monkeypatch.setattr(command.leftovers, "end", lambda _run: pytest.fail("ended by two"))

    assert call("stop", run.id, "--now", "--yes")[0] == 2


def test_saving_first_ends_nothing_that_is_left(call, monkeypatch):
    """Only `--now` means it."""
    run = canned_run(end="killed")
    monkeypatch.setattr(command.leftovers, "end", lambda _run: pytest.fail("not asked for"))

    assert call("stop", run.id)[0] == 2


def test_nobody_obeys_for_a_run_that_is_over(call):
    """Exit code 2, and nothing is left behind."""
    run = canned_run(end="failed")

    code, out, err = call("pause", run.id)

    assert (code, out) == (2, "")
    assert "error: cannot pause: the run is failed" in err
    assert control.waiting(run) == []


def test_a_paused_run_goes_on_where_it_is(call, monkeypatch):
    """It is asked to; no second attempt is started."""
    from runner.supervision import launch

    run = canned_run()
    pause(run)
    monkeypatch.setattr(launch, "resume", lambda *_: pytest.fail("a second attempt"))

    assert call("resume", run.id) == (0, "", f"{run.id} asked to go on\n")
    assert [request.verb for request in control.waiting(run)] == ["unpause"]


def pause(run):
    """As the worker says it."""
    from profiles.runs.journal import Journal
    from profiles.runs.records.worker import Paused

    Journal(run.worker_events, attempt=1).append(Paused(step=20, reason="asked", what="asked"))


def test_a_run_that_is_over_begins_its_next_attempt(call, monkeypatch):
    """On the devices that the check chose, from the step that it can go on from."""
    run, asked = canned_run(end="failed"), []
    ready = SimpleNamespace(start=START, devices=("0",), warnings=("little room",))

    def check(one, *, share, allow_changed):
        asked.append((one.id, share, allow_changed))
        return ready

    monkeypatch.setattr(preflight, "check_resume", check)
    monkeypatch.setattr(
        command.launch, "resume", lambda one, devices, _tell: asked.append((one.id, devices))
    )
    monkeypatch.setattr(command, "follow_run", lambda one: asked.append(one.id) or 9)

    code, out, err = call("resume", run.id, "--share", "--allow-changed", "--follow")

    assert (code, out) == (9, f"{run.id}\n")
    assert err.splitlines()[0] == "! little room"
    assert err.splitlines()[1].startswith("was failed")
    assert err.splitlines()[1].endswith("; going on from step 4")
    assert asked == [(run.id, True, True), (run.id, ("0",)), run.id]


def test_what_was_not_allowed_is_not(monkeypatch):
    """Neither sharing a GPU nor data that changed."""
    run, asked = canned_run(end="failed"), []
    ready = SimpleNamespace(start=START, devices=(), warnings=())
    monkeypatch.setattr(
        preflight, "check_resume", lambda _run, **allowed: asked.append(allowed) or ready
    )
    monkeypatch.setattr(command.launch, "resume", lambda *_: None)
    monkeypatch.setattr(command, "follow_run", lambda _run: pytest.fail("followed"))

    assert command.resume(run.id, follow=False) == 0

    assert asked == [{"share": False, "allow_changed": False}]


@pytest.mark.parametrize(
    ("state", "why"), [("finished", "the run is finished"), (None, "the run is running")]
)
def test_only_a_run_that_ended_early_is_checked_and_begun_again(call, monkeypatch, state, why):
    """Before anything is read for it."""
    run = canned_run(end=state)
    monkeypatch.setattr(preflight, "check_resume", lambda *_, **__: pytest.fail("checked"))
    monkeypatch.setattr(command.launch, "resume", lambda *_: pytest.fail("begun"))

    code, out, err = call("resume", run.id)

    assert (code, out) == (ExitCode.CANNOT_CREATE, "")
    assert f"error: cannot resume: {why}" in err


def test_the_log_is_shown_from_its_end_and_made_harmless(call):
    """Indentation stays, as far as a traceback needs it."""
    run = canned_run()
    lines = ["first", "    four\x1b[31m", "        eight", " " * 40 + "forty", " " * 60 + "more"]
    run.console.write_bytes("\n".join([*lines, "x" * 500, ""]).encode() + b"\xff end\n")

    code, out, _ = call("logs", run.id, "-n", 6)

    rows = out.splitlines()
    assert code == 0
    assert [row.strip() for row in rows] == [
        *("four", "eight", "forty", "more", f"{'x' * 397}...", "\ufffd end"),
    ]
    indents = [len(row) - len(row.lstrip()) for row in rows]
    assert indents[:4] == [4, 8, 40, 40]


def test_a_run_without_a_log_has_nothing_to_show(call):
    """That is no error."""
    run = canned_run()
    run.console.unlink(missing_ok=True)

    assert call("logs", run.id)[0] == 0


@pytest.mark.parametrize(
    ("options", "environ", "is_screen"),
    [((), {"TERM": "xterm"}, True), (("--plain",), {"TERM": "xterm"}, False), ((), {}, False)],
)
def test_a_run_is_watched_on_a_screen_where_there_is_one(
    call, monkeypatch, options, environ, *, is_screen
):
    """Lines are for those who ask for them, and for pipes and logs."""
    run, watched = canned_run(), []
    terminal = decide(environ, is_tty=True, encoding="utf-8")
    monkeypatch.setattr(command, "look_at_terminal", lambda: terminal)
    monkeypatch.setattr(command, "follow_run", lambda one: watched.append(one) or 9)
    monkeypatch.setattr(start, "open_app", lambda name: watched.append(name) or 8)

    code, _, _ = call("watch", run.id, *options)

    assert (code, watched) == ((8, [str(run.path)]) if is_screen else (9, [run]))


def test_without_a_name_it_is_the_newest_run_that_works(call):
    """One that is over comes only if none does."""
    over = canned_run(name="over", end="failed")
    assert json.loads(call("watch", "--json")[1])["id"] == over.id
    works = canned_run(name="works")
    finish(canned_run(name="newest"), "failed", 20)

    assert json.loads(call("watch", "--json")[1])["id"] == works.id


@pytest.mark.parametrize(
    ("options", "told", "asked"),
    [
        (("--log-every", 5), "log every 5 steps", {"log_every": 5}),
        (
            ("--eval-every", 7, "--log-every", 1),
            "log every 1 steps, eval every 7 steps",
            {"log_every": 1, "eval_every": 7},
        ),
    ],
)
def test_a_run_is_asked_for_other_intervals(call, options, told, asked):
    """Those that are named; none is a mistake."""
    run = canned_run()

    code, out, err = call("change", run.id, *options)

    assert (code, out) == (0, "")
    assert sorted(err.removeprefix(f"{run.id} asked to ").split(", ")) == sorted(
        [*told.split(", "), "from its next step on\n"]
    )
    (request,) = control.waiting(run)
    assert (request.verb, request.args) == ("change", asked)
    assert call("change", run.id)[0] == 2
