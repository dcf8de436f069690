"""Whether there is room to merge an adapter: the whole model is added up, and written."""

from __future__ import annotations

from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model
from profiles.quantities import bytes_text


def check(recipe: Recipe, base: Model, here: Machine) -> None:
    """UserError if there is no room for the model that an adapter is merged into."""
    needed = base.weight_bytes or 2 * base.num_params
    for what, free in (("memory", here.ram_free_bytes), ("disk space", here.disk_free_bytes)):
        if recipe.model.merges and free < needed:
            raise UserError(
                f"there is too little {what} to merge the adapter into {recipe.model.id}",
                why=f"the whole model is added up and written, {bytes_text(needed)}, and "
                f"{bytes_text(free)} are free",
                do="make room; or leave model.adapter_use out, to go on with the adapter as it is",
                where=here.disk_path if what == "disk space" else "host memory",
                code=ExitCode.CANNOT_CREATE,
            )
