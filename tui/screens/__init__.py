"""The screens of the app, one a file.

Screens open each other by the names of their modules here, through `AppContext.open`, so no screen
imports another. A module loads when its screen is first opened; its `SCREEN` is the class.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui.context import AppContext
    from tui.screens.base import BaseScreen


def make(name: str, context: AppContext, *subject: Any, **options: Any) -> BaseScreen:
    """A new screen of what it is about, such as a run; ModuleNotFoundError for an unknown name."""
    made: BaseScreen = import_module(f"{__name__}.{name}").SCREEN(context, *subject, **options)
    return made
