"""The sentences of the recommendation. Numbers come in, text goes out; nothing is decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.facts import GIB, Gpu, GpuProcess

if TYPE_CHECKING:
    from advisor.fit import Fit
    from advisor.tree import Leaf

RUNGS = {
    "full": "full fine-tuning",
    "full_8bit": "full, 8-bit AdamW",
    "lora": "LoRA",
    "qlora": "QLoRA 4-bit",
}
METHODS = {
    "adapter": "adapters",
    "p_tuning": "P-tuning",
    "bitfit": "BitFit",
    "prompt_tuning": "prompt tuning",
    "moe_upcycling": "sparse upcycling",
    "lora_experts": "LoRA experts",
}
LEARNING_RATE = {
    "lora": "documents: adapters 1e-4 to 5e-4",
    "qlora": "documents: adapters 1e-4 to 5e-4",
    "full": "documents: full fine-tuning 5e-6 to 2e-5",
}
DROPOUT = "costs a copy of every adapted input; raise to 0.1 if it over-fits"
TARGETS = "attention and MLP; more targets help more than a higher rank"
UNKNOWN_RATE = "this device's matmul rate is not known, so no tokens/s and no hours are predicted"


def gib(num_bytes: float) -> str:
    """Like "18.4 GiB", or MiB below one tenth of a GiB."""
    if num_bytes < GIB / 10:
        return f"{num_bytes / (1 << 20):.0f} MiB"
    return f"{num_bytes / GIB:.1f} GiB"


def need(fit: Fit) -> str:
    """Like "needs up to 141.0 GiB of 23.6 GiB free"."""
    return f"needs up to {gib(fit.memory.high_bytes)} of {gib(fit.budget_bytes)} free"


def rank(leaf: Leaf) -> str:
    """Why this rank."""
    if leaf.ranks is None:
        return "a heuristic: small adapters for a light change"
    low, high = leaf.ranks
    return f"documents: {low} to {high} here; a heuristic, not a measurement"


def does_not_fit(wanted: str, fit: Fit, taken: str) -> str:
    """The leaf does not fit; the next rung is taken."""
    return f"{RUNGS[wanted]} {need(fit)}; {RUNGS[taken]} is the next that fits"


def not_runnable(leaf: Leaf, taken: str) -> str:
    """The documents' method has no runner in this version."""
    names = " and ".join(METHODS.get(m, m) for m in leaf.methods if m in METHODS)
    return f"this version does not run {names} yet; {taken} is the nearest that it runs"


def nothing_fits(smallest: Fit) -> str:
    """Not one rung fits."""
    return f"nothing fits: even {RUNGS[smallest.plan.method]} {need(smallest)}; {unlock(smallest)}"


def why_not(rung: str, fit: Fit, chosen: str | None, leaf: Leaf) -> str:
    """One line on why a rung was not taken."""
    if not fit.fits:
        return need(fit)
    if chosen is None:
        return ""
    if rung in leaf.methods:
        return "the documents' second choice here"
    if rung.startswith("full") and chosen in ("lora", "qlora"):
        return "fits, but the tree puts value for money first"
    return {
        "full_8bit": "fits, but AdamW in full precision fits too",
        "qlora": "fits, but so do 16-bit weights",
    }.get(rung, "fits, but the tree asks for more capacity")


def unlock(fit: Fit) -> str:
    """What would make a rung fit."""
    missing = gib(fit.memory.high_bytes - fit.budget_bytes)
    largest = max(fit.memory.terms, key=lambda term: term.num_bytes)
    advice = {
        "activations": "shorter rows",
        "logits": "shorter rows",
        "workspace": "shorter rows",
        "context": "a GPU that is not shared",
    }.get(largest.component, "more or larger GPUs")
    share = f"{largest.component} take {gib(largest.num_bytes)}"
    return f"{missing} more per device: {advice} ({share})"


def truncation(longest: int, seq_len: int) -> str:
    """Rows are longer than what the model will see."""
    return f"rows of up to {longest} tokens are cut at {seq_len}"


def holder(gpu: Gpu, process: GpuProcess) -> str:
    """Somebody else uses the GPU."""
    return (
        f"GPU {gpu.index}: {gib(process.vram_bytes)} of {gib(gpu.vram_bytes)} are used by "
        f"{process.user} ({process.name} {process.pid})"
    )
