"""Secrets, networks and rights of the processes that a run is made of: S15, S18, S22, S23, S25."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from alarm import alarm
from audit_network import deny_network
from hypothesis import given
from hypothesis import strategies as st
from watched_run import SECRETS, watched_once

from profiles import redact
from profiles.errors import ExitCode, UserError
from profiles.run_facts import Sample
from profiles.runs.state import State, status
from runner.checks import quarantine
from runner.supervision import worker_command
from tui import report
from tui.commands import profile


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf_abcdefghijklmnopqrSTUVWXYZabcdefgh failed", "[removed] failed"),
        ("key sk-proj-abcdefgh-12345_ABCDEFGH", "key [removed]"),
        ("(sk-ant-api03-abcdEFGH12345678)", "([removed])"),
        (f"key=sk-or-v1-{'0123abcd' * 8}", "key=[removed]"),
        ("ghp_abcdefgh12345678 github_pat_11AAAAAAAAAAAA_b", "[removed] [removed]"),
        ("AKIAIOSFODNN7EXAMPLE", "[removed]"),
        ("Authorization: Bearer abc.def-ghi.012345678", "Authorization: Bearer [removed]"),
        ("authorization: bearer abc.def-ghi.012345678", "authorization: bearer [removed]"),
        ("https://me:pass@host/x", "https://[removed]@host/x"),
        ("redis://:pass@host/x", "redis://[removed]@host/x"),
        (f"https://hf_{'aB' * 17}:x@host", "https://[removed]@host"),
        (
            "/data/hf_models_and_data/sk-learn-models-old",
            "/data/hf_models_and_data/sk-learn-models-old",
        ),
        ("hf_home task-sk-1 the sky-blue AKI", "hf_home task-sk-1 the sky-blue AKI"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
    ],
)
def test_what_looks_like_a_token_is_masked(text, expected):
    """And what does not is left."""
    assert redact.redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "What is a bearer instrument?",
        "the bearer internationalisation-of-shares",
        "data/sk-learn-docs-2024-v2.jsonl",
        "data/sk-Learn-Docs-2024-Version-2.jsonl",
        "sk-learn-docs-2024-v2.jsonl",
        "ASIAPACIFICREGION.csv",
        "ASIAPACIFICREGIONSALES2024.csv",
        "hf_transformersmodels",
        "hf_transformersforquestionanswering",
    ],
)
def test_ordinary_words_and_names_are_no_secrets(text):
    """They begin like tokens, and are none by length or mixture."""
    assert not redact.holds_secret(text)


HOSTILE = {
    "colons": "://" + ":" * 1_000_000,
    "addresses": "://a:" * 200_000,
    "keys in keys": "sk-" * 333_333,
    "keys": " sk-a" * 200_000,
    "long key": "sk-" + "a-" * 500_000,
    "bearers": "bearer " * 142_857,
    "long bearer": "bearer " + "a" * 1_000_000,
    "short tokens": "hf_ ghp_ AKIA glpat- " * 47_000,
    "one word": "hf_" * 333_333,
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_masking_takes_linear_time(shape):
    """A recipe may be as long; what it holds decides nothing."""
    with alarm(20):
        assert redact.redact(HOSTILE[shape]) == HOSTILE[shape]


def test_an_error_never_holds_a_token():
    """In any part; so neither do error.json and exit.json, which are written from it."""
    token = SECRETS["HF_TOKEN"]

    error = UserError(
        f"a {token}", why=f"b {token}", do=f"c {token}", where=token, code=ExitCode.INTERNAL
    )

    assert "canary" not in json.dumps(error.as_dict()) + str(error) + repr(error)


def test_the_values_of_secret_variables_are_masked():
    """Whatever they look like; the longer of two first, and no ordinary short word."""
    environment = {"A_TOKEN": "plainword", "B_SECRET": "plainwordlonger", "C_TOKEN": "the"}

    found = redact.redact("the plainwordlonger plainword", environment)

    assert found == "the [removed] [removed]"


@given(st.text())
def test_masking_is_settled_after_one_pass(text):
    """The mask itself is nothing to mask."""
    assert redact.redact(text) == redact.redact(redact.redact(text))


def test_no_secret_reaches_the_worker_s_environment():
    """By name or by value; what training needs stays."""
    needed = {"PATH": "/bin", "CUDA_HOME": "/usr", "HF_HOME": "/cache", "TOKENIZERS_X": "1"}

    found = worker_command.worker_environment(
        SECRETS | needed | {"ODD": f"x {SECRETS['HF_TOKEN']}"}
    )

    assert "canary" not in json.dumps(found)
    assert needed.items() <= found.items()


@pytest.mark.parametrize(
    "name",
    [
        *("GITLAB_PAT", "PAT", "KUBECONFIG", "HF_TOKEN", "HF_TOKEN_PATH", "NETRC", "SENTRY_DSN"),
        *("DOCKER_AUTH_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "SSH_AUTH_SOCK", "X_COOKIE"),
        *("STRIPE_KEY", "REGISTRY_AUTH", "SMTP_PASS", "PGPASSFILE"),
    ],
)
def test_names_of_secrets_are_known(name):
    """Whatever their values look like; one that is asked for is passed on."""
    assert redact.without_secrets({name: "plain"}) == {}
    asked = {name: "plain", redact.KEPT_NAMES: f"OTHER, {name}"}
    assert redact.without_secrets(asked) == asked


@pytest.mark.parametrize("name", ["COMPAT", "PATTERN", "KEYBOARD", "COMPASS", "DSNAME"])
def test_names_that_only_look_alike_are_passed_on(name):
    """Training may need them."""
    assert redact.without_secrets({name: "plain"}) == {name: "plain"}


@pytest.mark.parametrize(
    "value",
    [
        "xoxb-123456789012-abcdefABCDEF",
        "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
        "npm_1234567890abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4fw",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "hf_abcdefghijklmnopqrstuvwxyzABCDEF12",
    ],
)
def test_values_that_are_secrets_by_their_shape_are_known(value):
    """Under any name, and in any text."""
    assert redact.without_secrets({"ODD": f"x {value} y"}) == {}
    assert redact.MASK in redact.redact(f"x {value} y")


def test_variables_that_hold_paths_are_kept_whatever_they_look_like():
    """A folder may be called like a token, and no process starts without its paths."""
    odd = "sk-Env-py311-cuda12-2024x:/bin"
    names = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "HOME", "PWD")

    assert redact.holds_secret(odd)
    assert redact.without_secrets(dict.fromkeys([*names, "ODD"], odd)) == dict.fromkeys(names, odd)


def test_telemetry_is_off_and_no_token_is_looked_for():
    """Whatever the user's environment says."""
    found = worker_command.worker_environment(
        {"HF_HUB_DISABLE_TELEMETRY": "0", "HF_HUB_OFFLINE": "0"}
    )

    names = ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "DO_NOT_TRACK")
    assert [found[name] for name in (*names, "HF_HUB_OFFLINE")] == ["1"] * 4


