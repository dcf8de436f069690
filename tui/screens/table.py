"""The screens that others open, by the names of their modules here.

Screens open each other by these names, through `AppContext.open`, so no screen imports another. A
screen's module loads when it is first opened; its `SCREEN` is the class.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tui.context import AppContext
    from tui.screens.base import BaseScreen


def make(name: str, context: AppContext, *subject: Any, **options: Any) -> BaseScreen:
    """A new screen of what it is about, such as a run; ModuleNotFoundError for an unknown name."""
    made: BaseScreen = import_module(f"tui.screens.{name}").SCREEN(context, *subject, **options)
    return made
