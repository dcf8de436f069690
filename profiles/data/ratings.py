"""Columns that no format reads and that may say which replies are good, and how they are used."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from profiles.data import jq_commands
from profiles.data.datafile import Container
from profiles.data.formats.spec import FLAGS, is_flag
from profiles.data.words import printable
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from profiles.data.datafile import DataFile
    from profiles.data.formats.spec import Format, Row

_NAMES: Final = re.compile(
    r"(is_|was_)?(label|rating|score|stars|grade|quality|reward|votes?|feedback|thumbs?(_up)?"
    r"|correct|good|bad|right|accepted|chosen|preferred|helpful|desirable|liked|positive|passed)"
    r"|kto_tag|reply_(rating|score|label)",
    re.IGNORECASE,
)
_MOST_VALUES: Final = 12
_MOST_SHOWN: Final = 5
_RATES: Final = "may say which replies are good, and all of them are learnt alike"
_KTO: Final = "--task kto learns from good and bad ones"


@dataclass(slots=True)
class Ratings:
    """Values of the columns with such names; the first few are told apart."""

    form: Format
    file: DataFile
    values: dict[str, dict[Any, None] | None] = field(default_factory=dict)
    """By column; None for one with too many, or with no numbers, truths or texts."""

    @classmethod
    def among(cls, columns: Iterable[str], form: Format, file: DataFile) -> Ratings | None:
        """Those of some unused columns; None where rows are no replies to be rated, or none is."""
        named = [one for one in columns if _NAMES.fullmatch(one)] if form.kind == "replies" else []
        return cls(form, file, {name: {} for name in named}) if named else None

    def add(self, row: Row) -> None:
        """Look at a row."""
        for name, seen in self.values.items():
            value = row.get(name)
            if seen is None or value is None:
                continue
            if isinstance(value, str | int | float):
                seen[value] = None
            if not isinstance(value, str | int | float) or len(seen) > _MOST_VALUES:
                self.values[name] = None

    def sentences(self, columns: Collection[str]) -> list[str]:
        """What may be done with each; `columns`: those of the file."""
        return [
            told
            for name, seen in self.values.items()
            if seen and (told := self._sentence(name, list(seen), columns))
        ]

    def _sentence(self, name: str, seen: list[Any], columns: Collection[str]) -> str:
        if len(seen) < 2:
            return ""
        if all(map(is_flag, seen)):
            parts = {one.name: one.name_in(columns) for one in self.form.fields}
            given = {part: key for part, key in parts.items() if key} | {"label": name}
            options = [f"--column {shlex.quote(f'{part}={key}')}" for part, key in given.items()]
            return f"`{name}` {_RATES}; {' '.join(options)} {_KTO}"
        is_good = _split(seen)
        if not is_good:
            return ""
        program = f"jq -c '.label = (.{name} {is_good})' {jq_commands.FILE} > rated.jsonl"
        is_json = self.file.container in (Container.LINES, Container.LIST)
        how = f", as by {jq_commands.for_file(program, self.file)}" if is_json else ""
        shown = some_of([printable(str(one), 20) for one in seen], _MOST_SHOWN)
        return (
            f"`{name}` ({shown}) {_RATES}; with a `label` of true or false made of it{how}, {_KTO}"
        )


def _split(seen: list[Any]) -> str:
    """Which of several values are good ones, as jq compares; "" where nobody can guess."""
    texts = [one for one in seen if isinstance(one, str)]
    if numbers := _numbers(seen):
        given = "// 0 | tonumber " if texts else ""
        return f"{given}> {(min(numbers) + max(numbers)) / 2:g}"
    if len(texts) < len(seen) or any("'" in one for one in texts):
        return ""
    good = next((one for one in texts if FLAGS.get(one.strip().lower())), texts[0])
    return f"== {json.dumps(good)}"


def _numbers(seen: list[Any]) -> list[float]:
    """The values as numbers, as a table has them too; none unless all are."""
    try:
        numbers = [float(one) for one in seen]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
