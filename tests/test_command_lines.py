"""What each command line means: which command is called, and with which answers."""

from __future__ import annotations

import inspect
from pathlib import Path

import click
import pytest

from profiles import personal
from profiles.errors import ExitCode, UserError
from runner.upcycling.making import Asked as Upcycled
from tui import main
from tui.cli import cli
from tui.commands import (
    checks,
    comparison,
    data_check,
    data_show,
    demo,
    doctor,
    probe,
    profile,
    ready_recipes,
    runs,
    start,
)
from tui.commands import recommend as recommend_command
from tui.commands import run as run_command
from tui.commands import upcycle as upcycle_command
from tui.commands.data_check import Asked as DataAsked
from tui.commands.data_show import Asked as ShowAsked
from tui.commands.recommend import Asked, Request

COMMANDS = (
    *((start, "start"), (probe, "probe"), (run_command, "run"), (runs, "runs"), (runs, "watch")),
    *(
        (runs, "ask"),
        (runs, "stop_now"),
        (runs, "change"),
        (runs, "resume"),
        (runs, "logs"),
        (profile, "profile"),
    ),
    *((demo, "demo"), (doctor, "doctor"), (data_check, "check"), (data_show, "show")),
    *((checks, "methods"),),
    *((checks, "model"), (checks, "recipe"), (ready_recipes, "show")),
    *((recommend_command, "recommend"), (comparison, "compare")),
    *((upcycle_command, "upcycle"),),
)


@pytest.fixture
def called(monkeypatch):
    """Every command only notes that it was called, and gives a code of its own."""
    calls = []
    for module, name in COMMANDS:
        real = inspect.signature(getattr(module, name))

        def note(*args, _name=name, _real=real, **kwargs):
            bound = _real.bind(*args, **kwargs)
            bound.apply_defaults()
            calls.append((_name, dict(bound.arguments)))
            return 7

        monkeypatch.setattr(module, name, note)
    return calls


RUN = {
    "path": Path("r.toml"),
    "changes": (),
    "follow": False,
    "dry_run": False,
    "share": False,
    "allow_changed": False,
    "allow_outside": False,
}
RESUME = {"text": None, "follow": False, "share": False, "allow_changed": False}
PROFILE = {
    "text": None,
    "as_json": False,
    "markdown": None,
    "apply": (),
    "out": None,
    "force": False,
}
UPCYCLE = {"base": "m", "asked": Upcycled(), "out": "d", "force": False, "as_json": False}


def request(**changes):
    """A request for a model alone."""
    return Request(**({"model": "m", "data": None, "gpu": None, "asked": Asked()} | changes))


def checked(files=("a",), held_out=None, *, as_json=False, **changes):
    """A check of data."""
    asked = DataAsked(**changes)
    return {"files": files, "held_out": held_out, "asked": asked, "as_json": as_json}


