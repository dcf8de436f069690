"""Every key of the app, once: the screens' bindings, the footer and the help come from here.

Keys are letters and digits that neither tmux (ctrl+b), screen (ctrl+a) nor a terminal's flow
control (ctrl+s, ctrl+q) takes away. What an action does is the screens' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_GAP = "  "
_SHOWN = {"question_mark": "?", "escape": "esc", "pagedown": "pgdn", "right": "->"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One key of one screen."""

    key: str
    """Textual's name of the key."""
    name: str
    """The screen's method `action_<name>`; empty if the focused widget takes the key itself."""
    label: str
    """In the footer."""
    help: str
    """On the help page."""
    is_first: bool = False
    """Taken before the focused widget gets to see what was typed after it."""

    @property
    def shown(self) -> str:
        """The key as people know it."""
        return _SHOWN.get(self.key, self.key)


def _action(key: str, name: str, label: str, text: str = "") -> Action:
    return Action(key=key, name=name, label=label, help=text)


_HELP = _action("question_mark", "help", "help", "this page")
_F1 = _action("f1", "help", "help", "all keys of this screen")
_BACK = _action("escape", "back", "back", "one layer back; cancels what is being checked")
_LEAVE = _action("q", "leave", "leave", "leave the app; training goes on without it")
_LOG = _action("l", "console", "log", "the end of the run's console log")
_COPY = _action("y", "copy", "copy id", "copy the run's id to your clipboard (OSC 52)")

HOME = (
    _action("n", "new", "new run", "choose model and data, see what fits, start"),
    _action("enter", "", "open", "watch the run, or read its report if it is over"),
    _action("w", "watch", "watch", "the live screen, also of a run that is over"),
    _action("m", "machine", "machine", "everything that was found out about this machine"),
    _HELP,
    _action("q", "leave", "leave", "leave the app; runs go on without it"),
)
FORM = (
    _action("enter", "", "check, then go on", "look at what the path names; again to go on"),
    _action("right", "", "complete", "take the completion that is shown in grey"),
    _BACK,
    _F1,
    Action(key="ctrl+u", name="clear", label="clear", help="empty the input", is_first=True),
    _action("pagedown", "page_down", "scroll", "read on in what was found"),
    _action("pageup", "page_up", "scroll", "read back in what was found"),
    _action("down", "line_down", "scroll", "one line down"),
    _action("up", "line_up", "scroll", "one line up"),
)
DATA = (
    *FORM[:2],
    _action("f2", "rows", "rows", "the first rows as the model reads them, and what is learnt"),
    _action("f3", "options", "options", "how rows are read: skip faulty ones, another template..."),
    *FORM[2:],
)
RECOMMENDATION = (
    _action("l", "launch", "launch", "check everything, ask once, start the run"),
    _action("s", "save", "save", "write the recipe to a file"),
    _HELP,
    _BACK,
    _action("e", "explain", "explain", "every term of the estimate, or not"),
    _action("q", "leave", "leave", "leave the app"),
    _action("1", "complexity", "complexity", "how complex the task is: low, medium, high"),
    _action("2", "critical", "critical", "the task is critical and cost is none, or not"),
    _action("3", "value", "value", "best value for money is wanted, or not"),
    _action("4", "quality", "quality", "quality near full fine-tuning is needed, or not"),
)
LIVE = (
    _HELP,
    _action("q", "leave", "leave (run goes on)", "leave the app; training goes on without it"),
    _action("p", "pause", "pause", "let the run wait at its next step, or go on"),
    _action("s", "stop", "stop", "stop the run; asks how"),
    _action("tab", "next_pane", "pane", "on a narrow terminal: the next pane"),
    _LOG,
    _action("c", "checkpoint", "checkpoint", "save at the next step"),
    _action("enter", "report", "report", "where memory and time went"),
    _BACK,
    _action("r", "resume", "resume", "go on from the newest checkpoint when the run is over"),
    _COPY,
)
_KEYS_WHEN_OVER = ("question_mark", "enter", "r", "l", "y", "escape", "tab")
LIVE_OVER = (
    *(next(action for action in LIVE if action.key == key) for key in _KEYS_WHEN_OVER),
    _LEAVE,
)
"""What the footer offers when the run is over; the keys are those of LIVE."""
REPORT = (
    _HELP,
    _action("w", "watch", "curves", "the live screen of this run"),
    _LOG,
    _COPY,
    _BACK,
    _LEAVE,
)
PAGER = (
    _BACK,
    _action("q", "back", "back", "one layer back"),
    _action("pagedown", "", "scroll", "read on; also arrows, pgup, home, end"),
)
STOP = (
    _action("enter", "stop", "save and stop"),
    _action("x", "stop_now", "stop now, save nothing"),
    _action("escape", "", "go on"),
)
LAUNCH = (_action("enter", "launch", "start"), _action("escape", "", "do not"))
REPLACE = (_action("enter", "replace", "replace"), _action("escape", "", "do not"))
WRITE = (_action("enter", "", "save"), _action("escape", "", "do not"))


def footer(actions: Iterable[Action], width: int) -> str:
    """As many actions as fit, the first ones first; a label is told once."""
    line, told = "", set[str]()
    for action in actions:
        entry = f"{action.shown} {action.label}"
        longer = f"{line}{_GAP}{entry}" if line else entry
        if action.label in told or len(longer) > width:
            continue
        told.add(action.label)
        line = longer
    return line


def help_rows(actions: Iterable[Action]) -> list[tuple[str, str]]:
    """Key and sentence."""
    return [(action.shown, action.help) for action in actions]
