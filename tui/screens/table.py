"""Every screen that others open, by its name.

Screens open each other by these names, through `Desk.open`, so no screen imports another. A
screen's module loads when it is first opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tui.desk import Desk
    from tui.screens.layer import Layer

SCREENS: Final[dict[str, Callable[[], type[Layer]]]] = {
    "console": lambda: import_module("tui.screens.console").ConsoleScreen,
    "data": lambda: import_module("tui.screens.data").DataScreen,
    "live": lambda: import_module("tui.screens.live").LiveScreen,
    "model": lambda: import_module("tui.screens.model").ModelScreen,
    "page": lambda: import_module("tui.screens.pager").Pager,
    "recommendation": lambda: import_module("tui.screens.recommendation").RecommendationScreen,
    "report": lambda: import_module("tui.screens.report").ReportScreen,
}


def make(name: str, desk: Desk, *subject: Any, **options: Any) -> Layer:
    """A new screen of what it is about, such as a run; KeyError for a name that is none."""
    return SCREENS[name]()(desk, *subject, **options)
