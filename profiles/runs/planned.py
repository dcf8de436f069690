"""What was predicted of a run when it was started: its speed, and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from profiles import toml_text
from profiles.runs import reading
from profiles.runs.rundir import RunDir, read_json

KEY: Final = "planned"
"""Of the manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Predictions for this machine; None for what nobody knew."""

    tokens_per_second: float | None = None
    until_first_step: float | None = None
    """Seconds from the launch to the first step."""
    seconds: float | None = None
    """From the launch to the end."""


NOTHING_PLANNED: Final = Planned()


def planned(run: RunDir) -> Planned:
    """What was predicted at the start, or by the recipe of a run that an older version started."""
    known = (read_json(run.manifest) or {}).get(KEY)
    if not isinstance(known, dict):
        return Planned(tokens_per_second=_number(_of_recipe(run), "tokens_per_second"))
    return Planned(
        tokens_per_second=_number(known, "tokens_per_second"),
        until_first_step=_number(known, "until_first_step"),
        seconds=_number(known, "seconds"),
    )


def _of_recipe(run: RunDir) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        plan = toml_text.parse(reading.text(run.recipe)).get("plan")
        return plan if isinstance(plan, dict) else {}
    return {}


def _number(known: Mapping[str, Any], key: str) -> float | None:
    value = reading.number(known, key)
    return value if value is not None and value > 0 else None
