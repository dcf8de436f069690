"""A model from a local folder: its config.json and the headers of its weight files.

Decides which numbers are measured where there are weights, and what may stand in for them where
there are none. A model stored already quantized is refused: training starts from 16-bit weights.
The hub is never asked here. Knows nothing of methods or machines.
"""

from __future__ import annotations

import difflib
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from profiles.facts import Model, Origin
from profiles.models import catalog
from profiles.models.dimensions import declared_dtype, from_config, is_wrapped
from profiles.models.families import has_class
from profiles.models.parameters import count_params, text_params
from profiles.models.safe_config import (
    MAX_CONFIG_BYTES,
    bad_file,
    read_config,
    read_json,
    refuse_side_files,
)
from profiles.models.safetensors_header import Measured, measure, read_header, weight_files

__all__ = [
    "CONFIG_NAME",
    "HUB_ID",
    "RUN",
    "count_params",
    "from_folder",
    "measured",
    "near_folders",
    "predicted",
    "refuse_quantized",
]

CONFIG_NAME: Final = "config.json"
ADAPTER_NAME: Final = "adapter_config.json"
MAX_TOKENIZER_BYTES: Final = 100_000_000
"""Three times the largest in use, Gemma's."""
TEMPLATE_NAME: Final = "chat_template.jinja"
TEMPLATES_NAME: Final = "additional_chat_templates"
MAX_TEMPLATE_BYTES: Final = 1_000_000
RUN: Final = "run:"
"""Before the id of a run, in place of a folder."""
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_QUANTIZED_NAME: Final = re.compile(
    r"[\-_.](gptq|awq|bnb|4bit|8bit|int4|int8|fp8|nf4|mxfp4|nvfp4|gguf|quantized|w4a16|w8a8)\b.*",
    re.IGNORECASE,
)


def from_folder(path: str | Path) -> Model:
    """Facts of the model in a local folder; raises UserError for what cannot be used."""
    folder = Path(path).expanduser()
    if not os.path.isdir(folder):  # noqa: PTH112  # raises nothing, whatever the name
        raise _no_such_folder(str(path), folder)
    where = folder / CONFIG_NAME
    _refuse_lone_adapter(folder)
    config = read_config(where, has_class)
    refuse_side_files(folder)
    _refuse_adapter(folder)
    _refuse_giants(folder)
    resolved = folder.resolve()
    refuse_quantized(config, resolved.name, str(where))
    model = replace(
        from_config(config, name=resolved.name, where=str(where)),
        path=str(resolved),
        has_chat_template=_has_chat_template(folder),
    )
    shards = weight_files(folder)
    if not shards:
        return predicted(model, config, str(where))
    found = measure(
        [(shard.name, read_header(shard)) for shard in shards],
        tied=model.tied_embeddings,
        num_layers=model.num_layers,
        wrapped=is_wrapped(config),
    )
    return replace(
        measured(model, found, config, str(where)),
        weight_bytes=sum(shard.stat().st_size for shard in shards),
    )


def measured(model: Model, found: Measured, config: dict[str, Any], where: str) -> Model:
    """The model with the counts of its weight files; UserError if those are another model's."""
    if not model.untrainable:
        _refuse_misfits(model, found, where)
    rest = found.num_params - found.tower_params - text_params(model)
    return replace(
        model,
        num_params=found.num_params,
        vision_params=found.tower_params,
        other_params=rest if model.unmodelled else model.other_params,
        params_origin=Origin.MEASURED,
        dtype=declared_dtype(config) or found.dtype,
    )


def _refuse_misfits(model: Model, found: Measured, where: str) -> None:
    """Tables of another length than config.json says are refused by libraries, but late."""
    tables = {
        "words": (found.num_words, model.vocab_size),
        "positions": (found.num_positions if model.num_positions else 0, model.num_positions),
    }
    for name, (rows, said) in tables.items():
        if rows and rows != said:
            raise bad_file(
                f"the weights of {model.id} do not fit its config.json",
                where,
                why=f"they hold a table of {rows} {name}, and config.json makes it {said}",
                do="fetch config.json and the weights again, both from one place",
            )


def predicted(model: Model, config: dict[str, Any], where: str) -> Model:
    """The model without weight files: counted, or with the totals of its like in the catalog."""
    if not model.unmodelled and not is_wrapped(config):
        return model
    known = catalog.twin(model)
    if known is not None:
        return replace(
            model,
            num_params=known.num_params,
            vision_params=known.vision_params,
            other_params=known.other_params,
            params_origin=Origin.TABLE,
        )
    raise bad_file(
        f"the parameters of this {model.model_type} model cannot be counted from config.json",
        where,
        why=model.unmodelled or "the sizes of its towers for images or sound do not stand there",
        do="put its safetensors files there too (only their headers are read)",
    )


def refuse_quantized(config: dict[str, Any], name: str, where: str) -> None:
    """Raise UserError for weights that are stored in 8 or 4 bits."""
    quantized = config.get("quantization_config")
    if not quantized:
        return
    said = quantized.get("quant_method") if isinstance(quantized, dict) else None
    kind = f" ({said})" if isinstance(said, str) else ""
    raise bad_file(
        f"this {config['model_type']} model is stored already quantized{kind}",
        where,
        why="memory is estimated for, and training starts from, the original 16-bit weights",
        do=_original_of(name),
    )