LINES = [
    ("", "start", {"version": False}),
    ("--version", "start", {"version": True}),
    ("probe", "probe", {"as_json": False}),
    ("probe --json", "probe", {"as_json": True}),
    ("run r.toml", "run", RUN),
    (
        "run r.toml --set a=1 --set b=2 --follow",
        "run",
        RUN | {"changes": ("a=1", "b=2"), "follow": True},
    ),
    ("run r.toml --dry-run --share", "run", RUN | {"dry_run": True, "share": True}),
    (
        "run r.toml --allow-changed --allow-outside",
        "run",
        RUN | {"allow_changed": True, "allow_outside": True},
    ),
    ("runs", "runs", {"as_json": False}),
    ("runs --json", "runs", {"as_json": True}),
    ("watch", "watch", {"text": None, "plain": False, "as_json": False}),
    ("watch x --plain", "watch", {"text": "x", "plain": True, "as_json": False}),
    ("watch --json", "watch", {"text": None, "plain": False, "as_json": True}),
    ("stop x", "ask", {"text": "x", "verb": "stop"}),
    ("stop x --now", "stop_now", {"text": "x", "sure": False}),
    ("stop --now --yes", "stop_now", {"text": None, "sure": True}),
    ("pause", "ask", {"text": None, "verb": "pause"}),
    ("checkpoint x", "ask", {"text": "x", "verb": "checkpoint"}),
    ("resume", "resume", RESUME),
    (
        "resume x --follow --share --allow-changed",
        "resume",
        {"text": "x", "follow": True, "share": True, "allow_changed": True},
    ),
    ("logs", "logs", {"text": None, "num_lines": 40}),
    ("logs x -n 3", "logs", {"text": "x", "num_lines": 3}),
    ("profile", "profile", PROFILE),
    (
        "profile x --json --md r.md",
        "profile",
        PROFILE | {"text": "x", "as_json": True, "markdown": "r.md"},
    ),
    (
        "profile --apply B01 --apply B02 --out r.toml",
        "profile",
        PROFILE | {"apply": ("B01", "B02"), "out": "r.toml"},
    ),
    ("profile --md - --force", "profile", PROFILE | {"markdown": "-", "force": True}),
    ("logs -n 1", "logs", {"text": None, "num_lines": 1}),
    ("data check a --max-length 1", "check", checked(max_length=1)),
    ("upcycle m --out d", "upcycle", UPCYCLE),
    (
        "upcycle m --experts 4 --top-k 1 --aux-loss 0 --seed 7 --out d --force --json",
        "upcycle",
        UPCYCLE
        | {"asked": Upcycled(experts=4, top_k=1, aux_loss=0.0, seed=7)}
        | {"force": True, "as_json": True},
    ),
    ("demo", "demo", {}),
    ("doctor", "doctor", {}),
    ("data check a", "check", checked()),
    (
        "data check a --chat-template plain --learn last",
        "check",
        checked(chat_template="plain", learn="last"),
    ),
    ("data check a b --eval c --json", "check", checked(("a", "b"), "c", as_json=True)),
    (
        "data check a --format text --model m --max-length 9 --on-bad skip",
        "check",
        checked(data_format="text", model="m", max_length=9, on_bad="skip"),
    ),
    ("data check a --encoding GBK", "check", checked(encoding="gb18030")),
    (
        r"data check a --column text={a}\n{b} --column label=c=d",
        "check",
        checked(columns={"text": "{a}\n{b}", "label": "c=d"}),
    ),
    (
        "data show a --encoding latin-1 --column text=b",
        "show",
        {
            "path": "a",
            "asked": ShowAsked(encoding="iso8859-1", columns={"text": "b"}),
            "as_json": False,
        },
    ),
    (
        "recommend --model m --data d --column text=b",
        "recommend",
        {"request": request(data="d", asked=Asked(columns={"text": "b"}))},
    ),
    (
        "data check a --clean html,duplicates --mask email --split-by k",
        "check",
        checked(clean={"html": True, "duplicates": True}, mask=("email",), split_by="k"),
    ),
    (
        "data show a --clean whitespace --mask all",
        "show",
        {
            "path": "a",
            "asked": ShowAsked(clean={"whitespace": True}, mask=personal.USUAL),
            "as_json": False,
        },
    ),
    (
        "recommend --model m --data d --on-bad skip --clean html --mask phone --split-by k",
        "recommend",
        {
            "request": request(
                data="d",
                asked=Asked(
                    on_bad="skip",
                    clean={"html": True},
                    mask=("phone",),
                    split_by="k",
                ),
            )
        },
    ),
    (
        "recommend --model m --data d --encoding big5 --chat-template t --learn last --format text",
        "recommend",
        {
            "request": request(
                data="d",
                asked=Asked(
                    encoding="big5",
                    chat_template="t",
                    learn="last",
                    data_format="text",
                ),
            )
        },
    ),
    (
        "data check a --new-token <a> --new-token <b> --model m",
        "check",
        checked(model="m", tokens=("<a>", "<b>")),
    ),
    (
        "data show a --model m --new-token <a>",
        "show",
        {"path": "a", "asked": ShowAsked(model="m", tokens=("<a>",)), "as_json": False},
    ),
    ("data show a", "show", {"path": "a", "asked": ShowAsked(), "as_json": False}),
    (
        "data show a --model m -n 7 --at row:9 --chat-template plain --json",
        "show",
        {
            "path": "a",
            "asked": ShowAsked(model="m", num_rows=7, start="row:9", chat_template="plain"),
            "as_json": True,
        },
    ),
    (
        "data show a --learn last --format text --max-length 9",
        "show",
        {
            "path": "a",
            "asked": ShowAsked(learn="last", data_format="text", max_length=9),
            "as_json": False,
        },
    ),
    ("model show m", "model", {"text": "m", "as_json": False}),
    ("model show m --json", "model", {"text": "m", "as_json": True}),
    ("recipe check r.toml", "recipe", {"file": Path("r.toml"), "changes": ()}),
    ("recipe check r.toml --set a=1", "recipe", {"file": Path("r.toml"), "changes": ("a=1",)}),
    ("recipe list", "show", {"as_json": False}),
    ("recipe list --json", "show", {"as_json": True}),
    ("recommend --model m", "recommend", {"request": request()}),
    (
        "recommend --model m --for law",
        "recommend",
        {"request": request(asked=Asked(domain="law"))},
    ),
    (
        "recommend --model m --data d --gpu T4 --price 2 --save r.toml",
        "recommend",
        {"request": request(data="d", gpu="T4", prices=(2.0,), save="r.toml")},
    ),
    (
        "recommend --model m --gpu T4 --ram 480G --disk 2T",
        "recommend",
        {"request": request(gpu="T4", ram="480G", disk="2T")},
    ),
    (
        "recommend --model m --save - --force",
        "recommend",
        {"request": request(save="-", force=True)},
    ),
    (
        "recommend --model m --explain --rehearse --json",
        "recommend",
        {"request": request(explain=True, rehearse=True, as_json=True)},
    ),
    (
        "recommend --model m --task classify --complexity low --critical --no-value --quality",
        "recommend",
        {
            "request": request(
                asked=Asked(
                    task="classify", complexity="low", critical=True, value=False, quality=True
                )
            )
        },
    ),
    (
        "recommend --model m --not-critical --value --no-quality --seq 512 --batch 8",
        "recommend",
        {
            "request": request(
                asked=Asked(
                    critical=False, value=True, quality=False, seq_len=512, effective_batch=8
                )
            )
        },
    ),
    (
        "recommend --model m --seq-len 64",
        "recommend",
        {"request": request(asked=Asked(seq_len=64))},
    ),
    (
        "recommend --model m --compare T4 L4 --price 1 --price 2",
        "compare",
        {"request": request(prices=(1.0, 2.0)), "machines": ("T4", "L4"), "compare": True},
    ),
    (
        "recommend --model m T4",
        "compare",
        {"request": request(), "machines": ("T4",), "compare": False},
    ),
    (
        "change --log-every 5",
        "change",
        {"text": None, "changes": {"log_every": 5, "eval_every": None}},
    ),
    (
        "change x --eval-every 1",
        "change",
        {"text": "x", "changes": {"log_every": None, "eval_every": 1}},
    ),
    (
        "change --eval-every 1000000000",
        "change",
        {"text": None, "changes": {"log_every": None, "eval_every": 10**9}},
    ),
    ("methods", "methods", {"name": None, "as_json": False}),
    ("methods lora --json", "methods", {"name": "lora", "as_json": True}),
]
"""Line, the command that it calls, and with what."""


