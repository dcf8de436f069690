"""What is known by name, and how a name that comes from outside is looked up.

Each list is the registration: one line an entry. An unknown name is a UserError with the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from advisor.registry import (
    adapters,
    adaptive,
    domains,
    engines,
    eva,
    linears,
    low_rank,
    mixtures,
    optimizers,
    parts,
    presets,
    prompts,
    schedules,
    sparse,
    tasks,
    whole,
)
from advisor.registry.domains import DomainSpec
from advisor.registry.engine_spec import EngineSpec
from advisor.registry.handover import WHOLE, Taker
from advisor.registry.optimizer_spec import OptimizerSpec, ScheduleSpec
from advisor.registry.spec import (
    MethodSpec,
    Named,
    PresetSpec,
    keys_of,
    nothing_added,
)
from advisor.registry.task_spec import TaskSpec
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from profiles.facts import Model

Entry = TypeVar("Entry", bound=Named)


def nearest(name: object, names: Sequence[str]) -> str:
    """What to say of a name that is not known: the nearest, or all that there are."""
    from difflib import get_close_matches  # noqa: PLC0415  # only errors need it

    near = get_close_matches(str(name), names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names)}"


class Registry(Generic[Entry]):
    """All specs of one kind, in their order."""

    def __init__(self, kind: str, entries: Sequence[Entry]) -> None:
        """`kind` is the word for one entry, such as "method"."""
        self.kind = kind
        self._entries = {entry.name: entry for entry in entries}
        assert len(self._entries) == len(entries), f"two {kind}s have one name"

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Entry:
        """The entry of this name; UserError (BAD_RECIPE) with the nearest name if there is none."""
        found = self._entries.get(name)
        if found is None:
            raise UserError(
                f"there is no {self.kind} {name!r}",
                why=self.unknown(name),
                do=f"`advisor methods` lists every {self.kind}",
                where=self.kind,
                code=ExitCode.BAD_RECIPE,
            )
        return found

    def names(self) -> tuple[str, ...]:
        """Of all entries, in order."""
        return tuple(self._entries)

    @property
    def ready(self) -> tuple[str, ...]:
        """Names of those that have a builder."""
        return tuple(name for name, entry in self._entries.items() if is_ready(entry))

    def unknown(self, name: object) -> str:
        """What to say of a name that is not known: the nearest, or all that there are."""
        return nearest(name, self.names())

    @contextmanager
    def having(self, entry: Entry) -> Iterator[None]:
        """With one more entry inside the block, at the end."""
        assert entry.name not in self._entries, f"there is a {self.kind} {entry.name}"
        self._entries[entry.name] = entry
        try:
            yield
        finally:
            del self._entries[entry.name]


def hands_to(spec: MethodSpec) -> tuple[Taker, ...]:
    """What can take the result, as it is or after merging; nothing of what cannot be started."""
    if not spec.builder:
        return ()
    if spec.added is nothing_added:
        return ("model", *WHOLE)
    taken = spec.takers
    return taken + tuple(one for one in WHOLE if "merged" in taken and one not in taken)


def is_ready(entry: Named) -> bool:
    """It can be started; a preset if all that it names can."""
    if isinstance(entry, PresetSpec):
        method, optimizer = METHODS[entry.method], OPTIMIZERS[entry.optimizer]
        taken = not _not_yet(method, entry)
        return taken and is_ready(method) and is_ready(optimizer)
    return bool(entry.builder)


def _not_yet(method: MethodSpec, preset: PresetSpec) -> bool:
    """The preset's settings hold a value that no builder takes, or what is offloaded."""
    keys = keys_of(method.settings)
    waits = any(value in keys[name][1].not_yet for name, value in preset.changes.items())
    engines_for = [e for e in ENGINES if preset.offload in e.offload]
    return waits or bool(preset.offload and not any(map(is_ready, engines_for)))


def all_presets() -> tuple[PresetSpec, ...]:
    """All rungs: those with settings of their own, and every other method that is offered."""
    named = {preset.method for preset in PRESETS}
    others = [m for m in METHODS if m.offered and m.name not in named]
    return (*PRESETS, *(_plain(method) for method in others))


@cache
def _plain(method: MethodSpec) -> PresetSpec:
    return PresetSpec(
        name=method.name,
        title=method.title,
        method=method.name,
        place="beside",
        like_chosen=True,
    )


def kinds_of_rows(task: str | None = None) -> tuple[str, ...]:
    """What a task learns from, or all that can be trained on; as data formats name it."""
    chosen = [TASKS[task]] if task else [one for one in TASKS if is_ready(one)]
    return tuple(dict.fromkeys(kind for one in chosen for kind in one.learns_from))


def proposed_task(kind: str) -> TaskSpec:
    """What is trained on rows of this kind where nobody names a task: the first that runs."""
    able = [task for task in TASKS if kind in task.proposed_by]
    return next(filter(is_ready, able), able[0] if able else TASKS[tasks.SFT.name])


def unfit(task: TaskSpec, model: Model) -> str:
    """Why a model cannot learn a task, as a clause; empty if it can."""
    if not model.is_encoder or task.head != "lm":
        return ""
    able = ", ".join(one.name for one in TASKS if one.head != "lm")
    return (
        f"{model.model_type} reads a text from both sides and predicts no next token; it can learn "
        f"{able}"
    )


def preset_of(name: str) -> PresetSpec:
    """The rung of this name; UserError with the nearest if there is none."""
    return next((preset for preset in all_presets() if preset.name == name), None) or PRESETS[name]


METHODS: Final[Registry[MethodSpec]] = Registry(
    "method",
    (
        *whole.METHODS,
        *low_rank.METHODS,
        *adaptive.METHODS,
        *linears.METHODS,
        *eva.METHODS,
        *mixtures.METHODS,
        *sparse.METHODS,
        *adapters.METHODS,
        *prompts.METHODS,
        *parts.METHODS,
    ),
)
PRESETS: Final[Registry[PresetSpec]] = Registry("preset", presets.PRESETS)
OPTIMIZERS: Final[Registry[OptimizerSpec]] = Registry("optimizer", optimizers.OPTIMIZERS)
SCHEDULES: Final[Registry[ScheduleSpec]] = Registry("schedule", schedules.SCHEDULES)
ENGINES: Final[Registry[EngineSpec]] = Registry("strategy", engines.ENGINES)
TASKS: Final[Registry[TaskSpec]] = Registry("task", tasks.TASKS)
DOMAINS: Final[Registry[DomainSpec]] = Registry("use", domains.DOMAINS)
