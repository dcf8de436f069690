"""`advisor run`: read, check, start, and follow if asked."""

from __future__ import annotations

from pathlib import Path

from advisor import recipe as recipes
from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.quantities import bytes_text, count_text, duration_text
from profiles.runs import listing, reading, rundir
from profiles.runs.rundir import RunDir
from runner.checks import preflight, replay
from runner.supervision import launch
from tui import plain
from tui.commands import inputs, save
from tui.follow import follow as follow_run

_SHOWN = 16
"""Characters of a hash that tell two files apart."""
_SHOWN_CHANGE = 80


def run(
    path: Path,
    changes: tuple[str, ...],
    *,
    follow: bool,
    dry_run: bool,
    share: bool = False,
    allow_changed: bool = False,
    allow_outside: bool = False,
) -> int:
    """Start a recipe, or the one of a run directory again; the id goes to stdout."""
    path = RunDir(path).recipe if reading.is_folder(path) else path
    recipe, text = load(path, changes)
    base_dir, set_keys = replay.base_dir_of(path), tuple(_pairs(changes))
    inputs.accept(recipe, path, base_dir, set_keys, allow_outside=allow_outside)
    save.check_downloaded(recipe.model.id, base_dir)
    _compare(recipe, path, set_keys, allow_changed=allow_changed)
    ready = preflight.check(recipe, base_dir, share=share)
    for text_line in _summary(recipe, ready):
        for line in plain.wrap(text_line, plain.page_width(), indent="  ", first=""):
            plain.say(line)
    if dry_run:
        plain.say("dry run: nothing was started")
        return 0
    started = launch.start(
        text,
        name=recipe.name,
        base_dir=base_dir,
        **ready.for_launch,
        tell=plain.starting,
    )
    inputs.remember(recipe, base_dir)
    plain.show([started.id])
    if follow:
        return follow_run(started)
    plain.say(f"it goes on without this terminal; watch it with: advisor watch {short(started)}")
    return 0


def load(path: Path, changes: tuple[str, ...]) -> tuple[Recipe, bytes]:
    """The recipe and the text to keep: byte-exact, unless --set changed it."""
    raw, text = _read(path)
    inputs.refuse_secrets(text, path)
    recipe = recipes.parse(text, where=str(path))
    if not changes:
        return recipe, raw
    changed = recipes.with_changes(text, _pairs(changes), where=str(path))
    return changed, changed.to_toml().encode()


def _read(path: Path) -> tuple[bytes, str]:
    try:
        with reading.open_regular(path, through_links=True) as file:
            raw = file.read(recipes.MAX_BYTES + 1)
        text = raw.decode(errors="strict" if len(raw) <= recipes.MAX_BYTES else "ignore")
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the recipe: {reading.reason(error)}",
            why="a recipe is a TOML file",
            do="`advisor recommend --save R.toml` writes one; ready ones lie in "
            f"{_ready_recipes()}",
            where=str(path),
            code=ExitCode.NO_INPUT,
        ) from error
    if len(raw) <= recipes.MAX_BYTES:
        return raw, text
    raise UserError(
        f"the recipe is over {recipes.MAX_BYTES // 1000} kB",
        why="a recipe is a page of text",
        do="give the recipe; data belongs into a file that data.train names",
        where=str(path),
        code=ExitCode.BAD_RECIPE,
    )


def _compare(recipe: Recipe, path: Path, set_keys: tuple[str, ...], *, allow_changed: bool) -> None:
    """Tell what is not as it was when the recipe ran; other data or another model is refused."""
    lock = replay.lock_beside(path, allow_changed=allow_changed)
    for what in replay.not_compared(RunDir(path.parent)):
        plain.say(f"! {replay.LOCK_NAME} does not tell whether {what} changed since")
    if lock is None:
        return
    plain.say(f"comparing with {replay.LOCK_NAME}")
    around = preflight.surroundings_of(recipe) if rundir.SURROUNDINGS in lock else {}
    now = replay.found(recipe, replay.base_dir_of(path), lock, around)
    changed = replay.changes(lock, now)
    rows = [(change.name, change.then[:_SHOWN], change.now[:_SHOWN]) for change in changed]
    if not rows:
        plain.say("data, model, recipe, packages and machine are as the lock has them")
        return
    for line in plain.table(rows, header=("changed", "then", "now"), indent="  "):
        plain.say(line)
    if not allow_changed:
        replay.refuse(changed, set_keys, path)


def _ready_recipes() -> Path:
    from profiles import installation  # noqa: PLC0415

    return installation.recipes_dir()


def _pairs(changes: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for change in changes:
        key, mark, value = change.partition("=")
        if not mark or not key:
            raise _no_change(change, "is no KEY=VALUE")
        if any(ord(character) < ord(" ") for character in change):
            raise _no_change(change, "is more than one line")
        pairs[key.strip()] = value.strip()
    return pairs


def _no_change(change: str, fault: str) -> UserError:
    return UserError(
        f"--set {change[:_SHOWN_CHANGE]!r} {fault}",
        why="a change names a key of the recipe with its new value, on one line",
        do="write it like --set train.epochs=1, with a --set for each key",
        where="--set",
        code=ExitCode.USAGE,
    )


def _summary(recipe: Recipe, ready: preflight.Ready) -> list[str]:
    predicted, rates = ready.fit.memory, ready.fit.rates
    rate = f", about {count_text(rates[1])} tokens/s" if rates else ""
    free = bytes_text(ready.fit.budget_bytes)
    lines = [
        f"{recipe.name}: {recipe.method.name} of {ready.model.id}{_adapter(recipe)}",
        ready.rows,
        f"predicted peak {bytes_text(predicted.expected_bytes)} of {free} free{rate}",
    ]
    if took := ready.duration:
        first, whole = duration_text(took.until_first_step), duration_text(took.seconds)
        lines.append(f"about {first} to the first step, about {whole} in all")
    return lines + [f"! {warning}" for warning in ready.warnings]


def _adapter(recipe: Recipe) -> str:
    """What becomes of an adapter that is there."""
    if recipe.model.adapter is None:
        return ""
    does = "merged into it first" if recipe.model.merges else "trained on"
    return f", with {recipe.model.adapter} {does}"


def short(run: RunDir) -> str:
    """The end of an id, which is enough to name a run."""
    return run.end if sum(run.end in r.id for r in listing.all_runs()) == 1 else run.id
