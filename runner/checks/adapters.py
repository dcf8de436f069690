"""Whether an adapter that is there goes with a recipe: its base, its kind, its settings.

Read are its own file and the header of its weights; nothing of it is loaded. What libraries would
take in silence (an adapter of another model of the same shape, another rank or scale) is told here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from advisor.recipe import Recipe
from advisor.recipe_adapters import MERGE
from advisor.registry.beside import EMBEDDING, HEAD
from advisor.registry.continued import understood
from advisor.registry.handover import PEFT_CONFIG
from advisor.registry.linears import TRANSPOSED
from advisor.registry.lookup import METHODS
from advisor.registry.spec import MethodSpec, keys_of
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model
from profiles.models.safe_config import MAX_CONFIG_BYTES, read_json
from profiles.models.safetensors_header import read_header
from profiles.quantities import some_of
from profiles.runs import parents, reading
from profiles.runs.rundir import RunDir
from profiles.runs.rundir import read_json as read_kept
from runner.checks import merging_room, positions, replay, targets, tied_tables

WEIGHTS: Final = "adapter_model.safetensors"
_MODULE: Final = re.compile(r"base_model\.model\.(.+?)\.(?:lora|hada|lokr|vera|oft|ia3)_.*")
_CONFIG: Final = "config.json"
DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_CHANGED_BASE: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
_SHOWN: Final = 200


class Adapter(NamedTuple):
    """What its files say."""

    folder: Path
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    """Of its tensors, by name."""

    @property
    def modules(self) -> set[tuple[int, str]]:
        """(layer, name in it) of what it is put on."""
        found = (_MODULE.fullmatch(name) for name in self.shapes)
        inside = (targets.IN_LAYER.fullmatch(one[1]) for one in found if one)
        return {(int(parts[1]), parts[2]) for parts in inside if parts}


def check(recipe: Recipe, base: Model, base_dir: Path, here: Machine | None = None) -> list[str]:
    """What is to be minded of the recipe's adapter, if it has one; UserError if it does not go.

    `here`: the machine that it is to go on.
    """
    if recipe.model.adapter is None:
        return []
    adapter = read(folder := parents.adapter_folder(recipe.model.adapter, base_dir))
    told = check_base(recipe.model.adapter, recipe, base, adapter)
    check_shapes(base, adapter)
    tied_tables.check(base, folder, adapter.config, adapter.shapes)
    if recipe.model.merges:
        _check_merge(adapter)
        if here is not None:
            merging_room.check(recipe, base, here)
    else:
        _check_kind(recipe, adapter)
        _check_settings(recipe, base, adapter)
        _check_modules(recipe, base, adapter)
    return told


def read(folder: Path) -> Adapter:
    """The adapter of a folder, UserError if there is none that could be loaded without risk."""
    known = (method.continued for method in METHODS if method.continued)
    file = next((one for one in known if reading.is_file(folder / one.name)), None)
    if file is None:
        raise refusal(
            f"{folder} holds no adapter that can be trained on or merged",
            f"{PEFT_CONFIG}, which every adapter of PEFT's format has, is not there",
            "give the folder of one, or run:ID of a run that has published one",
            folder,
        )
    config = read_json(folder / file.name, MAX_CONFIG_BYTES)
    if not reading.is_file(folder / file.weights):
        raise refusal(
            f"{folder} holds no weights of an adapter",
            f"{file.weights} is not there, and a pickle can run any code",
            "save it again with PEFT, which writes safetensors",
            folder,
        )
    if file.name != PEFT_CONFIG:
        config["peft_type"] = file.kind
    header = read_header(folder / file.weights)
    return Adapter(folder, config, {name: list(one["shape"]) for name, one in header.items()})


def is_inside(name: str) -> bool:
    """Whether a tensor is of something that is put on what is in a layer."""
    found = _MODULE.fullmatch(name)
    return bool(found and targets.IN_LAYER.fullmatch(found[1]))


def check_base(text: str, recipe: Recipe, base: Model, adapter: Adapter) -> list[str]:
    """What is to be minded of the model that `text` was trained on; UserError if it is another.

    By the hashes of a run's base, else by the name that the adapter's file gives it.
    """
    positions.check_adapter(recipe, base, adapter.folder)
    said = adapter.config.get("base_model_name_or_path")
    name = printable(said, _SHOWN) if isinstance(said, str) and said else ""
    assert base.path is not None
    folder = Path(base.path)
    if parents.names_run(text):
        compared, changed = _compared(RunDir(adapter.folder.parent), folder)
        if any(file != _CONFIG for file in changed):
            raise refusal(
                f"{text} was not trained on {recipe.model.id}",
                f"these files of its base are others: {some_of(changed)}",
                f"write model.id = {json.dumps(name)}" if name else "name the base that it has",
                adapter.folder,
            )
        if compared:
            other = f"{_CONFIG} of {recipe.model.id} is another than the adapter's"
            return [other] if changed else []
    if not name:
        return [f"{adapter.folder} does not say which model it was trained on"]
    is_same = Path(name).name.lower() == folder.name.lower()
    if is_same or (reading.is_folder(Path(name)) and Path(name).samefile(folder)):
        return []
    return [f"the adapter says that it was trained on {name}, and model.id is {recipe.model.id}"]


def _compared(run: RunDir, folder: Path) -> tuple[list[str], list[str]]:
    """Files of a run's base of which hashes are known, and those that are others in a folder."""
    lock: dict[str, Any] = read_kept(run.recipe_lock) or {}
    if reading.is_folder(run.base):
        if run.base.resolve() == folder.resolve():
            return [run.base.name], []
        lock = {"sha256": {f"model/{n}": one for n, one in parents.published(run.base).items()}}
    known = lock.get("sha256")
    hashes = known if isinstance(known, dict) else {}
    files = [n.removeprefix("model/") for n in hashes if n.startswith("model/")]
    files = [file for file in files if file.endswith(".safetensors") or file == _CONFIG]
    then = {file: hashes[f"model/{file}"] for file in files}
    return files, [f for f in files if replay.hash_of(folder / f, f"model/{f}", lock) != then[f]]


