"""RAM and disk rule out like device memory: what they need, what is taken instead, what helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import model
from plans import changed, made

from advisor.choice import fit, storage, words
from advisor.choice.answers import Answer, Answers
from advisor.choice.devices import Batch
from advisor.choice.recommend import recommend
from advisor.choice.unlock import unlocks
from advisor.registry.low_rank import ALL_TARGETS
from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Origin
from profiles.machines.planned import plan_machine
from runner.checks import host_checks
from tui.pages import recommendation as page
from tui.terminal import Symbols

BIG = model("llama-3.1-70b")
LORA = made("lora", seq_len=2048, rank=1, alpha=2, targets=ALL_TARGETS, checkpointing=True)
FULL = changed(LORA, method="full", rank=0, alpha=0, targets=())
PROCESS = int(0.8 * GIB)
SIXTEEN = Batch(rows=16)
CRITICAL = Answers(critical=Answer(True, Origin.USER))


def over(plan, num_gpus, engine="fsdp"):
    """The plan on so many GPUs."""
    return changed(plan, num_gpus=num_gpus, strategy=engine)


def ram(base, plan):
    """Beside the processes themselves, in units of one 16-bit copy of all weights."""
    beside = storage.host(base, plan).ram_bytes - plan.num_gpus * PROCESS
    return beside / (2 * base.num_params)


@pytest.mark.parametrize(
    ("base", "plan", "copies"),
    [
        (BIG, over(LORA, 8), 0),
        (replace(BIG, dtype="float16"), over(LORA, 8), 8),
        (replace(BIG, dtype="float16"), changed(over(LORA, 8), precision="fp16"), 0),
        (BIG, over(FULL, 8), 16),
        (replace(BIG, dtype="float32"), over(FULL, 8), 4),  # the states, gathered to be saved
        (BIG, changed(over(FULL, 8), precision="bf16_pure"), 2),
        (BIG, over(FULL, 8, "zero3"), 4),
        (BIG, changed(LORA, method="qlora"), 0),
        (model("mixtral-8x7b"), over(LORA, 2), 2 * 0.966),
    ],
)
def test_only_weights_that_are_copied_take_ram(base, plan, copies):
    """Those that are taken as the files have them are mapped, once for all processes.

    70B in bf16 and eight processes: LoRA copies nothing, in fp16 files everything, eight times;
    full fine-tuning makes fp32 of it. Of Mixtral 96.6 % are experts, which are put together.
    """
    assert ram(base, plan) == pytest.approx(copies, abs=0.02)


def test_without_a_gpu_the_ram_is_the_device_s_memory():
    """And told as that."""
    on_cpu = replace(LORA, framework=replace(LORA.framework, on_cpu=True))

    assert storage.host(BIG, on_cpu).ram_bytes == 0


def test_what_is_kept_in_ram_while_training_counts_there():
    """Adam's two fp32 moments, beside the process."""
    offloaded = changed(FULL, offload="optimizer", strategy="zero2")

    assert storage.host(model(), offloaded).ram_bytes == 8 * model().num_params + PROCESS


def first_lines(found, count=6):
    """As a person reads them, on one line."""
    return " ".join(" ".join(page.lines(found, 100, Symbols.ASCII)[:count]).split())


def test_a_rung_that_the_ram_rules_out_is_left_with_the_reason_in_the_first_lines():
    """Mixtral's experts are copied by each of eight processes: 679 GiB. QLoRA reads them narrow."""
    base = model("mixtral-8x7b")
    rich = recommend(base, plan_machine("8x H100", ram="1T"), None, Answers())
    poor = recommend(base, plan_machine("8x H100", ram="200G"), None, Answers())

    assert (rich.rung, poor.rung) == ("lora", "qlora")
    assert poor.fit.plan.num_gpus == 8
    assert "not LoRA: needs 678" in first_lines(poor)
    assert "of RAM of 200.0 GiB free; would fit with 2 of the GPUs alone" in first_lines(poor)
    assert rich.fit.fits


def test_a_rung_that_the_disk_rules_out_is_left_with_the_reason_in_the_first_lines():
    """On planned machines as on the one that is here."""
    rich = recommend(model(), plan_machine("8x H100", disk="1T"), None, CRITICAL)
    poor = recommend(model(), plan_machine("8x H100", disk="100G"), None, CRITICAL)

    assert (rich.rung, poor.rung) == ("full", "lora")
    assert "to a disk with 100.0 GiB free; would fit with" in first_lines(poor)
    assert not next(row for row in poor.alternatives if row.rung == "full").possible


@pytest.mark.parametrize(("gib", "num_gpus"), [(250, 8), (128, 4), (130, 4), (100, None)])
def test_fewer_processes_are_taken_where_most_gpus_still_work(gib, num_gpus):
    """Each copies 30 GiB of fp32 weights. On less than half of the GPUs a lighter rung is next."""
    found = fit.best(model(), plan_machine("8x H100", ram=f"{gib}G"), FULL, SIXTEEN)

    assert (found.plan.num_gpus if found.fits else None) == num_gpus


def test_idle_gpus_are_told_with_the_ram_that_they_lack():
    """Not with a link that would cost too much."""
    found = recommend(model(), plan_machine("8x H100", ram="128G"), None, CRITICAL)

    assert (found.rung, found.fit.plan.num_gpus) == ("full", 4)
    told = "4 of 8 GPUs are used: a process for each of them needs 245"
    assert any(warning.startswith(told) for warning in found.warnings)


