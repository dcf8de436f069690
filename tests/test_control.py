"""Requests to a run: whose count, which expire, and that asking twice is asking once."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time

import pytest
from doubles import ended, exit_record, start, steps_done, wait_for
from on_disk import read_all

from profiles.errors import ExitCode, UserError
from profiles.runs import durable, identity, rundir
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import Published
from profiles.runs.state import State
from runner.supervision import control

__all__ = ["start"]


@pytest.fixture
def run(home):
    """A run that this process works on."""
    found = rundir.create("a run")
    durable.write_json(found.manifest, {"created": 1.0})
    durable.write_atomic(found.attempt_file, b"1\n")
    me = identity.of_process(os.getpid()).as_dict()
    durable.write_json(found.processes, {"attempt": 1, "supervisor": me, "worker": me})
    return found


def leave(run, name, **changes):
    """Write a request file by hand."""
    content = {"v": 1, "id": name, "run": run.id, "attempt": 1, "verb": "stop", "args": {}}
    durable.write_json(run.requests / f"{name}.json", content | changes)


def answered(run, name):
    """What became of it."""
    return json.loads((run.answers / f"{name}.json").read_text())["result"]


def test_a_request_says_who_wants_what_of_which_attempt_until_when(run):
    """All fields of the protocol."""
    control.send(run, "pause")

    (path,) = run.requests.glob("*.json")
    content = json.loads(path.read_text())
    assert set(content) == {
        *("v", "id", "run", "attempt", "verb", "args", "by", "t", "not_after"),
    }
    assert (content["id"], content["by"]) == (path.stem, f"uid {os.getuid()}")
    assert content["not_after"] > content["t"] > time.time() - 60


def test_an_expired_request_is_answered_as_ignored(run):
    """It is no longer meant."""
    leave(run, "old", not_after=time.time() - 1)

    assert control.pending(run) == []
    assert answered(run, "old") == "ignored: expired"


def test_a_repeated_id_is_answered_as_ignored(run):
    """The same request, left once more, is obeyed once."""
    leave(run, "one")

    (request,) = control.pending(run)
    control.answer(run, request, "obeyed")
    leave(run, "one")

    assert control.pending(run) == []
    assert answered(run, "one") == "obeyed"
    assert list(run.requests.glob("*.json")) == []


@pytest.mark.parametrize("claim", [{"id": "x" * 300}, {"not_after": 10**400}, {"id": "a/../b"}])
def test_what_a_request_says_of_itself_raises_nothing(run, claim):
    """The training process reads it: an id is no name of a file, a time no number of seconds."""
    leave(run, "stop", **claim)

    (request,) = control.pending(run)
    control.answer(run, request, "obeyed")

    assert answered(run, "stop") == "obeyed"


def test_a_request_for_another_attempt_is_handed_over_with_its_number(run):
    """The worker answers it as ignored: a stale stop never touches a resumed run."""
    leave(run, "stale", attempt=7)

    assert [(r.verb, r.attempt) for r in control.pending(run)] == [("stop", 7)]


def test_unanswered_stops_of_a_replaced_attempt_hold_for_the_next(run):
    """Other requests do not: a pause was meant for what was seen then."""
    leave(run, "stop")
    leave(run, "pause", verb="pause")
    leave(run, "older", attempt=0)

    control.readdress(run, range(1, 2), 2)

    found = [(r.verb, r.attempt) for r in control.waiting(run)]
    assert sorted(found) == [("pause", 1), ("stop", 0), ("stop", 2)]
    assert answered(run, "stop") == "now for attempt 2"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_requests_in_a_directory_that_others_can_write_do_not_count(run, mode):
    """Neither are they read nor can one be left."""
    leave(run, "stop")
    run.requests.chmod(mode)

    assert control.waiting(run) == []
    with pytest.raises(UserError, match="not private") as found:
        control.send(run, "stop")
    assert found.value.code == ExitCode.REFUSED


def test_a_link_in_place_of_a_request_is_passed_over(run, tmp_path):
    """Only regular files count."""
    leave(run, "stop")
    elsewhere = tmp_path / "request.json"
    (run.requests / "stop.json").rename(elsewhere)
    (run.requests / "stop.json").symlink_to(elsewhere)

    assert control.pending(run) == []


def test_a_linked_control_directory_is_not_read(run, tmp_path):
    """A directory that somebody put a link to is not ours."""
    leave(run, "stop")
    run.requests.rename(tmp_path / "in")
    run.requests.symlink_to(tmp_path / "in")

    assert control.pending(run) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_request_of_another_user_is_passed_over(run):
    """Same uid only."""
    leave(run, "stop")
    os.chown(run.requests / "stop.json", 65534, 65534)

    assert control.pending(run) == []


def test_run_directories_are_private(run):
    """Directories 0700, files 0600."""
    control.send(run, "pause")
    modes = {p: p.stat().st_mode & 0o777 for p in [run.path, *run.path.rglob("*")]}

    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def _send_seven(path):
    for _ in range(7):
        control.send(rundir.RunDir(path), "stop")


def test_twenty_one_stops_from_three_readers_are_one_stop(start):
    """Asking is idempotent: one stop event, every request answered."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    context = multiprocessing.get_context("fork")
    readers = [context.Process(target=_send_seven, args=(run.path,)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert ended(run).state is State.STOPPED
    kinds = [e["kind"] for e in read_all(run.worker_events)]
    assert kinds.count("stop_accepted") == 1
    assert exit_record(run)["code"] == 75


def test_a_second_stop_beside_the_first_is_answered(run):
    """Nobody waits for an answer in vain."""
    leave(run, "a")
    leave(run, "b")

    (request,) = control.pending(run)

    assert request.id == "a"
    assert answered(run, "b") == "ignored: asked already"


class Stubborn(durable.Disk):
    """Takes nothing and gives nothing away."""

    def open(self, path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def unlink(self, path, **_):
        raise OSError(errno.EROFS, "Read-only file system", str(path))


def test_a_disk_that_does_not_obey_makes_no_request_be_obeyed_twice(run, monkeypatch):
    """The training goes on: answering raises nothing."""
    leave(run, "pause-on-a-full-disk", verb="pause")
    (request,) = control.pending(run)
    monkeypatch.setattr(durable, "disk", Stubborn())

    control.answer(run, request, "obeyed")

    assert control.pending(run) == []


@pytest.mark.parametrize("verb", ["stop", "pause", "checkpoint"])
@pytest.mark.parametrize("seen_by", ["heartbeat", "event"])
def test_who_asks_after_the_last_step_is_told_at_once_that_it_is_too_late(run, verb, seen_by):
    """With what can be done; giving it up is possible."""
    if seen_by == "heartbeat":
        run.worker_heartbeat.write_text("7 20 finishing 0 0\n")
    else:
        Journal(run.worker_events, attempt=1).append(Published(step=20, last_step=20))

    with pytest.raises(UserError, match=f"too late to {verb}") as found:
        control.send(run, verb)

    assert found.value.code == ExitCode.USAGE
    control.send(run, "stop_now")
    assert [request.verb for request in control.waiting(run)] == ["stop_now"]


def test_a_result_of_an_earlier_attempt_keeps_nobody_from_asking(run):
    """It was damaged, or taken away."""
    Journal(run.worker_events, attempt=1).append(Published(step=20, last_step=20))
    durable.write_atomic(run.attempt_file, b"2\n")
    me = identity.of_process(os.getpid()).as_dict()
    durable.write_json(run.processes, {"attempt": 2, "supervisor": me, "worker": me})

    control.send(run, "stop")

    assert [request.attempt for request in control.waiting(run)] == [2]


def test_what_a_run_that_is_over_left_unanswered_is_answered(run):
    """Requests for this attempt and those before it; none for the next."""
    for attempt in (1, 2, 3):
        control.leave(run, "pause", attempt)
    control.close(run, 2)

    assert [request.attempt for request in control.waiting(run)] == [3]
    assert {json.loads(p.read_text())["result"] for p in run.answers.iterdir()} == {control.OVER}


def test_a_full_disk_is_told_to_who_asks(run, monkeypatch):
    """Four parts and the code of an I/O error."""
    monkeypatch.setattr(durable, "disk", Stubborn())

    with pytest.raises(UserError, match="could not be left: No space") as found:
        control.send(run, "stop")

    assert found.value.code == ExitCode.IO_ERROR


def test_a_run_of_a_newer_version_takes_no_requests(run):
    """View only, exit code 76."""
    durable.write_json(run.manifest, {"schema": rundir.SCHEMA + 1, "tool_version": "9.7"})

    with pytest.raises(UserError, match="view only") as found:
        control.send(run, "stop")

    assert found.value.code == ExitCode.NEWER_SCHEMA
