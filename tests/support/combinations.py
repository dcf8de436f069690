"""Combinations of all that a recipe can choose: every pair of two choices is in some of them."""

from __future__ import annotations

import random
import re
import tomllib
from itertools import combinations as pairs_of

import tomli_w

from advisor import recipe as recipes
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS
from advisor.registry.spec import keys_of
from profiles.errors import ExitCode, UserError

TOLD = re.compile(r"(?:line \d+: )?`([\w.]+)`: (.*)")
WAY_OUT = re.compile(
    r'(?:take|write) ([a-z_.]+) = ("\w+"|[\w.]+)(?: and ([a-z_.]+) = ("\w+"|[\w.]+))?'
)
MOST_REFUSALS = 10
"""On the way from a recipe to one that runs."""
EACH = 40
"""Combinations with each variant of a method."""
TOGETHER = {
    "freeze": [{"frozen_layers": 2, "layers": [1]}],
    "lora": [
        {"modules_to_save": ["embed_tokens", "lm_head"], "bias": "all"},
        {"modules_to_save": ["norms"], "layers": "last 1"},
        {"bias": "all", "layers": [0]},
        {"dora": True, "init": "pissa"},
        {"dora": True, "freeze_a": True, "dropout": 0.1},
        {"init": "olora", "b_rate": 16.0, "rslora": True},
        {"targets": ["experts"], "dropout": 0.1},
        {"targets": ["q_proj", "experts"]},
    ],
    "qlora": [
        {"bits": 8, "dora": True},
        {"bits": 8, "init": "pissa", "dora": True},
        {"bits": 8, "freeze_a": True},
    ],
    "adalora": [{"init_rank": 4, "target_rank": 8}, {"tinit": 1.0, "tfinal": 1.0, "delta_t": 1.0}],
}
"""Beside each value of each setting alone: settings that bear on each other."""


def variants():
    """(method, settings) of each method: as it is, and with each value of each of its settings."""
    found = []
    for method in METHODS:
        found.append((method.name, {}))
        for name, (field, about) in keys_of(method.settings).items():
            found += [(method.name, {name: value}) for value in _others(name, field, about)]
        found += [(method.name, settings) for settings in TOGETHER.get(method.name, [])]
    return found


def _others(name, field, about):
    others = [choice for choice in about.choices if choice != field.default]
    others += ["last 1"] if about.layers else []
    others += [{"k_proj": 4}] if about.table else []
    others += [["k_proj"]] if about.names else []
    if others:
        return others
    if isinstance(field.default, str):
        return ["count to"]
    least = about.ge if about.ge is not None else 0
    return [0.1] if about.lt == 1 else [type(field.default)(max(least, field.default // 2))]


DIMENSIONS = {
    "method": variants(),
    "optimizer": OPTIMIZERS.names(),
    "task": TASKS.names(),
    "strategy": ENGINES.names(),
    "packing": (False, True),
    "checkpointing": (False, True),
    "precision": ("bf16", "fp16", "bf16_pure", "fp32"),
    "loss": ("chunked", "full"),
    "batch": ((2, 1), (1, 2)),
    "scheduler": ("cosine", "constant", "plateau"),
    "new_tokens": ((), ("<a>", "<b>")),
    "label_smoothing": (0.0, 0.1),
    "shifted_attention": (False, True),
}
"""Name -> choices; a batch is rows, and micro-batches of a step."""


def drawn(seed=0):
    """Combinations, always the same: each goes through its choices beside each method's variant."""
    chance = random.Random(seed)  # noqa: S311  # nothing is kept secret
    found = []
    for variant in DIMENSIONS["method"]:
        columns = {}
        for name, choices in DIMENSIONS.items():
            column = [choices[n % len(choices)] for n in range(EACH)]
            chance.shuffle(column)
            columns[name] = column
        columns["method"] = [variant] * EACH
        found += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return found


def missing_pairs(found):
    """Pairs of choices of two dimensions that stand together in none."""
    missing = []
    for one, other in pairs_of(DIMENSIONS, 2):
        seen = {(repr(each[one]), repr(each[other])) for each in found}
        wanted = {(repr(a), repr(b)) for a in DIMENSIONS[one] for b in DIMENSIONS[other]}
        missing += wanted - seen
    return missing


def recipe_of(chosen, *, model="m", data="d.jsonl", more=None):
    """The text of a recipe; `more`: keys of [train] beside."""
    method, settings = chosen["method"]
    several = ENGINES[chosen["strategy"]].several
    rows, accumulation = chosen["batch"]
    tokens, smoothing = chosen["new_tokens"], chosen["label_smoothing"]
    content = {
        "schema": 1,
        "name": "a",
        "task": chosen["task"],
        "model": {"id": str(model)} | ({"new_tokens": list(tokens)} if tokens else {}),
        "data": {"train": str(data), "max_length": 96, "packing": chosen["packing"]},
        "method": {"name": method} | settings,
        "train": {
            "optimizer": chosen["optimizer"],
            "micro_batch": rows,
            "accumulation": accumulation,
            "checkpointing": chosen["checkpointing"],
            "precision": chosen["precision"],
            "loss": chosen["loss"],
            "scheduler": chosen["scheduler"],
            "shifted_attention": chosen["shifted_attention"],
        }
        | (more or {}),
        "objective": {"label_smoothing": smoothing} if smoothing else {},
        "hardware": {"strategy": chosen["strategy"], "gpus": 2 if several else 1},
    }
    return tomli_w.dumps(content)


def without(text, key):
    """The recipe with a dotted key left out."""
    content = tomllib.loads(text)
    *tables, name = key.split(".")
    table = content
    for one in tables:
        table = table[one]
    del table[name]
    return tomli_w.dumps(content)


def has(text, key):
    """Whether a dotted key stands in it."""
    place = tomllib.loads(text)
    for name in key.split("."):
        if not isinstance(place, dict) or name not in place:
            return False
        place = place[name]
    return True


def mistakes_of(text, changes):
    """[(key, why)] of a recipe; none if it is sound."""
    try:
        recipes.with_changes(text, changes, where="r")
    except UserError as error:
        told = error
    else:
        return []
    assert told.code == ExitCode.BAD_RECIPE
    return [TOLD.fullmatch(line).groups() for line in told.why.splitlines()]


def following(text, changes, key, why):
    """The recipe as the way out has it, with `--set` or with a line taken out."""
    if "leave it out" in why:
        return without(text, key), {k: v for k, v in changes.items() if k != key}
    way = WAY_OUT.search(why)
    assert way, f"`{key}`: {why}"
    first, value, second, other = way.groups()
    assert first.split(".")[0] == key.split(".")[0], f"told at `{key}`: {why}"
    return text, changes | {first: value} | ({second: other} if second else {})


def led_to(text):
    """The sound recipe that the ways out lead to."""
    changes, seen = {}, []
    while mistakes := mistakes_of(text, changes):
        for key, why in mistakes:
            assert key in changes or has(text, key), f"no `{key}` is there: {why}"
            following(text, changes, key, why)
        assert mistakes[0] not in seen, seen
        seen.append(mistakes[0])
        assert len(seen) <= MOST_REFUSALS, seen
        text, changes = following(text, changes, *mistakes[0])
    return recipes.with_changes(text, changes, where="r")
