"""What would make a plan fit: every way that is told works in the estimate, and no less would."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import model
from plans import changed, made

from advisor.choice import fit, ladder
from advisor.choice.devices import Batch
from advisor.choice.unlock import unlocks
from advisor.cost import memory
from advisor.registry.lookup import preset_of
from advisor.registry.low_rank import ALL_TARGETS
from profiles.facts import GIB, GpuProcess
from profiles.machines import planned

LORA = made("lora", seq_len=8192, rank=16, alpha=32, targets=ALL_TARGETS)
FULL = changed(LORA, method="full", rank=0, alpha=0, targets=(), seq_len=2048)


def nearest(name, box, plan):
    """The plan that does not fit."""
    found = fit.best(model(name), box, plan, Batch(rows=16))
    assert not found.fits
    return found


def ways(name, box, found):
    """By kind."""
    return {way.kind: way for way in unlocks(model(name), box, found)}


@pytest.mark.parametrize("free_gib", [18.5, 19, 20])
def test_rows_are_as_long_as_just_fits(free_gib):
    """Eight tokens more would not."""
    box = planned.plan_machine("RTX 4090")
    box = replace(box, gpus=(replace(box.gpus[0], vram_free_bytes=int(free_gib * GIB)),))
    found = nearest("llama-3.1-8b", box, LORA)

    longest = ways("llama-3.1-8b", box, found)["rows"].value

    def peak(seq_len):
        plan = replace(fit.smallest(found.plan, 16), seq_len=seq_len)
        return memory.estimate(model(), plan).high_bytes

    assert 64 <= longest < 8192
    assert peak(longest) <= found.budget_bytes < peak(longest + 8)


def test_no_second_gpu_is_told_where_no_machine_has_two():
    """A laptop and a Mac have one."""
    for text in ("RTX 4090 Laptop", "Apple M3 Max 36GB"):
        box = planned.plan_machine(text)
        assert "gpus" not in ways("qwen2.5-1.5b", box, nearest("qwen2.5-1.5b", box, FULL))


def test_no_length_is_told_where_the_weights_alone_are_too_much():
    """Shorter rows would not help."""
    box = planned.plan_machine("RTX 3070")

    assert "rows" not in ways("llama-3.1-8b", box, nearest("llama-3.1-8b", box, LORA))


def test_more_gpus_make_a_sharded_plan_fit():
    """Full fine-tuning of a 1B does not fit one 4090 at this length; the told number does."""
    box = planned.plan_machine("RTX 4090")
    found = nearest("qwen2.5-1.5b", box, FULL)

    more = ways("qwen2.5-1.5b", box, found)["gpus"].value
    larger = planned.plan_machine(f"{1 + more}x RTX 4090")

    assert fit.best(model("qwen2.5-1.5b"), larger, FULL, Batch(rows=16)).fits


def test_more_gpus_do_not_help_what_is_not_sharded():
    """GaLore needs whole gradient matrices."""
    box = planned.plan_machine("RTX 4090")
    plan = ladder.plans(preset_of("galore"), model(), LORA)[0]

    assert "gpus" not in ways("llama-3.1-8b", box, nearest("llama-3.1-8b", box, plan))


@pytest.mark.parametrize(("held_gib", "helps"), [(13, True), (4, False)])
def test_memory_that_somebody_holds_is_named_if_it_would_do(held_gib, helps):
    """13 GiB that alice holds on a 4090 are what LoRA lacks; on a card that is too small, not."""
    name = "llama-3.1-8b" if helps else "llama-3.1-70b"
    box = planned.plan_machine("RTX 4090")
    held = held_gib * GIB
    alice = GpuProcess(pid=1, name="python", user="alice", vram_bytes=held)
    gpu = box.gpus[0]
    gpu = replace(gpu, vram_free_bytes=gpu.vram_bytes - held, holders=(alice,))
    box = replace(box, gpus=(gpu,))

    found = ways(name, box, nearest(name, box, changed(LORA, seq_len=2048)))

    assert ("release" in found) == helps
    if helps:
        assert "alice holds" in found["release"].words


def test_whole_logits_are_told_to_be_chunked():
    """Logits of a vocabulary of 152k are what 8 GB lack."""
    box = planned.plan_machine("RTX 3070")
    found = nearest("qwen2.5-0.5b", box, changed(LORA, loss="full"))

    assert "loss" in ways("qwen2.5-0.5b", box, found)


def test_ram_is_what_offload_lacks():
    """The device has room."""
    box = planned.plan_machine("RTX 4090")
    found = nearest("llama-3.1-70b", box, changed(LORA, offload="parameters", seq_len=2048))

    way = ways("llama-3.1-70b", box, found)

    assert list(way) == ["ram"]
    assert way["ram"].value == found.host_bytes - box.ram_free_bytes > 0


def test_gpus_that_hold_a_plan_to_the_last_byte_are_enough():
    """And a byte less is too little."""
    name, box = "qwen2.5-1.5b", planned.plan_machine("RTX 4090")
    found = nearest(name, box, FULL)
    way = ways(name, box, found)["gpus"]
    count = found.plan.num_gpus + way.value
    plan = fit.smallest(found.plan, max(1, found.plan.effective_batch // count))
    needed = memory.estimate(model(name), ladder.spread(plan, count)[-1]).high_bytes

    exact = ways(name, box, replace(found, budget_bytes=needed))["gpus"]
    less = ways(name, box, replace(found, budget_bytes=needed - 1))["gpus"]

    assert exact.value == way.value < less.value