def _original_of(name: str) -> str:
    """What to use in place of a quantized model; names from the catalog where one is near."""
    base = _QUANTIZED_NAME.sub("", name.rpartition("/")[2])
    likely = [known for known in catalog.near(base, 8) if _same_name(known, base)]
    whole = [known for known in likely if "bf16" in known.lower()] or likely
    if base != name.rpartition("/")[2] and whole:
        return f"use the original: {whole[0]}"
    if whole and "bf16" in whole[0].lower():
        return f"use a copy in bfloat16: {whole[0]}"
    return "use the weights it was made from, or a copy of it in bfloat16; its page names them"


def _same_name(known: str, base: str) -> bool:
    """The id is this name, whoever published it, bar a mark for its type."""
    bare = known.rpartition("/")[2].lower()
    return bare.removesuffix("-bf16") == base.lower()


def _no_such_folder(text: str, folder: Path) -> UserError:
    near = near_folders(folder)
    if HUB_ID.fullmatch(text) and not near:
        name = text.rpartition("/")[2]
        why = "it looks like a model on the hub; weights are read from a local folder"
        do = f"download it first: hf download {text} --local-dir {name}"
    else:
        parent = folder.parent
        why = f"near names there: {', '.join(near)}" if near else f"nothing like it in {parent}"
        do = f"use {parent / near[0]}" if near else "give a folder that holds config.json"
    if os.path.lexists(folder):
        why, do = "it is no folder", "give a folder that holds config.json"
        if os.path.isfile(folder.parent / CONFIG_NAME):  # noqa: PTH113  # raises nothing
            do = f"give the folder that holds it: {folder.parent}"
    return UserError(
        f"no model folder {text!r}", why=why, do=do, where=str(folder), code=ExitCode.NO_INPUT
    )


def near_folders(folder: Path) -> list[str]:
    """Folders with a model, beside a missing one, whose names are like its name."""
    parent = folder.parent
    siblings = []
    with suppress(OSError):  # not there, or not ours to look into
        siblings = [p.name for p in parent.iterdir() if os.path.isfile(p / CONFIG_NAME)]  # noqa: PTH113
    return difflib.get_close_matches(folder.name, siblings, n=3)


def _refuse_adapter(folder: Path) -> None:
    """An adapter that lies beside the weights would be put onto them, unasked."""
    if (folder / ADAPTER_NAME).exists():
        raise UserError(
            "the model folder holds an adapter too",
            why="it would be loaded with the model, and nothing here has looked at it",
            do=f"move {ADAPTER_NAME} away to train the model alone, or merge the adapter first",
            where=str(folder / ADAPTER_NAME),
            code=ExitCode.REFUSED,
        )


def _refuse_lone_adapter(folder: Path) -> None:
    """What training with an adapter leaves is no model, and names the one that it belongs to."""
    adapter = folder / ADAPTER_NAME
    if os.path.lexists(folder / CONFIG_NAME) or not adapter.is_file():
        return
    said = read_json(adapter, MAX_CONFIG_BYTES).get("base_model_name_or_path")
    base = printable(said, 200) if isinstance(said, str) and said else ""
    raise UserError(
        f"{folder.name} is an adapter, not a model",
        why=f"it was trained on {base}" if base else f"{ADAPTER_NAME} does not say of which model",
        do=f"give that model: {base}" if base else "give the folder of the model it belongs to",
        where=str(adapter),
        code=ExitCode.NO_INPUT,
    )


def _refuse_giants(folder: Path) -> None:
    """Raise UserError for a tokenizer or template of a size that only serves to fill the memory."""
    most = {"tokenizer.json": MAX_TOKENIZER_BYTES, TEMPLATE_NAME: MAX_TEMPLATE_BYTES}
    for path, limit in ((folder / name, limit) for name, limit in most.items()):
        if path.is_file() and path.stat().st_size > limit:
            raise bad_file(
                f"{path.name} is not usable",
                path,
                why=f"it is over {limit} bytes",
                do="fetch the file again",
            )


def _has_chat_template(folder: Path) -> bool | None:
    """Whether the tokenizer brings one; None where there is no tokenizer to speak for it."""
    if chat_templates(folder):
        return True
    names = ("tokenizer_config.json", "tokenizer.json")
    return False if any((folder / name).is_file() for name in names) else None


def chat_templates(folder: Path) -> list[str]:
    """Every chat template of a model folder, wherever a library would look for one."""
    files = [
        folder / TEMPLATE_NAME,
        *sorted((folder / TEMPLATES_NAME).glob("*.jinja")),
    ]
    found: list[Any] = [_template_text(path) for path in files if path.is_file()]
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        path = folder / name
        value = read_json(path, MAX_CONFIG_BYTES).get("chat_template") if path.is_file() else None
        named = value if isinstance(value, list) else [value]
        found += [one.get("template") if isinstance(one, dict) else one for one in named]
    return [text for text in found if isinstance(text, str) and text]


def _template_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
