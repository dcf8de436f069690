"""The app without a terminal: keys are pressed, and what a person would read is read."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.widgets import Input, OptionList, Static

from profiles.data import dataset
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Machine, Model, Origin, TokenStats
from profiles.machines import machine
from profiles.models import find_model
from tui.app import TunedeckApp
from tui.feed import Batch, Reader
from tui.screens import live as live_screen
from tui.screens.base import BaseScreen
from tui.screens.parts import Page, Rows
from tui.terminal import decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    import pytest
    from textual.pilot import Pilot

    from profiles.runs.rundir import RunDir

GIB = 2**30

HERE = Machine(
    host="box",
    backend="cpu",
    gpus=(),
    cpu_name="a processor",
    num_cores=8,
    num_threads=16,
    ram_bytes=64 * GIB,
    ram_free_bytes=60 * GIB,
    disk_path="/",
    disk_free_bytes=500 * GIB,
    origin=Origin.MEASURED,
)
MODEL = Model(
    id="tiny",
    path="/models/tiny",
    architecture="LlamaForCausalLM",
    model_type="llama",
    hidden_size=192,
    num_layers=6,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=512,
    vocab_size=4096,
    max_positions=1024,
    tied_embeddings=True,
    num_params=3_148_224,
    params_origin=Origin.MEASURED,
)
DATA = Dataset(
    path="/data/rows.json",
    format="alpaca",
    num_rows=91,
    num_bytes=20_000,
    sha256="0" * 64,
    num_empty=0,
    num_duplicates=0,
    num_truncated=0,
    num_tasks=1,
    tokens=TokenStats(
        min=31,
        median=87,
        p95=114,
        max=185,
        mean=80.0,
        total=7401,
        origin=Origin.MEASURED,
        lengths=((80, 90), (201, 1)),
        starts=((25, 91),),
        edges=((25, 91), (80, -90), (201, -1)),
    ),
)
NO_MODEL = UserError(
    "no model there", why="no config.json", do="name a folder", where="x", code=ExitCode.NO_INPUT
)


class ImmediateFeed:
    """Reads when it is asked, so that no test waits for a thread."""

    fault = ""
    closed = False

    def __init__(self, run: RunDir) -> None:
        self._reader = Reader(run)

    def start(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def take(self) -> Batch:
        """Read what is new."""
        return self._reader.poll()


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test a home, and a machine, a model and data that are the same everywhere."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(live_screen, "Feed", ImmediateFeed)
    monkeypatch.setattr(machine, "probe", lambda _path: HERE)

    def resolve(path: str) -> Model:
        if "wrong" in path:
            raise NO_MODEL
        return replace(MODEL, path=path)

    monkeypatch.setattr(find_model, "resolve", resolve)
    monkeypatch.setattr(dataset, "check", lambda path, **_: replace(DATA, path=path))


def drive(
    script: Callable[[TunedeckApp, Pilot[int]], Awaitable[None]],
    *,
    size: tuple[int, int] = (80, 24),
    run_id: str | None = None,
    symbols: str = "",
) -> TunedeckApp:
    """Run the app headless and let the script press keys."""
    environ = {"TERM": "xterm-256color", "SSH_TTY": "yes", "TUNEDECK_SYMBOLS": symbols}

    async def run() -> TunedeckApp:
        terminal = decide(environ, is_tty=True, encoding="utf-8")
        app = TunedeckApp(terminal, run_id=run_id)
        async with app.run_test(size=size) as pilot:
            app.stop_clock()
            await pilot.pause()
            await script(app, pilot)
        return app

    return asyncio.run(run())


async def settle(app: TunedeckApp, pilot: Pilot[int]) -> None:
    """Wait until no work is being done, and what it led to has happened."""
    deadline = time.monotonic() + 10
    quiet = 0
    while quiet < 2:
        assert time.monotonic() < deadline
        await pilot.pause(0.005)
        is_busy = isinstance(app.screen, BaseScreen) and bool(app.screen.busy)
        quiet = 0 if is_busy else quiet + 1
    await pilot.pause()


async def press(app: TunedeckApp, pilot: Pilot[int], *names: str) -> None:
    """Press keys, each after the work of the one before; typing causes none."""
    for name in names:
        await pilot.press(name)
        if not (len(name) == 1 and isinstance(app.focused, Input)):
            await settle(app, pilot)


async def until(app: TunedeckApp, pilot: Pilot[int], words: str) -> None:
    """Draw frames until these words are on the screen."""
    deadline = time.monotonic() + 10
    while words not in text(app):
        assert time.monotonic() < deadline, f"no {words!r} in\n{text(app)}"
        app.start_clock(1, app._tick)
        app.pace.nothing_written()
        app.beat()
        app.stop_clock()
        await pilot.pause(0.02)
        await settle(app, pilot)


def text(app: TunedeckApp) -> str:
    """Everything on the screen, as a person would read it."""
    parts = []
    for widget in app.screen.query("*"):
        if not widget.is_on_screen or not widget.size.height:
            continue
        if isinstance(widget, Page | Rows):
            parts.append(widget.text)
        elif isinstance(widget, OptionList):
            parts += [str(option.prompt) for option in widget.options]
        elif isinstance(widget, Static) and widget.id:
            parts.append(str(widget.visual))
        elif not widget.children:
            rows = range(widget.size.height)
            parts.append("\n".join(widget.render_line(y).text for y in rows))
    return "\n".join(parts)
