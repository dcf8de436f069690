"""What every screen is: a body, a row of words, a footer of keys, and work off the event loop.

Decides how slow work is done: on daemon threads, so that leaving never waits for a hanging disk,
one piece of work a name; starting another or cancelling makes the older one's result unwanted.
"""

from __future__ import annotations

import itertools
import threading
import traceback
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rich.text import Text
from textual.binding import Binding
from textual.containers import Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Static

from profiles.errors import ExitCode, UserError
from tui import keys
from tui.context import AppContext, working_runs
from tui.plain import error_lines, table
from tui.screens.parts import Rows, fitting
from tui.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual import events
    from textual.app import ComposeResult

T = TypeVar("T")
LEAST_WIDTH, LEAST_HEIGHT = 60, 16
_MOST_WORDS = 6


class WorkDone(Message):
    """A piece of work has ended, on its thread."""

    bubble = False

    def __init__(self, name: str, number: int, outcome: Any, done: Callable[[Any], None]) -> None:
        super().__init__()
        self.name = name
        self.number = number
        self.outcome = outcome
        self.done = done


class BaseScreen(Screen[None]):
    """A full screen of the app."""

    ACTIONS: ClassVar[tuple[keys.Action, ...]] = ()
    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012  # Textual declares it
        (0, "-too-narrow"),
        (LEAST_WIDTH, "-narrow"),
        (80, "-normal"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-too-low"),
        (LEAST_HEIGHT, "-low"),
        (24, "-tall"),
    ]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Bind the keys of the registry."""
        cls.BINDINGS = [
            Binding(action.key, action.name, action.label, priority=action.is_first)
            for action in cls.ACTIONS
            if action.name
        ]
        super().__init_subclass__(**kwargs)

    def __init__(self, context: AppContext) -> None:
        super().__init__()
        self.context = context
        self._numbers = itertools.count()
        self._busy: dict[str, int] = {}

    def compose(self) -> ComposeResult:
        """Mount the body, its words and its footer."""
        yield Static(id="too-small", markup=False)
        with Vertical(id="body"):
            yield from self.content()
            yield Rows("words", most=_MOST_WORDS)
            yield Rows("footer")

    @abstractmethod
    def content(self) -> Iterable[Any]:
        """Give the widgets of this screen."""

    def tick(self) -> None:
        """Draw new data; called by the app's clock while this screen is on top."""

    def footer_actions(self) -> tuple[keys.Action, ...]:
        """Decide what the footer offers now."""
        return self.ACTIONS

    def write_footer(self) -> None:
        """Write the footer for the width there is."""
        self.query_one("#footer", Rows).show(keys.footer(self.footer_actions(), self.size.width))

    def on_resize(self, event: events.Resize) -> None:
        """Footer and the sentence for a terminal that is too small follow the size."""
        size = event.size
        self.query_one("#too-small", Static).update(
            f"This terminal is {size.width}x{size.height}; "
            f"tunedeck needs {LEAST_WIDTH}x{LEAST_HEIGHT}. q leaves."
        )
        self.write_footer()

    def say(self, *texts: str) -> None:
        """Tell something in the row above the footer."""
        self.query_one("#words", Rows).show(*texts)

    def tell(self, error: UserError) -> None:
        """Tell an error in place; nothing else on the screen changes."""
        width = self.size.width
        lines = [part for line in error_lines(error, width) for part in fitting(line, width)]
        self.say(*[line for line in lines if line])

    @property
    def busy(self) -> frozenset[str]:
        """Names of the work that is being done."""
        return frozenset(self._busy)

    def work(self, name: str, job: Callable[[], T], done: Callable[[T], None]) -> None:
        """Do `job` on a thread, then `done` with its result here."""
        number = self._busy[name] = next(self._numbers)

        def run() -> None:
            try:
                outcome: Any = job()
            except UserError as error:
                outcome = error
            except Exception as error:  # noqa: BLE001  # a form that is filled in is not thrown away
                outcome = _unexpected(error)
            self.post_message(WorkDone(name, number, outcome, done))

        threading.Thread(target=run, daemon=True, name=f"work {name}").start()

    def cancel(self) -> bool:
        """Want no result any more; say whether something was being done."""
        was_busy = bool(self._busy)
        self._busy.clear()
        return was_busy

    def on_work_done(self, event: WorkDone) -> None:
        """Take a result that is still wanted."""
        if self._busy.get(event.name) != event.number:
            return
        del self._busy[event.name]
        if isinstance(event.outcome, UserError):
            self.tell(event.outcome)
        else:
            event.done(event.outcome)

    def action_open(self, name: str) -> None:
        """Open a screen that is about nothing in particular; a key asks for it by its name."""
        self.context.open(name)

    def action_help(self) -> None:
        """Show the keys of this screen."""
        self.context.open("pager", "keys", help_lines(self.ACTIONS))

    def action_back(self) -> None:
        """Cancel what is being done, or go one layer back."""
        if self.cancel():
            self.say("cancelled; nothing was changed")
        else:
            self.app.pop_screen()

    def action_leave(self) -> None:
        """Leave, and say that training goes on."""
        going = [run.end for run in working_runs()]
        rows = [f"training goes on; watch it with: advisor watch {name}" for name in going]
        self.app.exit(0, message=Text("\n".join(rows)) if rows else None)


def _unexpected(error: Exception) -> UserError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return UserError(
        clean(f"this should not happen: {type(error).__name__}: {error}"),
        why="it is our mistake, not yours",
        do="please report it with the place below; what you entered is kept",
        where=f"{place.filename}:{place.lineno}",
        code=ExitCode.INTERNAL,
    )


def help_lines(actions: tuple[keys.Action, ...]) -> Callable[[int], list[str]]:
    """Write the help page."""
    return lambda width: [
        *table(keys.help_rows(actions), indent="  ", width=width),
        "",
        "Training never depends on this screen: leaving it, or losing the",
        "connection, stops nothing.",
    ]
