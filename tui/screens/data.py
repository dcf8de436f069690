"""Which data: a file, validated row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.registry.lookup import kinds_of_rows
from profiles.facts import Dataset
from tui.pages import data as page
from tui.screens.path_form import PathForm

if TYPE_CHECKING:
    from tui.context import AppContext


class DataScreen(PathForm[Dataset]):
    """The second question of a new run."""

    TITLE_TEXT = "new run, 2 of 3: the data"
    PLACEHOLDER = "file: JSON, JSONL, CSV or Parquet (alpaca, sharegpt, messages, prompt, text)"
    NEXT = "the recommendation"

    def __init__(self, context: AppContext) -> None:
        super().__init__(context, context.data_path)

    def look(self, path: str) -> Dataset:
        """Validate every row and count its tokens; seconds for a large file."""
        from profiles.data import dataset  # noqa: PLC0415  # the tokenizer library loads with it
        from runner.checks import chat_templates  # noqa: PLC0415

        assert self.context.model is not None
        encoder = chat_templates.encoder(self.context.model)
        return dataset.check(path, encoder=encoder, kinds=kinds_of_rows())

    def lines(self, found: Dataset, width: int) -> list[str]:
        """Write the data's page."""
        return page.lines(found, width)

    def keep(self, path: str, found: Dataset) -> None:
        """Keep it for the screens to come."""
        self.context.data_path, self.context.data = path, found

    def go_on(self) -> None:
        """To the recommendation."""
        self.context.open("recommendation")


SCREEN = DataScreen