def check_shapes(base: Model, adapter: Adapter) -> None:
    """Of low-rank adapters, whose sides are those of the weights; of our own, by what they say."""
    known, own = targets.shapes(base), adapter.config.get("base")
    ours = (base.model_type, base.hidden_size, base.num_layers)
    if isinstance(own, dict) and tuple(own.values()) != ours:
        raise refusal(
            f"the adapter is of another model than {base.id}",
            f"its base is {printable(str(own), _SHOWN)}",
            "give the model that it was trained on",
            adapter.folder,
        )
    for name, shape in adapter.shapes.items():
        found = _MODULE.fullmatch(name)
        inside = targets.IN_LAYER.fullmatch(found[1]) if found else None
        if not inside or not known or base.experts is not None:
            continue
        weight = known.get((int(inside[1]), inside[2]))
        if weight and base.model_type in TRANSPOSED:  # in their files (in, out)
            weight = weight[::-1]
        side = {DOWN: (1, -1), _UP: (0, 0)}.get(name[-len(DOWN) :])
        if weight is None or (side and shape[side[0]] != weight[side[1]]):
            has = "has no such linear" if weight is None else f"has one of {weight}"
            raise refusal(
                f"the adapter is of another model than {base.id}",
                f"{printable(name, _SHOWN)} is of {shape}, and the model {has}",
                f"give the model that it was trained on: {_said(adapter)}",
                adapter.folder,
            )


def _said(adapter: Adapter) -> str:
    return printable(str(adapter.config.get("base_model_name_or_path")), _SHOWN)


def _check_merge(adapter: Adapter) -> None:
    """Whether PEFT can add it to the weights, and to which."""
    kind = adapter.config.get("peft_type")
    able = {m.continued.kind for m in METHODS if m.continued and "merged" in m.takers}
    able |= {"ADALORA", "SHIRA"}
    if kind not in able:
        raise refusal(
            f"an adapter of kind {printable(str(kind), 40)} cannot be merged",
            f"it is no change of weights; these are: {', '.join(sorted(able))}",
            "leave model.adapter_use out, to go on with it, if its method can; or train another",
            adapter.folder,
        )
    check_start(adapter)
    if adapter.config.get("trainable_token_indices"):
        raise refusal(
            "an adapter with tokens of its own cannot be merged here",
            "the model that it would be merged into has no rows for them",
            "load it with PEFT's AutoPeftModelForCausalLM, save what merge_and_unload returns, and "
            "name that folder in model.id",
            adapter.folder,
        )


def check_start(adapter: Adapter) -> None:
    """UserError where its weights are none for the untouched base."""
    start = str(adapter.config.get("init_lora_weights"))
    if start.startswith(_CHANGED_BASE):
        raise refusal(
            "the adapter belongs to weights that were changed as it was made",
            f"init_lora_weights = {start!r}, and nobody converted it for the untouched base",
            "convert it with PEFT (save_pretrained with path_initial_model_for_weight_conversion), "
            "or take one that a run has published: those are",
            adapter.folder,
        )


