"""`advisor` alone: its version, the app, or why there is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from profiles import installation
from profiles.errors import ExitCode, UserError
from tui import app
from tui.commands import start
from tui.main import run
from tui.terminal import decide


def test_the_version_is_printed(capsys):
    """And nothing else happens."""
    assert run(["--version"]) == 0

    assert capsys.readouterr().out == f"tunedeck {installation.version()}\n"


@pytest.fixture
def opened(monkeypatch):
    """Open the app on a terminal; it is left at once: (code, what happened)."""

    def begin(left_with, return_code, run_id=None, **environ):
        happened = []
        terminal = decide({"TERM": "xterm"} | environ, is_tty=True, encoding="utf-8")

        class App:
            def __init__(self, given, *, run_id):
                happened.append(("app", given is terminal, run_id))
                self.return_code = return_code

            def run(self):
                return left_with

        monkeypatch.setattr(app, "TunedeckApp", App)
        monkeypatch.setattr(start, "look_at_terminal", lambda: terminal)
        monkeypatch.setattr(start, "prepare_environment", lambda _t: happened.append("prepared"))
        monkeypatch.setattr(start, "write_ascii", lambda _stream: happened.append("ascii"))
        return start.open_app(run_id), happened

    return begin


def test_the_app_is_opened_on_a_prepared_terminal(opened):
    """Textual reads its settings when it is imported; only ASCII is sent where no more is known."""
    assert opened(0, None) == (0, ["prepared", ("app", True, None)])
    assert opened(0, None, run_id="x") == (0, ["prepared", ("app", True, "x")])
    _, happened = opened(0, None, TUNEDECK_SYMBOLS="ascii")
    assert happened == ["prepared", "ascii", ("app", True, None)]


@pytest.mark.parametrize(
    ("left_with", "return_code", "expected"),
    [(0, 3, 0), (129, None, 129), (None, 70, 70), (None, None, 0)],
)
def test_the_code_is_what_the_app_was_left_with(opened, left_with, return_code, expected):
    """Else what Textual ended with."""
    assert opened(left_with, return_code)[0] == expected


@pytest.mark.parametrize("version", [True, False])
def test_without_a_command_the_app_opens_on_home(monkeypatch, version):
    """Unless the version is asked for."""
    calls = []
    monkeypatch.setattr(start, "open_app", lambda run_id: calls.append(run_id) or 5)
    monkeypatch.setattr(start, "plain", SimpleNamespace(show=lambda _lines: None))

    assert start.start(version=version) == (0 if version else 5)
    assert calls == ([] if version else [None])


def test_without_a_terminal_the_commands_are_named(monkeypatch):
    """A pipe gets no screen."""
    monkeypatch.setattr(
        start, "look_at_terminal", lambda: decide({}, is_tty=False, encoding="utf-8")
    )

    with pytest.raises(UserError, match="the app needs a terminal") as caught:
        start.open_app(None)

    assert caught.value.code is ExitCode.USAGE
