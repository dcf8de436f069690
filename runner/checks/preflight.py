"""Everything that can be found wrong before a run is started; nothing is written or started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from advisor import recipe as recipes
from advisor.choice import fit, words
from advisor.choice.devices import emptiest, framework_on
from advisor.choice.duration import Duration, Rows, Wanted, duration, schedule
from advisor.choice.fit import Fit
from advisor.choice.lengths import Lengths
from advisor.recipe import Recipe
from advisor.registry.lookup import TASKS, kinds_of_rows
from profiles import installation
from profiles.data import classes, datafile, dataset, mixture
from profiles.data.encoding import Encoder
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Machine, Model
from profiles.joining import joined
from profiles.machines import machine, torch_build
from profiles.models import find_model, safetensors_header, written
from profiles.quantities import bytes_text, count_text, some_of
from profiles.runs import planned, reading, recipe_copy, rundir, session_host
from profiles.runs.planned import Planned
from profiles.runs.rundir import RunDir
from runner import resume
from runner.checks import (
    adapters,
    chat_templates,
    edits,
    expert_adapters,
    gpu_checks,
    host_checks,
    neighbours,
    packages,
    pairing,
    positions,
    rates,
    replay,
    splits,
    vocabulary,
)
from runner.checks.surroundings import surroundings
from runner.resume import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What was found; the run may start."""

    model: Model
    machine: Machine
    dataset: Dataset
    rows: str
    """How many are trained on, evaluated with and kept, in words."""
    fit: Fit
    duration: Duration | None
    """How long the whole run takes; None if nothing is known of the device's speed."""
    devices: tuple[str, ...]
    """GPUs to use, the emptiest first: the ones whose free memory was judged."""
    warnings: tuple[str, ...]

    @property
    def for_launch(self) -> dict[str, Any]:
        """What `launch.start` takes of it: devices, and what is kept with the run."""
        speeds, took = self.fit.rates, self.duration
        predicted = Planned(
            tokens_per_second=speeds[1] if speeds else None,
            until_first_step=took.until_first_step if took else None,
            seconds=took.seconds if took else None,
        )
        around = surroundings(self.machine, self.devices, os.environ)
        kept = {planned.KEY: asdict(predicted), rundir.SURROUNDINGS: around}
        return {"devices": self.devices, "kept": kept | {written.KEY: written.to_dict(self.model)}}


def check(recipe: Recipe, base_dir: Path, *, share: bool = False) -> Ready:
    """Packages, devices, model, data and memory of a recipe; UserError on the first that fails.

    With `share` it may start beside others who hold the memory that it may need.
    """
    packages.check(recipe)
    here = machine.probe(installation.home())
    gpu_checks.check(here, recipe.hardware.gpus, recipe.train.precision, torch_build.installed())
    pairing.check_engine(recipe, here)
    packages.check_usable(recipe, here)
    base = find_model.named(recipe.model.id, base_dir)
    pairing.check_model(recipe, base)
    warnings = _adapters(recipe, base_dir, base, here)
    encoder = _encoder(recipe, base_dir, base)
    checked = _data(recipe, base_dir, encoder)
    warnings += chat_templates.other_than_adapters(recipe, base_dir, encoder)
    base = _as_loaded(recipe, base, encoder)
    planned = _as_trained(recipe, checked)
    tokens = planned[0].tokens
    plan = recipe.to_plan(framework_on(here), tokens.max if tokens else None)
    lengths = Lengths.of(tokens, plan.seq_len) if tokens else None
    predicted = fit.judge(base, here, plan, lengths)
    if not (share or base.unmodelled):
        gpu_checks.check_room(here, predicted)
    warnings += [w for data in checked for w in data.warnings]
    warnings += encoder.added.warnings() if encoder and encoder.added else []
    warnings += positions.warnings(recipe, base, tokens)
    warnings += splits.warnings(checked[0], recipe.data)
    num_rows = splits.parts(checked[0], recipe.data).train
    rates.refuse_too_short(recipe, num_rows)
    warnings += rates.warnings(recipe, num_rows)
    warnings += [*_ignored(base), *session_host.warnings(installation.home())]
    devices = _emptiest(here, recipe.hardware.gpus)
    warnings += neighbours.warnings(devices)
    warnings += _of_machine(here, base, predicted)
    return Ready(
        model=base,
        machine=here,
        dataset=checked[0],
        rows=_rows(recipe, checked),
        fit=predicted,
        duration=_duration(recipe, base, here, predicted, planned),
        devices=devices,
        warnings=tuple(warnings),
    )


def _check_room(base: Model, here: Machine, predicted: Fit, *, share: bool) -> None:
    """Memory of devices and RAM, unless it may start beside others who hold them."""
    if not share:
        gpu_checks.check_room(here, predicted)
        host_checks.check_ram(base, here, predicted)


