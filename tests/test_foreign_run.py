"""What one user asks of another's run, root above all: it stays its user's."""

from __future__ import annotations

import os
import shlex

import pytest

from profiles.errors import ExitCode, UserError
from profiles.runs import rundir
from profiles.runs.state import status
from runner.supervision import control, launch
from tests.canned_run import canned_run


@pytest.fixture
def root(monkeypatch):
    """Somebody else than who made the runs, who may do everything."""
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)


def contents(run):
    """All that lies in the run's folder."""
    return sorted(run.path.rglob("*"))


@pytest.mark.usefixtures("root")
def test_a_run_of_somebody_else_is_not_resumed():
    """Nothing is written, neither by the check nor by the start."""
    run = canned_run(end="killed")
    before = contents(run)

    for begin in (launch.resume, lambda one: launch.refuse_resume(one, status(one))):
        with pytest.raises(UserError, match="cannot resume: the run belongs to") as caught:
            begin(run)

    path = shlex.quote(str(run.path))
    assert caught.value.code == ExitCode.REFUSED
    assert f"sudo -u {rundir.owner(run)} advisor resume {path};" in caught.value.do
    assert f"`advisor run {path}`" in caught.value.do
    assert contents(run) == before


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("verb", "command"),
    [("stop", "stop"), ("stop_now", "stop --now"), ("unpause", "resume"), ("change", "change")],
)
def test_nothing_is_asked_of_a_run_of_somebody_else(verb, command):
    """It would not read the request; the advice is a command that there is."""
    run = canned_run()
    before = contents(run)

    with pytest.raises(UserError, match="the run belongs to") as caught:
        control.send(run, verb)

    assert f" advisor {command} {shlex.quote(str(run.path))}" in caught.value.do
    assert contents(run) == before


def test_ones_own_run_is_asked_and_resumed():
    """Nobody is refused."""
    run = canned_run()

    rundir.refuse_foreign(run, "resume")
    control.send(run, "stop")

    assert len(list(run.requests.iterdir())) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
def test_a_user_without_a_name_is_told_by_number():
    """As sudo takes it."""
    run = canned_run()
    os.chown(run.path, 54321, -1)
    assert rundir.owner(run) == "#54321"
