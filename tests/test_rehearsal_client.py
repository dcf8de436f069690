"""Who asks for a rehearsal: which plan is sent, and what an answer says of the device."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from known import HOST, dataset, model
from plans import changed, made
from rehearsed import GIB, answer_at_once

from advisor.choice.answers import Answer, Answers
from advisor.choice.recommend import recommend
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin
from profiles.machines import planned
from runner.rehearsal import client
from runner.rehearsal.results import DeviceUse, Tried

LORA = made("lora", seq_len=1024, rank=8, alpha=16)
BOX = planned.plan_machine("4x RTX 4090")
LOW = Answers(complexity=Answer("low", Origin.USER))


@pytest.fixture
def asked(monkeypatch):
    """The requests that a rehearsal's process would get; each is answered at once."""
    return answer_at_once(monkeypatch)


def recommended(text="1x RTX 4090", answers=None):
    """What is recommended for an 8B model on a planned machine."""
    machine = planned.plan_machine(text)
    return recommend(model(), machine, dataset(), answers or Answers())


@pytest.mark.parametrize(
    ("changes", "can"),
    [
        ({}, True),
        ({"method": "full"}, True),
        ({"method": "prefix_tuning"}, True),
        ({"optimizer": "adamw_8bit"}, True),
        ({"method": "lit_llama_adapter"}, False),
        ({"method": "freeze"}, True),
        ({"optimizer": "galore"}, False),
        ({"optimizer": "paged_adamw_8bit"}, False),
        ({"offload": "optimizer"}, False),
    ],
)
def test_a_plan_is_rehearsed_if_the_libraries_build_it_on_one_device(changes, can):
    """By method, optimizer, and what stays in RAM."""
    assert client.can_rehearse(changed(LORA, **changes)) is can


def test_the_recommended_plan_is_rehearsed_where_it_can_be():
    """Not the recipe's, though it can be as well."""
    found = recommended()
    other = replace(found.runnable, fit=replace(found.fit, plan=changed(found.fit.plan, rank=1)))

    assert client.choose(replace(found, runnable=other)) == found.fit.plan


def test_the_recipes_plan_is_rehearsed_in_place_of_one_that_no_library_builds():
    """GaLore has no rehearsal; what is saved in its place has."""
    found = recommended(answers=LOW)
    plan = changed(found.fit.plan, optimizer="galore")
    found = replace(found, fit=replace(found.fit, plan=plan))

    assert client.choose(found) == found.runnable.fit.plan


@pytest.mark.parametrize("keep_recipe", [True, False])
def test_without_a_plan_to_rehearse_the_user_is_told(keep_recipe):
    """An error of usage that names the recommended method."""
    found = recommended(answers=LOW)
    fit = replace(found.fit, plan=changed(found.fit.plan, optimizer="galore"))
    kept = replace(found.runnable, fit=fit) if keep_recipe else None
    found = replace(found, fit=fit, runnable=kept)

    with pytest.raises(UserError, match="LoRA cannot be rehearsed") as told:
        client.choose(found)

    assert told.value.code == ExitCode.USAGE


def test_a_plan_is_sent_whole_and_for_the_machines_own_gpu(asked):
    """On one device, with every setting of the plan but the framework's."""
    plan = changed(LORA, strategy="fsdp", num_gpus=4, micro_batch=2)

    seen = client.rehearse(model(), plan, BOX)

    (request,) = asked
    assert (request["model"], request["device"]) == ("/models/llama-3.1-8b", "cuda")
    assert request["capability"] == (8, 9)
    assert request["plan"]["micro_batch"] == 2
    assert (request["plan"]["strategy"], request["plan"]["num_gpus"]) == ("single", 1)
    assert "framework" not in request["plan"]
    assert (seen.asked, seen.plan) == (plan, changed(plan, strategy="single", num_gpus=1))


@pytest.mark.parametrize(
    ("capability", "sent"),
    [("7.5", (7, 5)), ("9", (9, 0)), ("10.0", (10, 0)), (None, (8, 0)), ("gfx90a", (8, 0))],
)
def test_a_gpu_of_unknown_capability_is_taken_for_an_ampere(asked, capability, sent):
    """Flash attention needs that."""
    gpu = replace(BOX.gpus[0], compute_capability=capability)

    client.rehearse(model(), LORA, replace(BOX, gpus=(gpu,)))

    assert asked[0]["capability"] == sent


def test_without_a_gpu_the_plan_is_rehearsed_in_fp32_on_the_cpu(asked):
    """As the trainer keeps the weights there; the hub's id where no folder is known."""
    seen = client.rehearse(model(path=None), LORA, HOST)

    assert (asked[0]["device"], asked[0]["model"]) == ("cpu", "llama-3.1-8b")
    assert asked[0]["plan"]["precision"] == seen.plan.precision == "fp32"