def _adapters(recipe: Recipe, base_dir: Path, base: Model, here: Machine) -> list[str]:
    """What is to be minded of adapters that are there already."""
    told = adapters.check(recipe, base, base_dir, here)
    return told + expert_adapters.check(recipe, base, base_dir)


def _of_machine(here: Machine, base: Model, predicted: Fit) -> list[str]:
    """What is to be expected of a run here."""
    found = []
    if not here.gpus:
        found.append("there is no GPU: this trains on the CPU, which takes long")
    if base.unmodelled:
        found.append(f"no estimate holds for this model: {base.unmodelled}")
    elif predicted.short_bytes:
        found.append(
            f"predicted to need up to {bytes_text(predicted.memory.high_bytes)} of "
            f"{bytes_text(predicted.budget_bytes)} free: it may run out of memory"
        )
    return found


def _as_trained(recipe: Recipe, checked: list[Dataset]) -> list[Dataset]:
    """In rows as the task makes them of the files'."""
    if not TASKS[recipe.task].joins:
        return checked
    return [joined(one, recipe.data.max_length) for one in checked]


def _as_loaded(recipe: Recipe, base: Model, encoder: Encoder | None) -> Model:
    """With the rows and positions that the recipe adds."""
    return positions.scaled(recipe, vocabulary.enlarged(base, encoder.added if encoder else None))


def _encoder(recipe: Recipe, base_dir: Path, base: Model) -> Encoder | None:
    """What the model will read of an example, with the tokens that it is to learn."""
    return chat_templates.encoder(
        base,
        recipe.data.chat_template,
        recipe.data.learn,
        base_dir=base_dir,
        tokens=recipe.model.new_tokens,
    )


def _data(recipe: Recipe, base_dir: Path, encoder: Encoder | None) -> list[Dataset]:
    """The files to train on and to evaluate with; what is in both is told."""
    options: dict[str, Any] = {
        **recipe.data.reading,
        "encoder": encoder,
        "max_length": None if TASKS[recipe.task].joins else recipe.data.max_length,
        "kinds": kinds_of_rows(recipe.task),
        "count_up_to_bytes": dataset.COUNTED_WHILE_WAITING_BYTES,
    }
    mix, by = recipe.data.train_files, recipe.data.split_by
    paths = [str(base_dir / one.file) for one in mix]
    trained = [dataset.check_to_train(path, split_by=by, **options) for path in paths]
    train = trained[0]
    if not isinstance(recipe.data.train, str):
        train = mixture.mixed(trained, [one.weight for one in mix])
    files = [str(base_dir / file) for file in recipe.data.eval_files.values()]
    held_out = [dataset.check_to_train(file, **options) for file in files]
    if "label" in options["kinds"]:
        classes.check([one.dataset for one in trained], [one.dataset for one in held_out])
    return [train.dataset, *(one.compared_with(train).dataset for one in held_out)]


def _duration(
    recipe: Recipe, base: Model, here: Machine, predicted: Fit, checked: list[Dataset]
) -> Duration | None:
    given, train = checked[0], recipe.train
    if given.tokens is None or base.unmodelled:
        return None
    parts = splits.parts(given, recipe.data)
    evaluated = parts.evaluation + sum(held_out.num_rows for held_out in checked[1:])
    rows = Rows(parts.train, evaluated, parts.test)
    lengths = Lengths.of(given.tokens, recipe.data.max_length)
    wanted = Wanted(
        train.epochs, train.max_steps, train.eval_every, train.save_every, train.samples
    )
    through = schedule(predicted.plan, lengths, rows, wanted)
    first = {"merges": recipe.model.merges, "continues": recipe.model.continues}
    return duration(predicted, base, here, through, **first)


def _rows(recipe: Recipe, checked: list[Dataset]) -> str:
    """Like "999 rows: 799 to train on, 99 to evaluate with, 101 kept from both"."""
    given = checked[0]
    is_mix = given.num_distinct_rows is not None
    about = "about " if given.num_duplicates or is_mix else ""  # equal rows go to one side
    train, evaluation, test = splits.parts(given, recipe.data)
    told = [f"{about}{count_text(train)} to train on"]
    told += [f"{count_text(evaluation)} to evaluate with"] if evaluation else []
    for name, held_out in zip(recipe.data.eval_files, checked[1:], strict=True):
        of = f" ({name})" if name else ""
        told.append(f"{count_text(held_out.num_rows)} of another file to evaluate with{of}")
    told += [f"{count_text(test)} kept from both"] if test else []
    told += [] if evaluation or checked[1:] else ["none to evaluate with"]
    # Of a mix the weights repeat rows that are trained on alone, so all are fewer than were drawn
    number = train + evaluation + test if is_mix else given.num_rows
    tokens = given.tokens.counts.expected_of(number) if given.tokens else None
    counts = f", {tokens.words}" if tokens else ""
    of_files = f" from {given.container}" if is_mix else ""
    all_rows = f"about {count_text(number)}" if is_mix else count_text(number)
    rows = f"{all_rows} rows of {given.format} data{of_files}{counts}"
    return f"{rows}: {', '.join(told)}{splits.words(given, recipe.data)}"