def ways_of(base, box, plan, **wanted):
    """What helps the nearest plan, by kind, and the plan."""
    found = fit.judge(base, box, plan, **wanted)
    assert not found.fits
    return found, {way.kind: way for way in unlocks(base, box, found)}


def test_every_way_to_less_ram_works_by_its_numbers():
    """fp16 files of 70B for eight processes: as bf16, with three processes, or with more RAM."""
    base, box = replace(BIG, dtype="float16"), plan_machine("8x H100", ram="480G")
    found, ways = ways_of(base, box, over(LORA, 8))

    assert list(ways) == ["stored", "processes", "ram"]
    stored = fit.judge(replace(base, dtype="bfloat16"), box, over(LORA, 8))
    assert (stored.fits, stored.host_bytes) == (True, ways["stored"].value)
    least = fit.smallest(found.plan, 16)
    fits = [n for n in range(1, 9) if fit.judge(base, box, over(least, n)).fits]
    assert ways["processes"].value == max(fits) == 3
    more = replace(box, ram_free_bytes=box.ram_free_bytes + ways["ram"].value)
    assert fit.judge(base, more, found.plan).fits
    less = replace(more, ram_free_bytes=more.ram_free_bytes - 1)
    assert not fit.judge(base, less, found.plan).fits


def test_the_most_processes_that_the_ram_holds_are_told():
    """Each of an 8B in fp16 files takes 15 GiB and its own 0.8: six of them 95, seven 110."""
    base, box = replace(model(), dtype="float16"), plan_machine("8x H100", ram="100G")

    assert ways_of(base, box, over(LORA, 8, "ddp"))[1]["processes"].value == 6


def test_an_engine_that_reads_once_is_named_if_our_runner_has_it(monkeypatch):
    """ZeRO-3 is none that runs yet."""
    box = plan_machine("8x H100", ram="480G")
    base, plan = replace(BIG, dtype="float16"), over(LORA, 8)

    assert "engine" not in ways_of(base, box, plan)[1]

    monkeypatch.setattr("advisor.choice.unlock.runs", lambda _plan: True)
    way = ways_of(base, box, plan)[1]["engine"]
    once = fit.judge(base, box, over(LORA, 8, "zero3"))
    assert (way.value, once.fits) == (once.host_bytes, True)
    assert way.words.startswith("ZeRO-3")


def test_more_disk_is_what_a_small_one_lacks():
    """To the byte."""
    box = plan_machine("8x H100", disk="100G")
    found, ways = ways_of(model(), box, over(FULL, 8))

    assert list(ways) == ["disk"]
    enough = replace(box, disk_free_bytes=box.disk_free_bytes + ways["disk"].value)
    assert fit.judge(model(), enough, found.plan).fits


def test_what_is_assumed_grows_with_the_gpus_that_would_help():
    """RAM that was said does not: it is that box's."""
    plan = changed(FULL, seq_len=512, micro_batch=1)
    assumed = ways_of(model("qwen2.5-7b"), plan_machine("A100 40GB"), plan)[1]
    said = ways_of(model("qwen2.5-7b"), plan_machine("A100 40GB", ram="40G", disk="4T"), plan)[1]

    assert "gpus" in assumed
    assert "gpus" not in said


def test_a_need_names_everything_that_is_short():
    """In one sentence."""
    found = fit.judge(BIG, plan_machine("2x RTX 4090", ram="60G", disk="1T"), over(FULL, 2))

    told = words.need(found)
    assert told.startswith("needs up to ")
    assert ", and needs 52" in told
    assert "of RAM of 60.0 GiB free, and writes 2628" in told
    way = unlocks(BIG, plan_machine("2x RTX 4090", ram="60G", disk="1T"), found)[-1]
    assert way.words.count(" and ") == 2


def test_a_type_that_nobody_told_is_warned_of():
    """The catalog does not know in which type a model's files are; a folder says it."""
    box = plan_machine("8x H100", ram="480G")
    far = recommend(replace(BIG, path=None), box, None, Answers())
    near = recommend(BIG, box, None, Answers())

    assert far.rung == near.rung == "lora"
    assert ["taken to be stored as bfloat16" in one for one in far.warnings].count(True) == 1
    assert not any("stored as" in one for one in near.warnings)


def test_a_run_is_refused_by_the_numbers_of_the_recommendation():
    """The same fit; what is told to do fits."""
    base, box = replace(BIG, dtype="float16"), plan_machine("8x H100", ram="480G", disk="100G")
    found = fit.judge(base, box, over(LORA, 8))
    small = fit.judge(model(), box, over(FULL, 8))

    with pytest.raises(UserError) as error:
        host_checks.check_ram(base, box, found)
    assert "of RAM of 480.0 GiB free" in error.value.why
    assert "3 of the GPUs alone" in error.value.do
    assert "--share" in error.value.do
    assert error.value.code == ExitCode.DRIVER
    host_checks.check_disk(found)
    host_checks.check_ram(model(), box, small)
    with pytest.raises(UserError, match="disk is too small") as error:
        host_checks.check_disk(small)
    assert "to a disk with 100.0 GiB free" in error.value.why
