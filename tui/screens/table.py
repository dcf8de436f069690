"""Every screen that others open, by its name.

Screens open each other by these names, through `AppContext.open`, so no screen imports another. A
screen's module loads when it is first opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tui.context import AppContext
    from tui.screens.base import BaseScreen

SCREENS: Final[dict[str, Callable[[], type[BaseScreen]]]] = {
    "console": lambda: import_module("tui.screens.console").ConsoleScreen,
    "data": lambda: import_module("tui.screens.data").DataScreen,
    "live": lambda: import_module("tui.screens.live").LiveScreen,
    "model": lambda: import_module("tui.screens.model").ModelScreen,
    "page": lambda: import_module("tui.screens.pager").Pager,
    "recommendation": lambda: import_module("tui.screens.recommendation").RecommendationScreen,
    "report": lambda: import_module("tui.screens.report").ReportScreen,
}


def make(name: str, context: AppContext, *subject: Any, **options: Any) -> BaseScreen:
    """A new screen of what it is about, such as a run; KeyError for a name that is none."""
    return SCREENS[name]()(context, *subject, **options)
