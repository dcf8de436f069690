"""Which data: a file, validated row by row, and shown as the model reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.widgets import Input

from profiles.facts import Dataset
from tui import keys
from tui.pages import data as page
from tui.screens.ask import AskText
from tui.screens.path_form import PathForm, expanded

if TYPE_CHECKING:
    from tui.commands import data_show
    from tui.context import AppContext

_NUM_ROWS = 10
"""That are shown; of others the title tells."""


class DataScreen(PathForm[Dataset]):
    """The second question of a new run."""

    ACTIONS = keys.DATA
    TITLE_TEXT = "new run, 2 of 3: the data"
    PLACEHOLDER = "file: JSON, JSONL, CSV, text, Parquet (alpaca, sharegpt, messages, prompt, text)"
    NEXT = "the recommendation"

    def __init__(self, context: AppContext) -> None:
        super().__init__(context, context.data_path)

    def look(self, path: str) -> Dataset:
        """Validate every row and count its tokens; seconds for a large file."""
        from tui.commands import recommend, request  # noqa: PLC0415  # the tokenizer library

        assert self.context.model is not None
        asked = request.Asked(**self._chosen())
        return recommend.read_data(self.context.model, path, asked)

    def _chosen(self) -> dict[str, Any]:
        """How rows are read; UserError for options that are none."""
        from tui.cli_recommend import reading_of  # noqa: PLC0415

        return reading_of(self.context.data_options)

    def lines(self, found: Dataset, width: int) -> list[str]:
        """Write the data's page."""
        return page.lines(found, width)

    def keep(self, path: str, found: Dataset) -> None:
        """Keep it for the screens to come."""
        self.context.data_path, self.context.data = path, found
        self.context.task = self._chosen()["task"]

    def go_on(self) -> None:
        """To the recommendation."""
        self.context.open("recommendation")

    def action_rows(self) -> None:
        """Show the first rows of the path that is typed, whether it was found sound or not."""
        typed = self.query_one(Input).value.strip()
        if not typed:
            self.say(self.PLACEHOLDER)
            return
        self.say(f"reading {typed}; esc cancels")
        self.work("rows", lambda: self._rows_of(expanded(typed)), self._show_rows)

    def _rows_of(self, path: str) -> data_show.Shown:
        from tui.commands import data_show  # noqa: PLC0415  # the tokenizer library loads with it

        given = {key: value for key, value in self._chosen().items() if value is not None}
        for key in ("on_bad", "split_by", "task"):  # change nothing of what a row is read as
            given.pop(key, None)
        asked = data_show.Asked(num_rows=_NUM_ROWS, **given)
        return data_show.look(path, self.context.model, asked)

    def action_options(self) -> None:
        """Ask how rows are read, and check the path again."""

        def answered(answer: str | None) -> None:
            if answer is None:
                return
            self.context.data_options = answer
            if typed := self.query_one(Input).value.strip():
                self._check(typed)
            else:
                self.say(f"read with {answer}" if answer else "read as recommended")

        question = (
            "How rows are read, as for `advisor recommend`: --on-bad skip, --learn last,",
            "--chat-template NAME, --format NAME, --encoding NAME, --column PART=COLUMN,",
            "--clean html,duplicates, --mask all, --split-by COLUMN; and --task NAME.",
        )
        self.app.push_screen(AskText(question, self.context.data_options), answered)

    def _show_rows(self, found: data_show.Shown) -> None:
        self.say(f"enter goes on: {self.NEXT}" if self.found else "enter checks it")
        title = f"the first {_NUM_ROWS} rows; for others: advisor data show FILE --at LINE"
        unicode = self.context.terminal.unicode
        self.context.open("pager", title, lambda width: found.lines(width, unicode=unicode))


SCREEN = DataScreen
