"""The sentences of the recommendation. Numbers come in, text goes out; nothing is decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.registry.lookup import preset_of
from profiles.facts import GIB, Gpu, GpuProcess, Model, TokenStats

if TYPE_CHECKING:
    from advisor.choice.devices import Batch
    from advisor.choice.fit import Fit
    from advisor.choice.tree import Leaf

IGNORED_CODE: Final = (
    "config.json names code of its own (auto_map), which is ignored: transformers' class is used"
)
UNKNOWN_RATE: Final = (
    "this device's matmul rate is not known, so no tokens/s and no hours are predicted"
)


def title(rung: str) -> str:
    """A rung in words."""
    return preset_of(rung).title


def gib(num_bytes: float) -> str:
    """Like "18.4 GiB", or MiB below one tenth of a GiB."""
    if num_bytes < GIB / 10:
        return f"{num_bytes / (1 << 20):.0f} MiB"
    return f"{num_bytes / GIB:.1f} GiB"


def need(fit: Fit) -> str:
    """Like "needs up to 141.0 GiB of 23.6 GiB free", and what else is short beside the device."""
    of_device = f"needs up to {gib(fit.memory.high_bytes)} of {gib(fit.budget_bytes)} free"
    if beside := host_need(fit):
        return f"{of_device}, and {beside}" if fit.short_bytes else beside
    return of_device


def host_need(fit: Fit) -> str:
    """What RAM and disk lack, like "needs 141.0 GiB of RAM of 64.0 GiB free"; empty if nothing."""
    found = []
    if fit.short_ram_bytes:
        found.append(f"needs {gib(fit.host_bytes)} of RAM of {gib(fit.host_budget_bytes)} free")
    if fit.short_disk_bytes:
        free = gib(fit.disk_budget_bytes)
        found.append(f"writes {gib(fit.disk_bytes)} to a disk with {free} free")
    return ", and ".join(found)


def not_the_leaf(wanted: str, reason: str, taken: str | None) -> str:
    """The leaf cannot be; the next rung is taken, or nothing is left."""
    rest = f"{title(taken)} is the next that fits" if taken else "nothing else fits"
    return f"{title(wanted)}: {reason}; {rest}"


def nothing_fits(rung: str, reason: str, unlock: str) -> str:
    """Not one rung fits."""
    return f"nothing fits: even {title(rung)} {reason}; {unlock}"


def nearest_runs(wanted: str, taken: str) -> str:
    """What is recommended has no runner in this version."""
    if wanted == taken:
        return f"this version does not run {title(wanted)} in that way yet; this way it does"
    return f"this version does not run {title(wanted)} yet; {title(taken)} is the nearest it runs"


def above(rung: str, reason: str, unlock: str) -> str:
    """Why not the rung above, and what would make it possible."""
    return f"not {title(rung)}: it {reason}" + (f"; {unlock}" if unlock else "")


def why_not(rung: str, chosen: str | None, leaf: Leaf, *, full_fits: bool) -> str:
    """One line on why a rung that is possible was not taken."""
    if chosen is None:
        return ""
    if leaf.domain and preset_of(rung).place in {"ladder", "row"}:
        return f"fits, but the documents take another for {leaf.domain.title}"
    if rung in (*leaf.methods, *leaf.lighter):
        return "the documents' other choice here"
    if preset_of(leaf.methods[0]).changes_model:
        return "fits, but one set of weights would learn all tasks"
    if rung == "full_8bit" and not full_fits:
        return "fits, but the tree asks for it only if the task is critical"
    is_dearer = rung == "full" and chosen not in {"full", "full_8bit"}
    return "fits, but the tree puts value for money first" if is_dearer else preset_of(rung).why_not


def more_memory(fit: Fit) -> str:
    """How much is missing on each device and what takes the most there; what else is missing."""
    largest = max(fit.memory.terms, key=lambda term: term.num_bytes)
    most = f"{largest.component} take {gib(largest.num_bytes)}"
    of_device = [f"{gib(fit.short_bytes)} more per device ({most})"] if fit.short_bytes else []
    return " and ".join([*of_device, *more_host(fit)])


def more_host(fit: Fit) -> list[str]:
    """How much RAM and disk are missing."""
    short = ((fit.short_ram_bytes, "RAM"), (fit.short_disk_bytes, "disk"))
    return [f"{gib(missing)} more {what}" for missing, what in short if missing]


def fewer_processes(fit: Fit) -> str:
    """So many GPUs alone: each process has a copy in RAM."""
    of = "one GPU" if fit.plan.num_gpus == 1 else f"{fit.plan.num_gpus} of the GPUs"
    return f"{of} alone ({gib(fit.host_bytes)} of RAM)"


def stored_as(dtype: str, fit: Fit) -> str:
    """Weights that are mapped, because the files have them in the type that is trained with."""
    return f"weights stored as {dtype}, which load without a copy ({gib(fit.host_bytes)} of RAM)"


def another_engine(fit: Fit) -> str:
    """One that reads the weights once for all processes."""
    return f"{fit.plan.engine.title} ({gib(fit.host_bytes)} of RAM)"


def shorter_rows(seq_len: int) -> str:
    """The length that fits."""
    return f"rows of at most {seq_len} tokens"


def more_gpus(gpu: Gpu, more: int, strategy: str) -> str:
    """Further GPUs of the same kind."""
    count = "one more" if more == 1 else f"{more} more"
    return f"{count} {gpu.name} ({strategy})"


def released(processes: list[GpuProcess]) -> str:
    """Memory that others hold."""
    held = sum(process.vram_bytes for process in processes)
    users = sorted({process.user for process in processes})
    return f"the {gib(held)} that {' and '.join(users)} hold{'s' * (len(users) == 1)}"


def truncation(tokens: TokenStats, seq_len: int) -> str:
    """Rows are longer than what the model will see; empty if none is cut or left out."""
    told = tokens.at(seq_len).losses(f"max_length {seq_len}")
    return f"{told} (the longest has {tokens.max} tokens)" if told else ""


def holder(gpu: Gpu, process: GpuProcess) -> str:
    """Somebody else uses the GPU."""
    return (
        f"GPU {gpu.index}: {gib(process.vram_bytes)} of {gib(gpu.vram_bytes)} are used by "
        f"{process.user} ({process.name} {process.pid})"
    )


def batch_not_kept(batch: Batch, fit: Fit) -> str:
    """The wanted batch does not divide over the GPUs that are needed."""
    return (
        f"the effective batch is {fit.plan.effective_batch} rows, not {batch.rows}: "
        f"those do not divide over the {fit.plan.num_gpus} GPUs that it takes"
    )


def idle_gpus(used: int, there: int, batch: Batch, short_ram: str = "") -> str:
    """Not all GPUs take part; `short_ram`: what all would need of RAM and is not there."""
    if short_ram:
        why = f"a process for each of them {short_ram}"
    elif batch.asked and batch.rows % there:
        why = f"a batch of {batch.rows} rows does not divide over {there}"
    else:
        why = "the others have too little free memory, or the link costs more than they bring"
    return f"{used} of {there} GPUs are used: {why}"


def untold_type(needed: int, free: int) -> str:
    """A model that is not here may have its weights in another type than was taken for granted."""
    return (
        f"the weights are taken to be stored as bfloat16; from files of another type loading takes "
        f"{gib(needed)} of RAM, {gib(free)} are free"
    )


def few_checkpoints(kept: int) -> str:
    """Fewer checkpoints than usual are kept."""
    return f"the disk has room for {kept} checkpoints only"


def untrainable(model: Model) -> str:
    """No run can train it, so the plan is for another program."""
    return f"{model.id} can be planned with, but not trained here: {model.untrainable}"


def gated(model: str) -> str:
    """The weights are behind a licence."""
    return f"{model} is gated: its licence must be accepted on the hub before its weights load"