@pytest.mark.parametrize(("line", "name", "arguments"), LINES)
def test_a_command_line_calls_one_command(called, line, name, arguments):
    """Its code is the command's."""
    assert main.run(line.split()) == 7

    assert called == [(name, arguments)]


def every_option(group=cli, names=()):
    """Commands with each of their options, as they are typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_option(command, (*names, name))
            continue
        flags = [flag for one in command.params for flag in (*one.opts, *one.secondary_opts)]
        yield from ((*names, name, flag) for flag in flags if flag.startswith("-"))


def test_every_option_of_every_command_is_among_these_lines():
    """A new one is held to what it does."""
    typed = [line.split() for line, _, _ in LINES]
    missing = [
        " ".join(words)
        for words in every_option()
        if not any(line[: len(words) - 1] == [*words[:-1]] and words[-1] in line for line in typed)
    ]

    assert missing == ["recommend --json-keys"]  # it prints, and calls none


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("logs -n 0", "not in the range"),
        ("change --eval-every 0", "not in the range"),
        ("change --log-every 1000000001", "not in the range"),
        ("change --log-every x", "is not a valid integer"),
        ("data check", "Missing argument 'FILE...'"),
        ("data check a --max-length 0", "not in the range"),
        ("data check a --on-bad never", "is not one of 'error', 'skip'"),
        ("recommend", "Missing option '--model'"),
        ("recommend --model m --complexity none", "is not one of 'low', 'medium', 'high'"),
        ("recommend --model m --price x", "is not a valid float"),
        ("run", "Missing argument 'RECIPE'"),
        ("nonsense", "No such command 'nonsense'"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_command(called, capsys, line, words):
    """Exit code 2, on stderr."""
    assert main.run(line.split()) == 2

    said = capsys.readouterr()
    assert (called, said.out) == ([], "")
    assert words in said.err


def test_the_meaning_of_json_keys_needs_no_model(called, capsys):
    """It is printed before anything else is looked at."""
    assert main.run(["recommend", "--json-keys"]) == 0

    assert called == []
    assert capsys.readouterr().out.startswith("advisor recommend --json\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 130), (EOFError(), 130)],
)
def test_an_end_by_the_person_is_no_traceback(monkeypatch, error, code):
    """As shells count an interrupt."""

    def end(**_options):
        raise error

    monkeypatch.setattr(probe, "probe", end)

    assert main.run(["probe"]) == code


def test_an_error_is_told_in_four_parts_and_as_json_where_asked(monkeypatch, capsys):
    """JSON on stdout, words on stderr; the code is the error's."""

    def fail(**_options):
        raise UserError("what", why="why", do="do", where="where", code=ExitCode.NO_INPUT)

    monkeypatch.setattr(probe, "probe", fail)

    assert main.run(["probe"]) == 66
    plain = capsys.readouterr()
    assert (plain.out, plain.err.splitlines()[0]) == ("", "error: what")

    assert main.run(["probe", "--json"]) == 66
    told = capsys.readouterr()
    assert '"error"' in told.out
    assert told.err == plain.err


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    """They are no usage errors."""

    def fail(**_options):
        raise ZeroDivisionError

    monkeypatch.setattr(probe, "probe", fail)

    with pytest.raises(ZeroDivisionError):
        main.run(["probe"])