def _check_kind(recipe: Recipe, adapter: Adapter) -> None:
    spec, kind = recipe.method.spec, adapter.config.get("peft_type")
    assert spec.continued is not None  # a recipe that says otherwise is none
    if kind == spec.continued.kind:
        return
    able = [m.name for m in METHODS if m.continued and m.continued.kind == kind]
    do = f"add --set method.name={able[0]}" if able else MERGE
    raise refusal(
        f"method.name = {recipe.method.name!r} cannot go on with this adapter",
        f"it is one of {printable(str(kind), 40)}, and not of {spec.continued.kind}",
        do,
        adapter.folder,
    )


def _check_settings(recipe: Recipe, base: Model, adapter: Adapter) -> None:
    """A recipe that says otherwise is refused; what no recipe can say, too."""
    spec = recipe.method.spec
    assert spec.continued is not None
    check_start(adapter)
    try:
        wanted, unknown = understood(adapter.config, spec.continued)
    except (AttributeError, TypeError) as error:
        raise refusal(
            f"{PEFT_CONFIG} is none that PEFT wrote", str(error), "save it again", adapter.folder
        ) from error
    if unknown or not all(_can_be_set(spec, *one) for one in wanted.items()):
        cannot = unknown or [
            f"{k} = {v!r}" for k, v in wanted.items() if not _can_be_set(spec, k, v)
        ]
        raise refusal(
            "the adapter is made in a way that no recipe can say",
            f"its {PEFT_CONFIG} has {printable(some_of(cannot, 4), _SHOWN)}",
            MERGE,
            adapter.folder,
        )
    asked = recipe.method.settings
    alike = {HEAD: EMBEDDING} if base.tied_embeddings else {}
    other = {k: v for k, v in wanted.items() if not _is_same(getattr(asked, k), v, alike)}
    if other:
        raise _disagreement(recipe, other, adapter)


def _is_same(asked: Any, wanted: Any, alike: dict[str, str]) -> bool:
    """Names in any order; `alike`: two names of one thing."""
    if isinstance(wanted, tuple):
        return {alike.get(one, one) for one in asked} == {alike.get(one, one) for one in wanted}
    return bool(asked == wanted)


def _can_be_set(spec: MethodSpec, name: str, value: Any) -> bool:
    """Whether a recipe can have this value."""
    field, about = keys_of(spec.settings)[name]
    if about.table:
        low, high = about.ge or 0, about.le or 0
        return all(type(number) is int and low <= number <= high for _, number in value)
    if about.choices:
        return value in about.choices
    if about.names:
        return True
    is_kind = type(value) is type(field.default)
    return is_kind and (about.ge or 0) <= value <= (about.le or value)


def _check_modules(recipe: Recipe, base: Model, adapter: Adapter) -> None:
    """Which linears, and in which layers; of a mixture's experts only the libraries know."""
    has, settings = adapter.modules, recipe.method.settings
    keys = keys_of(type(settings))
    if base.experts is not None or not has or not {"targets", "layers"}.intersection(keys):
        return
    other: dict[str, Any] = {}
    numbers = sorted({number for number, _ in has})
    if "layers" in keys and numbers != list(settings.adapted_layers(base.num_layers)):
        other["layers"] = "all" if numbers == list(range(base.num_layers)) else tuple(numbers)
    if "targets" in keys and targets.linears_of(base):
        reaches = {name for _, name in targets.reached(settings, base)}
        names = {name for _, name in has}
        if reaches != names:
            other["targets"] = tuple(sorted({name.rpartition(".")[2] for name in names}))
            if getattr(settings, "exclude", ()):
                other["exclude"] = ()
    if other:
        raise _disagreement(recipe, other, adapter)


def _disagreement(recipe: Recipe, wanted: dict[str, Any], adapter: Adapter) -> UserError:
    settings = recipe.method.settings
    told = [f"{key} is {_shown(value)}" for key, value in wanted.items()]
    asked = [f"{_shown(getattr(settings, key))}" for key in wanted]
    sets = " ".join(f"--set 'method.{key}={_toml(value)}'" for key, value in wanted.items())
    return UserError(
        "[method] is not as the adapter that it is to go on with",
        why=f"of the adapter {'; '.join(told)}; of the recipe {', '.join(asked)}",
        do=f"add {sets}",
        where=str(adapter.folder / PEFT_CONFIG),
        code=ExitCode.BAD_RECIPE,
    )


def _shown(value: Any) -> str:
    return (
        some_of([str(one) for one in value]) or "none" if isinstance(value, tuple) else str(value)
    )


def _toml(value: Any) -> str:
    """As a recipe has it; a table of names with numbers is made of pairs."""
    if isinstance(value, tuple) and any(isinstance(one, tuple) for one in value):
        return "{ " + ", ".join(f"{name} = {number}" for name, number in value) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)


def refusal(what: str, why: str, do: str, where: Path) -> UserError:
    """Of an adapter that does not go with the recipe."""
    return UserError(what, why=why, do=do, where=str(where), code=ExitCode.BAD_RECIPE)
