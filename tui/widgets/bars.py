"""Text meters as widgets; how they look is decided in `tui/plain_bars.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.plain_bars import meter, stacked
from tui.terminal import Symbols
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Meter(Lines):
    """How much of something is used, on one row."""

    DEFAULT_CSS = "Meter { height: 1; color: $primary; }"

    def __init__(
        self,
        *,
        symbols: Symbols = Symbols.BRAILLE,
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._symbols = symbols
        self._used: float | None = None
        self._total: float | None = None

    def show(self, used: float | None, total: float | None) -> None:
        """Show new values."""
        self._used, self._total = used, total
        self.redraw()

    def build_rows(self, width: int, height: int) -> list[str]:  # noqa: ARG002
        """Write the bar."""
        return [meter(self._used, self._total, width, self._symbols)]


class Stack(Lines):
    """Parts of a whole: a segmented bar with its legend below."""

    DEFAULT_CSS = "Stack { height: 4; color: $primary; }"

    def __init__(
        self,
        *,
        symbols: Symbols = Symbols.BRAILLE,
        describe: Callable[[float], str] | None = None,
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._symbols = symbols
        self._describe = describe
        self._parts: tuple[tuple[str, float], ...] = ()

    def show(self, parts: Sequence[tuple[str, float]]) -> None:
        """Show new parts."""
        self._parts = tuple(parts)
        self.redraw()

    def build_rows(self, width: int, height: int) -> list[str]:  # noqa: ARG002
        """Write the bar and the legend."""
        return stacked(self._parts, width, self._symbols, self._describe)
