"""Which model: a local folder, a name of the catalog, or an id on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.facts import Model
from profiles.models import catalog, find_model
from tui.pages import model as page
from tui.screens.path_form import PathForm, complete

if TYPE_CHECKING:
    from tui.context import AppContext


class ModelScreen(PathForm[Model]):
    """The first question of a new run."""

    TITLE_TEXT = "new run, 1 of 3: the model"
    PLACEHOLDER = "folder with config.json, or a model's name: Qwen/Qwen3-8B"
    NEXT = "the data"

    def __init__(self, context: AppContext) -> None:
        super().__init__(context, context.model_path)

    def look(self, path: str) -> Model:
        """Read the folder's headers; a name that is in no catalog is asked of the hub."""
        return find_model.resolve(path)

    def complete(self, value: str) -> str | None:
        """A path, or else a name of the catalog."""
        wanted = value.lower()
        names = (name for name in catalog.ids() if name.lower().startswith(wanted))
        return complete(value) or next(names, None)

    def lines(self, found: Model, width: int) -> list[str]:
        """Write the model's page."""
        return page.lines(found, width)

    def keep(self, path: str, found: Model) -> None:
        """Token counts of a data set hold for one tokenizer only."""
        if found != self.context.model:
            self.context.data = None
        self.context.model_path, self.context.model = path, found

    def go_on(self) -> None:
        """To the data."""
        self.context.open("data")


SCREEN = ModelScreen