def test_the_quarantine_has_limits_few_rights_and_no_secrets(tmp_path, monkeypatch):
    """As its own child reports them, who also tries to write, to fill the memory and to fork."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "support"))

    answer = quarantine.ask("confined", {"canary": str(tmp_path / "x")}, cpu_seconds=7)

    assert answer.content is not None, answer.fault
    found = answer.content
    limits = {"AS": 2 << 30, "CPU": 7, "FSIZE": 0, "NPROC": 0, "CORE": 0, "NOFILE": 64}
    assert all(found["limits"][name] <= most for name, most in limits.items())
    assert found["no_new_privs"]
    assert "canary" not in json.dumps(found["environment"])
    assert (found["write"], found["memory"]) == ("OSError", "MemoryError")
    if os.getuid():  # root is not held by a limit on processes
        assert found["fork"] == "BlockingIOError"


@pytest.mark.parametrize(
    "code", ["import os; os.abort()", "print('no json')", "1/0", "print('[]')"]
)
def test_whatever_the_quarantined_child_does_is_an_answer(tmp_path, monkeypatch, code):
    """A crash, an error or nonsense is told, never raised."""
    (tmp_path / "broken_child.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    answer = quarantine.ask("broken_child", {})

    assert answer.content is None
    assert answer.fault


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory, request):
    """A real run without network; where several processes test, one makes it for all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return watched_once(shared, lambda: request.getfixturevalue("tiny_model"))


