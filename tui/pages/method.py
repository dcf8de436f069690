"""One method in full: what it does to a model, its keys, and what does not go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from advisor.registry.lookup import hands_to, is_ready
from advisor.registry.spec import keys_of
from profiles.quantities import bytes_text
from tui.pages import method_facts
from tui.plain import facts, table

if TYPE_CHECKING:
    from advisor.registry.spec import Key, MethodSpec

_COMPUTED: Final = (
    f"as computed: one row of {method_facts.SEQ_LEN} tokens, activations recomputed where it can"
)


def lines(spec: MethodSpec, width: int) -> list[str]:
    """Facts, keys and conflicts."""
    found = facts(_facts(spec), width)
    if keys := keys_of(spec.settings):
        told = _reasons(spec)
        rows = [
            (name, _word(field.default), _meaning(key, told.get(name.replace("_", " "), "")))
            for name, (field, key) in keys.items()
        ]
        found += ["", "[method] keys, with defaults", *table(rows, indent="  ", width=width)]
    if bars := list(method_facts.conflicts(spec)):
        found += ["", "does not go with", *table(bars, indent="  ", width=width)]
    return found


def _facts(spec: MethodSpec) -> list[tuple[str, str]]:
    needs = f"; needs {', '.join(spec.needs)}" if spec.needs else ""
    not_yet = "not yet: this version estimates it and cannot start it"
    pairs = [
        ("method", f"{spec.name}: {spec.title}"),
        ("family", spec.family),
        ("runs", f"yes{needs}" if is_ready(spec) else not_yet),
    ]
    if found := method_facts.figures(spec):
        of = f"{method_facts.count(found.trained)} weights of {found.model.id}, {found.percent}"
        low, peak, high = map(bytes_text, (found.low_bytes, found.peak_bytes, found.high_bytes))
        pairs += [
            ("trains", of),
            ("publishes", bytes_text(found.published_bytes)),
            ("memory", f"{peak} ({low} to {high}) at the peak, {_COMPUTED}"),
        ]
        rate = spec.rate(found.model, spec.settings())
        pairs.append(("rate", f"{rate.value:g}: {rate.reason}"))
    if spec.quoted:
        quoted = f"{spec.quoted.quality} of full fine-tuning; memory {spec.quoted.memory} of its"
        pairs.append(("quoted", f"quality {quoted} (documents, rules of thumb)"))
    pairs.append(("hands to", _handed(spec)))
    return pairs


def _handed(spec: MethodSpec) -> str:
    """What takes the result, and in which way."""
    taken = hands_to(spec)
    if "model" in taken:
        return "a whole model: transformers, and vLLM and llama.cpp (GGUF) where they know it"
    words = ", ".join(one for one in taken if one in spec.takers)
    if "merged" not in taken:
        return f"{words}; cannot be merged, so neither vLLM nor GGUF" if taken else ""
    if "vLLM" in spec.takers:
        words += " (vLLM: not with DoRA, nor with widths that differ, unless merged)"
    return f"{words}; once merged, vLLM and GGUF"


def _reasons(spec: MethodSpec) -> dict[str, str]:
    """Key -> why its default is so, as recommendations say it."""
    found = method_facts.figures(spec)
    shown = spec.shows(spec.settings(), found.model) if found else ()
    return {one.name: one.reason for one in shown}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _meaning(key: Key, reason: str) -> str:
    parts = [key.doc, _range(key)]
    return "; ".join(filter(None, [*parts, reason]))


def _range(key: Key) -> str:
    """The values that it takes."""
    if key.choices == (False, True):
        return ""
    found = [" or ".join(_word(one) for one in key.choices)] if key.choices else []
    found += ["names"] if key.names else []
    found += ['"last N" or numbers'] if key.layers else []
    if key.le is not None and key.ge is not None:
        found.append(f"{key.ge:g} to {key.le:g}")
    elif key.ge is not None:
        found.append(f"at least {key.ge:g}" + (f", below {key.lt:g}" if key.lt else ""))
    if key.not_yet:
        found.append(f"not yet: {', '.join(map(_word, key.not_yet))}")
    return "; ".join(found)