def surroundings_of(recipe: Recipe) -> dict[str, str]:
    """What around a run of the recipe, started here and now, changes the bits of its result."""
    here = machine.probe(installation.home())
    return surroundings(here, _emptiest(here, recipe.hardware.gpus), os.environ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumable:
    """What was found; the run may go on."""

    start: Start
    """Where it goes on: from the newest checkpoint that verifies."""
    devices: tuple[str, ...]
    """GPUs to use, the emptiest of today."""
    warnings: tuple[str, ...]


def check_resume(run: RunDir, *, share: bool = False, allow_changed: bool = False) -> Resumable:
    """Devices, data and memory of a run that is to go on.

    UserError if its data, its model or its recipe is not what it began with (the position in the
    data would mean other rows, the weights would belong to another model) or cannot be compared, or
    if there is no longer room for it. What no checkpoint goes with is refused, `allow_changed` or
    not.
    """
    recipe = recipes.parse(recipe_copy.text_of(run), where=str(run.recipe))
    base_dir = run.base_dir()
    here = machine.probe(installation.home())
    gpu_checks.check(here, recipe.hardware.gpus, recipe.train.precision, torch_build.installed())
    pairing.check_engine(recipe, here)
    devices = _emptiest(here, recipe.hardware.gpus)
    around = surroundings(here, devices, os.environ)
    changed = _changes(run, recipe, around, allow_changed=allow_changed)
    edits.refuse(changed, run)
    if not allow_changed:
        replay.refuse_not_compared(run)
        replay.refuse_resume(changed, run.recipe)
    base = find_model.named(recipe.model.id, base_dir)
    encoder = _encoder(recipe, base_dir, base) if recipe.model.new_tokens else None
    base = _as_loaded(recipe, base, encoder)
    predicted = fit.judge(base, here, recipe.to_plan(framework_on(here)))
    if not base.unmodelled:
        _check_room(base, here, predicted, share=share)
    start = resume.choose(run, resume.facts(recipe, recipe.hardware.gpus))
    warnings = [
        *(f"nobody can say whether {what} changed" for what in replay.not_compared(run)),
        *edits.words(changed, run, recipe, start.step),
    ]
    return Resumable(
        start=start,
        devices=devices,
        warnings=(*warnings, *neighbours.warnings(devices), *session_host.warnings(run.path)),
    )


def _changes(
    run: RunDir, recipe: Recipe, around: Mapping[str, str], *, allow_changed: bool = False
) -> tuple[replay.Change, ...]:
    """What is not as the first attempt had it; nothing if that one came to no lock."""
    base_dir = run.base_dir()
    lock = replay.lock_beside(run.recipe, allow_changed=allow_changed)
    files = {key: base_dir / name for key, name in recipe.data.files.items()}
    gone = {key: path for key, path in files.items() if not _is_there(path)}
    folders = replay.folders_of(recipe, base_dir)
    gone |= {key: path for key, path in folders.items() if not reading.is_folder(path)}
    if gone:
        raise UserError(
            f"data or model of the run cannot be read: {some_of(list(gone))}",
            why=f"it is not where the recipe names it, from {base_dir} on",
            do=f"put it back there: {some_of([str(path) for path in gone.values()])}",
            where=str(run.recipe),
            code=ExitCode.NO_INPUT,
        )
    return replay.changes(lock, replay.found(recipe, base_dir, lock, around)) if lock else ()


def _is_there(path: Path) -> bool:
    """A file, or a folder of files with rows."""
    files = datafile.files_of(path)
    return bool(files) and all(map(reading.is_file, files))


def _ignored(base: Model) -> list[str]:
    pickles = safetensors_header.ignored_pickles(Path(base.path)) if base.path else []
    names = some_of(pickles, 3)
    code = [words.IGNORED_CODE] if base.ignores_code else []
    told = [f"ignored, because a pickle can run any code: {names}"] if pickles else []
    return code + told


def _emptiest(here: Machine, num_gpus: int) -> tuple[str, ...]:
    return tuple(gpu.uuid or str(gpu.index) for gpu in emptiest(here)[:num_gpus])
