"""Peak memory as lines: how much of what is free, when, and what of.

Decides how the moments and components of `advisor/cost/memory.py` are called for people.
"""

from __future__ import annotations

from advisor.choice.fit import Fit
from advisor.cost.memory import MemoryEstimate
from advisor.cost.moments import Moment
from profiles.quantities import bytes_text
from tui.plain import wrap
from tui.plain_bars import stacked
from tui.terminal import Symbols

MOMENTS = {
    "forward": "as the forward pass ends",
    "loss_forward": "while the loss is computed",
    "loss_backward": "in the loss's backward pass",
    # The backward pass meets the layers in reverse
    "first_layer_backward": "in the last layer, where the backward pass begins",
    "last_layer_backward": "in the first layer, where the backward pass ends",
    "embedding_backward": "while the embedding's gradient is made",
    "optimizer_step": "in the optimizer's step",
}
_COMPONENTS = {
    "optimizer": "optimizer states",
    "paged_states": "paged states",
    "context": "GPU context",
    "communication": "gathered, NCCL",
}
_PLACES = {
    "activation": "the activation function",
    "attention": "attention",
    "cast": "a cast",
    "down": "the experts' down_proj",
    "gate_up": "the experts' gate_up_proj",
    "gather": "the experts' copies of tokens",
    "layer_norm": "the norm",
    "mul": "the product of gate and up",
    "pow": "the norm's squares",
    "restore": "experts made whole from 4 bits",
    "router": "the router",
    "scale": "the adapter's scaling",
    "scores": "attention scores",
    "softmax": "the softmax",
    "weigh": "the sum over experts",
}
_ADAPTER = (".lora_A", ".lora_B")
_SAYS_NOTHING = frozenset({"loss", "embedding"})
"""Places that the moment's own words name already."""


def lines(fit: Fit, width: int, symbols: Symbols, *, on_gpu: bool) -> list[str]:
    """The bar by component at the winning moment, against what is free."""
    estimate, budget = fit.memory, fit.budget_bytes
    verdict = "it fits" if estimate.high_bytes <= budget else "it does NOT fit"
    span = f"{bytes_text(estimate.low_bytes)} to {bytes_text(estimate.high_bytes)}"
    head = f"memory at the peak: {span}, {bytes_text(budget)} free: {verdict}"
    when = f"it comes {when_and_where(estimate.peak)}"
    terms = sorted(estimate.terms, key=lambda term: term.num_bytes, reverse=True)
    parts = [(component(t.component, on_gpu=on_gpu), float(t.num_bytes)) for t in terms]
    rest = [
        ("margin", float(estimate.high_bytes - estimate.expected_bytes)),
        ("left", float(budget - estimate.high_bytes)),
    ]
    bar, *legend = stacked(parts, width, symbols, bytes_text, rest=rest)
    limit = _limit(estimate, budget, width)
    return [*wrap(head, width), *wrap(when, width, indent="  "), bar, *limit, *legend]


def _limit(estimate: MemoryEstimate, budget: int, width: int) -> list[str]:
    """Where free memory ends, below a bar that goes on."""
    if estimate.high_bytes <= budget:
        return []
    place = min(width - 1, round(width * budget / estimate.high_bytes))
    words = f"free memory ends here: {bytes_text(budget)}"
    if place + 2 + len(words) <= width:
        return [f"{' ' * place}^ {words}"]
    if len(words) < place:
        return [f"{words} ^".rjust(place + 1)]
    return [f"{' ' * place}^", *wrap(words, width)]


def component(name: str, *, on_gpu: bool = True) -> str:
    """A component in words."""
    if name == "context" and not on_gpu:
        return "process"
    return _COMPONENTS.get(name, name)


def when_and_where(moment: Moment) -> str:
    """Like "in the last layer, where the backward pass begins (computing down_proj again)"."""
    when = MOMENTS.get(moment.name, f"at the {moment.name.replace('_', ' ')}")
    place = moment.place
    if place in _SAYS_NOTHING:
        return when
    if place.startswith("norm."):
        return f"{when} (the final norm)"
    again = place.startswith("recomputed ")
    where = _operation(place.removeprefix("recomputed "))
    return f"{when} (computing {where} again)" if again else f"{when} ({where})"


def _operation(name: str) -> str:
    if name.endswith(_ADAPTER):
        return f"the adapter of {name.rpartition('.')[0]}"
    return _PLACES.get(name, name.replace("_", " ") if name.startswith("flat") else name)
