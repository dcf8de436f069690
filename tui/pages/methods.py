"""Everything that can be chosen by name, as lines and as JSON: made from the registry alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.lookup import (
    DOMAINS,
    ENGINES,
    METHODS,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    all_presets,
    is_ready,
)
from advisor.registry.results import EXPORTS, METRICS
from advisor.registry.spec import keys_of
from profiles import chat_families, personal
from profiles.data import formats
from tui.pages import method_facts
from tui.plain import table, wrap

if TYPE_CHECKING:
    from advisor.registry.spec import Key, MethodSpec, Named
    from profiles.data.formats.spec import Format

SCHEMA = 1
_KINDS: Final[dict[str, Iterable[Named]]] = {
    "train.optimizer": OPTIMIZERS,
    "train.scheduler": SCHEDULES,
    "hardware.strategy": ENGINES,
    "task": TASKS,
    "metrics": METRICS,
    "export formats": EXPORTS,
}
_RUNS, _NOT_YET = "runs", "not yet"


def document() -> dict[str, Any]:
    """All of `advisor methods --json`."""
    return {
        "schema": SCHEMA,
        "methods": [one(spec) for spec in METHODS],
        "presets": [
            {"name": p.name, "title": p.title, "method": p.method, "runs": is_ready(p)}
            for p in all_presets()
        ],
        "optimizers": [_entry(spec) for spec in OPTIMIZERS],
        "schedules": [_entry(spec) for spec in SCHEDULES],
        "strategies": [_entry(spec) for spec in ENGINES],
        "tasks": [_entry(spec) for spec in TASKS],
        "metrics": [_entry(spec) for spec in METRICS],
        "exports": [_entry(spec) for spec in EXPORTS],
        "uses": [{"name": one.name, "title": one.title, "words": one.words} for one in DOMAINS],
        "data_formats": [{"name": one.name, "tasks": _tasks(one)} for one in formats.FORMATS],
        "chat_templates": [
            {"name": name, "title": chat_families.title(name)} for name in chat_families.names()
        ],
        "personal_data": [
            {"name": kind.name, "title": kind.title, "mark": kind.mark} for kind in personal.KINDS
        ],
    }


def _tasks(one: Format) -> list[str]:
    """That learn from rows of this format."""
    return [task.name for task in TASKS if one.serves(task.learns_from)]


def lines(width: int) -> list[str]:
    """For people: what runs, what can only be estimated, and the keys of each method."""
    found = ["method.name"]
    for state in (_RUNS, _NOT_YET):  # aligned apart: names that do not run yet are long
        rows = [
            (m.name, m.title, state, ", ".join(keys_of(m.settings)))
            for m in METHODS
            if _state(m) == state
        ]
        found += table(rows, indent="  ", width=width)
    found += ["", *method_facts.lines(width)]
    for kind, registry in _KINDS.items():
        entries = [(spec.name, spec.title, _state(spec)) for spec in registry]
        if entries:
            found += ["", kind, *table(entries, indent="  ", width=width)]
    of_formats = [(one.name, ", ".join(_tasks(one)) or _NOT_YET) for one in formats.FORMATS]
    found += ["", "data.format", *table(of_formats, indent="  ", width=width)]
    families = [(name, chat_families.title(name)) for name in chat_families.names()]
    found += ["", "data.chat_template", *table(families, indent="  ", width=width)]
    kinds = [(kind.name, kind.title, kind.mark) for kind in personal.KINDS]
    found += ["", "data.mask", *table(kinds, indent="  ", width=width)]
    uses = [(one.name, one.title, one.words) for one in DOMAINS]
    found += ["", "recommend --for", *table(uses, indent="  ", width=width)]
    note = f"{_NOT_YET}: this version estimates it and cannot start it"
    return [*found, "", *wrap(note, width)]


def _state(spec: Named) -> str:
    return _RUNS if is_ready(spec) else _NOT_YET


def _entry(spec: Named) -> dict[str, Any]:
    return {"name": spec.name, "title": spec.title, "runs": is_ready(spec)}


def one(spec: MethodSpec) -> dict[str, Any]:
    """What `advisor methods NAME --json` says, and the list of all says of each."""
    keys = {name: _key(field.default, key) for name, (field, key) in keys_of(spec.settings).items()}
    told = {"learning_rate": spec.default_rate, "keys": keys}
    return {**_entry(spec), **told, **method_facts.document(spec)}


def _key(default: Any, key: Key) -> dict[str, Any]:
    bounds = {"ge": key.ge, "le": key.le, "lt": key.lt, "choices": key.choices or None}
    return {
        "meaning": key.doc,
        "default": default,
        **{name: bound for name, bound in bounds.items() if bound is not None},
        **({"not_yet": key.not_yet} if key.not_yet else {}),
    }