def test_the_denied_network_would_notice(tmp_path):
    """A look-up and a port are denied and noted; else the next test would show nothing."""
    log = deny_network(tmp_path / "deny")
    code = (
        "import socket\n"
        "for call in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "             lambda: socket.socket().bind(('127.0.0.1', 0))):\n"
        "    try: call()\n"
        "    except PermissionError: pass\n"
    )

    subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": str(log.parent)},
        check=True,
    )

    noted = [line.split()[0] for line in log.read_text().splitlines()]
    assert noted == ["started", "socket.getaddrinfo", "socket.bind"]


@pytest.mark.slow
def test_training_needs_no_network(watched_run):
    """No connection, no look-up of a name, no listening port; and the hook was there."""
    found = status(watched_run.run)
    log = watched_run.log

    assert (found.state, found.exit_code) == (State.FINISHED, 0), found.reason
    assert any("runner.training.worker" in line for line in log if line.startswith("started"))
    assert [line for line in log if not line.startswith("started")] == []
    assert watched_run.listening == []


@pytest.mark.slow
def test_no_secret_is_in_any_file_of_the_run_or_in_its_processes(watched_run):
    """Every byte of the home, what the command said, and environ and argv of each process."""
    files = [p for p in watched_run.home.rglob("*") if p.is_file()]
    values = [value.encode() for value in SECRETS.values()]
    leaks = [p for p in files if any(value in p.read_bytes() for value in values)]

    assert leaks == []
    assert len(files) > 10
    assert "canary" not in watched_run.said
    assert len(watched_run.processes) >= 2
    assert any("runner.training.worker" in text for text in watched_run.processes.values())
    assert not [pid for pid, text in watched_run.processes.items() if "canary" in text]


@pytest.mark.slow
def test_a_run_is_private_and_holds_no_pickle_that_is_of_no_use(watched_run):
    """Directories 0700, files 0600; the artefact is safetensors alone."""
    run = watched_run.run
    modes = {stat.S_IMODE(p.stat().st_mode) & 0o077 for p in (run.path, *run.path.rglob("*.json*"))}
    artefact = {p.suffix for p in run.model.rglob("*") if p.is_file()}

    assert modes == {0}
    assert not artefact & {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


@pytest.mark.slow
def test_what_was_trained_from_is_pinned_by_hash(watched_run):
    """A local folder has no commit; each of its files is pinned, which no moved branch changes."""
    lock = json.loads(watched_run.run.recipe_lock.read_text())
    from runner.checkpoints import hash_file

    names = {p.name for p in watched_run.model.iterdir() if p.suffix in {".safetensors", ".json"}}
    pinned = {k.removeprefix("model/"): v for k, v in lock["sha256"].items() if k[:6] == "model/"}
    assert names <= set(pinned)
    assert all(pinned[n] == hash_file(watched_run.model / n) for n in names)


@pytest.mark.slow
def test_a_report_in_markdown_holds_no_markup_of_strangers(watched_run):
    """All of it is one fenced block, which nothing in it can end; no link, image or HTML."""
    evil = "```\n# head\n![i](http://x/i.png) <script>alert(1)</script> ~~~ =cmd|' /C calc'!A0 ```"
    found = profile.load(watched_run.run)
    sample = Sample(prompt=evil, wanted=evil, before=evil, after=evil)
    hostile = replace(found.run, id=evil, device=evil, samples=(sample,))

    text = report.markdown(replace(found, verdict=evil, run=hostile))

    lines = text.rstrip("\n").splitlines()
    assert "<script>" in text
    assert [n for n, line in enumerate(lines) if "```" in line] == [2, len(lines) - 1]
