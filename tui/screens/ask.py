"""A question over the bottom rows of a screen, answered by one key or one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from tui.keys import WRITE, Action
from tui.screens.parts import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import ComposeResult

_MOST_ROWS = 8


class Ask(ModalScreen[str]):
    """Gives the name of the chosen action, or an empty text."""

    def __init__(self, question: Sequence[str], choices: Sequence[Action]) -> None:
        super().__init__()
        self.question = tuple(question)
        self._choices = {choice.key: choice for choice in choices}

    def compose(self) -> ComposeResult:
        """Mount the question and one row of keys."""
        with Vertical(id="ask"):
            yield Rows("question", most=_MOST_ROWS)
            yield from self.extra()
            yield Rows("choices")

    def extra(self) -> list[Input]:
        """Give what stands between question and keys."""
        return []

    def on_mount(self) -> None:
        """Write."""
        self.query_one("#question", Rows).show(*self.question)
        words = [f"{choice.shown} {choice.label}" for choice in self._choices.values()]
        self.query_one("#choices", Rows).show("   ".join(words))

    def on_key(self, event: events.Key) -> None:
        """Take a choice; other keys do nothing, for a modal keeps them from the screens below."""
        if event.key in self._choices and self.choose(event.key):
            event.stop()

    def choose(self, key: str) -> bool:
        """Answer with the choice of this key; say whether it was one of ours."""
        self.dismiss(self._choices[key].name)
        return True


class AskText(Ask):
    """Gives a line of text, or an empty one."""

    def __init__(self, question: Sequence[str], value: str) -> None:
        super().__init__(question, WRITE)
        self._value = value

    def extra(self) -> list[Input]:
        """Give the line."""
        return [Input(self._value, compact=True, select_on_focus=False)]

    def choose(self, key: str) -> bool:
        """Take escape alone; enter is the input's."""
        return key == "escape" and super().choose(key)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the text."""
        self.dismiss(event.value.strip())
