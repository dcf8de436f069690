"""What the screens of one app share: the terminal, the way to other screens, the next run's draft.

A draft outlives its screens, so going back and coming again loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.runs import listing
from profiles.runs.state import State, status

if TYPE_CHECKING:
    from collections.abc import Callable

    from profiles.facts import Dataset, Model
    from profiles.runs.rundir import RunDir
    from tui.terminal import Terminal

_MOST_RUNS = 20


@dataclass(slots=True, kw_only=True)
class AppContext:
    """Shared by the screens, changed by their actions only."""

    terminal: Terminal
    open: Callable[..., None]
    """Puts a screen on top: its name in `screens.table`, then what it is about."""
    base_dir: Path = field(default_factory=Path.cwd)
    """Paths of a launched recipe are relative to it."""
    model_path: str = ""
    model: Model | None = None
    data_path: str = ""
    data_options: str = ""
    """How it is read, as on the command line: "--on-bad skip"."""
    data: Dataset | None = None
    task: str | None = None
    """That was chosen for it; None where the data say it."""


def working_runs() -> list[RunDir]:
    """Find the runs that still work, among the newest; not those of which nobody can say."""
    runs = [run for run in listing.all_runs() if not listing.is_empty(run)]
    states = ((run, status(run).state) for run in runs[:_MOST_RUNS])
    return [run for run, state in states if not (state.is_over or state is State.UNKNOWN)]