def test_a_rehearsal_moves_the_devices_interval_by_its_difference_from_the_formula(asked):
    """All of its ends, up to where the plan does not fit any more."""
    found = recommended()
    seen = client.rehearse(found.model, found.fit.plan, found.machine)
    formula = seen.formula.allocated_bytes
    room = found.fit.budget_bytes - found.fit.memory.high_bytes

    just = replace(seen, peak_bytes=formula + room).on_device(found.fit)
    over = replace(seen, peak_bytes=formula + room + 1).on_device(found.fit)

    memory = found.fit.memory
    assert just == DeviceUse(
        low_bytes=memory.low_bytes + room,
        expected_bytes=memory.expected_bytes + room,
        high_bytes=found.fit.budget_bytes,
        free_bytes=found.fit.budget_bytes,
    )
    assert (just.fits, over.fits) == (True, False)
    assert replace(seen, peak_bytes=formula * 3 // 2).difference == pytest.approx(0.5)


@pytest.mark.parametrize("num_gpus", [2, 4])
@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp"])
def test_a_divided_plan_says_nothing_of_the_device(asked, strategy, num_gpus):
    """What was rehearsed is the whole model."""
    found = recommended("4x RTX 4090", Answers(critical=Answer(True, Origin.USER)))
    plan = changed(found.fit.plan, strategy=strategy, num_gpus=num_gpus)

    seen = client.rehearse(found.model, plan, found.machine)

    assert seen.divided
    assert seen.on_device(replace(found.fit, plan=plan)) is None


def test_copies_on_several_devices_are_not_divided(asked):
    """One of them is rehearsed."""
    found = recommended("4x RTX 4090")
    plan = changed(found.fit.plan, strategy="ddp", num_gpus=4)

    seen = client.rehearse(found.model, plan, found.machine)

    assert not seen.divided
    assert seen.on_device(replace(found.fit, plan=plan)) is not None


def test_the_rehearsal_of_another_plan_says_nothing_of_this_one(asked):
    """Though the method is the same."""
    found = recommended()
    seen = client.rehearse(found.model, changed(found.fit.plan, rank=1), found.machine)

    assert seen.on_device(found.fit) is None


def test_the_formulas_peaks_stand_under_the_rehearsals_names(asked):
    """The larger one where two of them are the same pass."""
    found = recommended()
    seen = client.rehearse(found.model, found.fit.plan, found.machine)
    peaks = {moment.name: moment.total_bytes for moment in seen.formula.moments}

    assert set(seen.formula_moments) == set(seen.moments)
    assert seen.formula_moments["optimizer_step"] == peaks["optimizer_step"]
    layers = max(peaks["first_layer_backward"], peaks["last_layer_backward"])
    assert seen.formula_moments["layer_backward"] == layers


def test_a_model_without_a_formula_gets_no_difference(asked):
    """Nor moments of a formula."""
    seen = client.rehearse(model(unmodelled="it is odd"), LORA, BOX)

    assert (seen.formula, seen.difference, seen.formula_moments) == (None, None, {})


def test_what_is_tried_without_a_formula_is_the_least_that_each_method_takes():
    """One row, activations recomputed where they can be; adapters are a recipe's own."""
    plans = client.least_plans(model(unmodelled="it is odd"), BOX, Answers())

    assert [plan.method.name for plan in plans] == [
        *("full", "freeze", "lora", "qlora", "lora_experts", "adapter", "llama_adapter"),
        *("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2"),
        *("ia3", "bitfit", "ln_tuning"),
    ]
    assert {(plan.micro_batch, plan.accumulation, plan.num_gpus) for plan in plans} == {(1, 1, 1)}
    kept = {plan.method.name for plan in plans if not plan.checkpointing}
    assert kept == {"prefix_tuning", "p_tuning_v2"}
    assert [plan.settings.rank for plan in plans[2:4]] == [16, 16]
    assert [plan.settings.targets for plan in plans[2:4]] == ["all", "all"]
    turing = planned.plan_machine("T4")
    assert {plan.precision for plan in plans} == {"bf16"}
    assert {plan.precision for plan in client.least_plans(model(), turing, Answers())} == {"fp16"}


def test_wishes_that_cannot_be_are_refused_for_a_model_without_a_formula_too():
    """Before anything is rehearsed."""
    with pytest.raises(UserError, match="rows of 0 tokens"):
        client.least_plans(
            model(unmodelled="it is odd"), BOX, Answers(seq_len=Answer(0, Origin.USER))
        )


@pytest.mark.parametrize(("method", "bytes_each"), [("full", 16.0), ("lora", 2.0), ("qlora", 0.5)])
def test_what_cannot_fit_by_its_weights_alone_is_not_rehearsed(asked, method, bytes_each):
    """One byte decides; the towers for images, which stay frozen, are not counted."""
    odd = model(unmodelled="it is odd", vision_params=1_000_000_000)
    plan = changed(LORA, method=method)
    needed = int(bytes_each * (odd.num_params - 1_000_000_000))
    gpu = replace(BOX.gpus[0], vram_bytes=needed, vram_free_bytes=needed)
    full = replace(BOX, gpus=(gpu,))
    short = replace(BOX, gpus=(replace(gpu, vram_free_bytes=needed - 1),))

    tried, left_out = client.attempt(odd, plan, full), client.attempt(odd, plan, short)

    assert (tried.why, tried.rehearsed.plan.method.name) == ("", method)
    assert (left_out.rehearsed, left_out.device, left_out.fits) == (None, None, False)
    assert "weights and states alone take" in left_out.why
    assert len(asked) == 1


def test_an_attempt_is_judged_by_the_emptiest_gpu(asked):
    """It needs but one."""
    fuller = replace(BOX.gpus[0], vram_free_bytes=GIB)
    box = replace(BOX, gpus=(fuller, BOX.gpus[1]))

    tried = client.attempt(model(unmodelled="it is odd"), changed(LORA, method="qlora"), box)

    assert tried.free_bytes == BOX.gpus[1].vram_free_bytes
    assert tried.rehearsed is not None


def test_an_attempts_use_of_the_device_is_its_peak_and_what_lies_outside(asked):
    """Fragments of everything and the context on a GPU; the libraries on a CPU."""
    seen = client.rehearse(model(unmodelled="it is odd"), LORA, BOX)
    on_gpu = Tried(plan=LORA, on_gpu=True, free_bytes=20 * GIB, rehearsed=seen).device
    on_cpu = Tried(plan=LORA, on_gpu=False, free_bytes=20 * GIB, rehearsed=seen).device

    assert on_gpu.low_bytes / GIB == pytest.approx(17 + 0.22)
    assert on_gpu.expected_bytes / GIB == pytest.approx(17 * 1.05 + 0.5)
    assert on_gpu.high_bytes / GIB == pytest.approx(17 * 1.1 + 0.9)
    assert on_cpu.high_bytes / GIB == pytest.approx(17 * 1.1 + 0.8)
    assert on_gpu.fits
    assert not Tried(plan=LORA, on_gpu=True, free_bytes=19 * GIB, rehearsed=seen).fits


def test_missing_packages_are_named_and_nothing_is_started(asked, monkeypatch):
    """All of them, in one error."""
    find_spec = importlib.util.find_spec
    missing = {"torch", "peft"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )

    with pytest.raises(UserError, match=r"not installed: torch, peft$") as told:
        client.rehearse(model(), LORA, BOX)

    assert told.value.code == ExitCode.DRIVER
    assert asked == []


@pytest.mark.parametrize(
    ("stdout", "stderr", "words", "code"),
    [
        ("", "", "left with 1: it said nothing", ExitCode.INTERNAL),
        ("", "first\nKilled\n", "left with 1: Killed", ExitCode.INTERNAL),
        ('{"other": 1}', "", "left with 1: it said nothing", ExitCode.INTERNAL),
        (
            '{"error": {"what": "w", "why": "y", "do": "d", "where": "x", "code": 71}}',
            "",
            "y",
            ExitCode.DRIVER,
        ),
    ],
)
def test_a_rehearsal_that_fails_is_an_error_of_four_parts(monkeypatch, stdout, stderr, words, code):
    """The process's own where it gave one, else its last words."""
    done = subprocess.CompletedProcess([], 1, stdout=stdout, stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    with pytest.raises(UserError) as told:
        client.rehearse(model(), LORA, BOX)

    assert (told.value.why, told.value.code) == (
        words if code == ExitCode.DRIVER else f"its process {words}",
        code,
    )


def test_the_process_is_our_own_module_and_gets_the_request_as_json(monkeypatch):
    """In safe-path mode, with the environment of a worker."""
    started = {}

    def start(argv, **options):
        started.update(options, argv=argv)
        return subprocess.CompletedProcess(argv, 0, stdout='{"rehearsal": {"a": 1}}', stderr="")

    monkeypatch.setattr(subprocess, "run", start)

    assert client._ask({"model": "m"}) == {"a": 1}
    assert started["argv"] == [sys.executable, "-P", "-m", "runner.rehearsal_main"]
    assert json.loads(started["input"]) == {"model": "m"}
    assert started["env"]["PYTHONSAFEPATH"] == "1"


def test_asking_loads_no_torch():
    """The module that asks, not the one that answers."""
    code = "import sys, runner.rehearsal.client; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_model_that_transformers_refuses_is_told(tmp_path):
    """By the process, as JSON, with an exit code."""
    pytest.importorskip("torch")
    request = {
        "model": str(tmp_path),
        "plan": made("lora", seq_len=64).as_names(),
        "device": "cuda",
        "capability": [8, 0],
    }

    done = subprocess.run(
        [sys.executable, "-P", "-m", "runner.rehearsal_main"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )

    error = json.loads(done.stdout)["error"]
    assert done.returncode == error["code"] == 71
    assert "cannot be rehearsed with lora" in error["what"]
