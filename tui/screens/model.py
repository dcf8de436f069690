"""Which model: a local folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles import model as models
from profiles.facts import Model
from tui.pages import model as page
from tui.screens.path_form import PathForm

if TYPE_CHECKING:
    from tui.desk import Desk


class ModelScreen(PathForm[Model]):
    """The first question of a new run."""

    TITLE_TEXT = "new run, 1 of 3: the model"
    PLACEHOLDER = "folder with config.json, safetensors and tokenizer"
    NEXT = "the data"

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk, desk.model_path)

    def look(self, path: str) -> Model:
        """Read the folder's headers."""
        return models.from_folder(path)

    def lines(self, found: Model, width: int) -> list[str]:
        """Write the model's page."""
        return page.lines(found, width)

    def keep(self, path: str, found: Model) -> None:
        """Token counts of a data set hold for one tokenizer only."""
        if found != self.desk.model:
            self.desk.data = None
        self.desk.model_path, self.desk.model = path, found

    def go_on(self) -> None:
        """To the data."""
        from tui.screens.data import DataScreen  # noqa: PLC0415  # screens load when used

        self.app.push_screen(DataScreen(self.desk))
