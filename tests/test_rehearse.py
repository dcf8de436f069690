"""The rehearsal, against torch's own allocator on a CPU and against measured GPU runs."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import fields, replace
from typing import Any

import pytest

pytest.importorskip("trl")

import torch  # the line above must come first
from torch.nn import functional

from runner.rehearsal import fake_model, optimizers, quantized, stand_ins
from runner.rehearsal.fake_mode import DeviceRedirectMode, FakeCudaMode, wrap
from runner.rehearsal.fake_tensor import FakeCudaTensor
from runner.rehearsal.storages import Ledger
from runner.rehearse import (
    MOMENTS,
    FakeTraining,
    Setup,
    backward,
    pretending,
    rehearse,
)

pytestmark = pytest.mark.filterwarnings("ignore")

MIB = 2**20
SCALARS = 512
"""Bytes of counters that a real CPU run keeps beside its tensors, where a GPU run would not."""

# Widths that cannot be mistaken for one another.
WIDTHS = {
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 20,
    "num_hidden_layers": 3,
    "vocab_size": 640,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 72}
LATENT = {
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 72,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "topk_group": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "gemma2": {},
    "gemma3_text": {},
    "phi3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": EXPERTS,
    "olmoe": {"hidden_size": 80, "num_experts": 8, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": {**LATENT, "q_lora_rank": None, "n_group": 1, "topk_method": "greedy"},
    "deepseek_v3": {**LATENT, "q_lora_rank": 32, "n_group": 2},
}
LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
}
FULL = Setup(method="full", loss="full", precision="bf16_pure")
LORA = Setup(rank=8, loss="full")


def config_of(family: str) -> dict[str, Any]:
    return {"model_type": family, **WIDTHS, **FAMILIES[family]}


def allocated_peak(config: dict[str, Any], setup: Setup, rows: int, seq_len: int) -> int:
    """Most bytes that torch's CPU allocator had out in a step of the real model."""
    model = fake_model.build(config, setup)
    training = FakeTraining(model, setup, Ledger(), (rows, seq_len), device="cpu")
    training.prepare()
    optimizer = optimizers.make_optimizer(model, setup)
    for _ in range(2):
        training.step(optimizer)
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        training.step(optimizer)
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    alive = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        alive += change
        peak = max(peak, alive)
    return peak


def rehearsed_peak(config: dict[str, Any], setup: Setup, rows: int, seq_len: int) -> int:
    """The same of the rehearsal: what the step adds to weights and states."""
    found = rehearse(config, setup, seq_len=seq_len, micro_batch=rows, device="cpu")
    return found.peak_bytes - found.static_bytes - found.optimizer_state_bytes


PEFT_METHODS = (
    "prompt_tuning",
    "prefix_tuning",
    "p_tuning",
    "ia3",
    "ln_tuning",
    "bitfit",
    "freeze",
    "lokr",
    "vera",
)
CASES = {
    "full, autocast": ("llama", replace(FULL, precision="bf16"), 1),
    "full, fp32, recomputed": ("llama", replace(FULL, precision="fp32", checkpointing=True), 1),
    "full, accumulated": ("llama", replace(FULL, accumulation=2), 1),
    "full, chunked": ("llama", replace(FULL, loss="chunked"), 1),
    "full, one parameter at a time": ("llama", replace(FULL, optimizer="adamw_loop"), 1),
    "full, adafactor": ("llama", replace(FULL, optimizer="adafactor"), 1),
    "recomputed": ("llama", replace(LORA, checkpointing=True), 1),
    "padded": ("llama", LORA, 2),
    "packed": ("llama", replace(LORA, packing=True), 2),
    "eager": ("llama", replace(LORA, attention="eager"), 1),
    "dropout": ("llama", replace(LORA, dropout=0.1), 1),
    "q and v": ("llama", replace(LORA, targets=("q_proj", "v_proj")), 1),
    "no autocast": ("llama", replace(LORA, precision="bf16_pure"), 1),
    "16-bit adapters": ("llama", replace(LORA, precision="bf16_pure", adapters="bf16"), 1),
    "dora": ("llama", replace(LORA, peft=(("use_dora", True),)), 1),
    **{method: ("qwen2", replace(LORA, method=method), 1) for method in PEFT_METHODS},
    **{f"{family}, full": (family, FULL, 1) for family in FAMILIES},
    **{f"{family}, lora": (family, LORA, 1) for family in FAMILIES},
}


ALIKE = ("qwen2", "qwen3", "phi3", "gemma3_text", "qwen3_moe", "olmoe", "deepseek_v2")
"""Families whose layers do nothing that another one's would not show."""
LONG = {f"{family}, {how}" for family in ALIKE for how in ("full", "lora")} | {"lokr", "ln_tuning"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in CASES]
)
def test_peak_is_what_torch_allocates(name: str) -> None:
    """On a CPU the real model's allocations peak where the rehearsal says, to the scalar."""
    family, setup, rows = CASES[name]
    real = allocated_peak(config_of(family), setup, rows, 128)
    assert abs(rehearsed_peak(config_of(family), setup, rows, 128) - real) <= SCALARS


# Measured on a Tesla T4 with torch 2.10, transformers 5.0 to 5.17 and PEFT 0.19 to 0.20: MiB in
# torch's count after loading, and at most in forward, backward and optimizer step. From the
# measurements in fitcheck-llm 0.3.1 (PyPI, MIT licence): LoRA of rank 32 on the attention's
# linears, fp16, full logits, recomputed layers, kbit preparation, AdamW.
SMOLLM2_1_7B = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "num_hidden_layers": 24,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
T4_RUNS = {
    "nf4, eager, 1 x 2048": (4, "eager", 1, 2048, (1296.466, 2897.747, 4323.006, 1920.732)),
    "16 bits, eager, 4 x 1024": (16, "eager", 4, 1024, (3312.192, 5784.811, 6536.748, 3936.474)),
    "nf4, sdpa, 4 x 1024": (4, "sdpa", 4, 1024, (1296.466, 3777.334, 5281.271, 2336.748)),
    "16 bits, sdpa, 1 x 2048": (16, "sdpa", 1, 2048, (3312.192, 4600.999, 4976.982, 3728.458)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", T4_RUNS)
def test_peaks_are_those_measured_on_a_gpu(name: str) -> None:
    """With the blocks of CUDA's allocator and cuBLAS workspaces, to a tenth of a MiB."""
    pytest.importorskip("bitsandbytes")
    bits, attention, rows, seq_len, measured = T4_RUNS[name]
    setup = Setup(
        rank=32,
        targets=("q_proj", "k_proj", "v_proj", "o_proj"),
        precision="fp16_pure",
        bits=bits,
        double_quant=False,
        prepare_kbit=True,
        adapters="fp32",
        checkpointing=True,
        loss="full",
        attention=attention,
        optimizer="adamw_foreach",
        padded=False,
    )
    loaded, *peaks = plain_loop(setup, rows, seq_len)
    workspaces = rehearse(config_of("llama"), LORA, seq_len=8, capability=(7, 5)).library_bytes
    assert loaded / MIB == pytest.approx(measured[0], abs=0.1)
    for found, expected in zip(peaks, measured[1:], strict=True):
        assert (found + workspaces) / MIB == pytest.approx(expected, abs=0.1)


def plain_loop(setup: Setup, rows: int, seq_len: int) -> list[int]:
    """Bytes after loading and the peaks of a loop that keeps the logits through the step."""
    ledger = Ledger(rounded=True)
    with pretending("cuda", (7, 5), full_rows=True):
        with torch.device("meta"):
            model = fake_model.build(SMOLLM2_1_7B, setup)
        fake_model.make_fake(model, ledger)
        training = FakeTraining(model, setup, ledger, (rows, seq_len), device="cuda")
        with DeviceRedirectMode(stand_ins.DETOURS), FakeCudaMode(ledger):
            found = [ledger.live]
            training.prepare()
            optimizer = optimizers.make_optimizer(model, setup)
            batch = torch.zeros(rows, seq_len, dtype=torch.long, device="cuda")
            for _ in range(2):
                ledger.restart()
                out = model(input_ids=batch, labels=batch)
                peaks = [ledger.peak]
                ledger.restart()
                backward(out.loss)
                peaks.append(ledger.peak)
                ledger.restart()
                optimizer.step()
                peaks.append(ledger.peak)
                optimizer.zero_grad(set_to_none=True)
                del out
    return found + peaks


def _mixed(t: Any) -> Any:
    return torch.cat([t, t.to(torch.bfloat16), t.float()])


OPERATIONS = {
    "mm": lambda t: t @ t,
    "linear": lambda t: functional.linear(t, t),
    "bmm": lambda t: torch.bmm(t.view(2, 4, 8), t.view(2, 8, 4)),
    "addmm": lambda t: torch.addmm(t, t, t),
    "einsum": lambda t: torch.einsum("ij,kj->ik", t, t),
    "softmax": lambda t: t.softmax(-1),
    "log_softmax": lambda t: functional.log_softmax(t, -1),
    "sum": lambda t: t.sum(),
    "sum of rows": lambda t: t.sum(-1),
    "sum in a type": lambda t: t.sum(-1, dtype=t.dtype),
    "mean": lambda t: t.mean(-1),
    "cumsum": lambda t: t.cumsum(-1),
    "prod": lambda t: t.prod(-1),
    "pow": lambda t: t.pow(2),
    "rsqrt": torch.rsqrt,
    "exp": torch.exp,
    "log": torch.log,
    "softplus": functional.softplus,
    "layer_norm": lambda t: functional.layer_norm(t, (8,)),
    "cross_entropy": lambda t: functional.cross_entropy(t, t.argmax(-1)),
    "mse_loss": lambda t: functional.mse_loss(t, t),
    "cat": _mixed,
    "stack": lambda t: torch.stack([t, t.float()]),
    "gelu": functional.gelu,
    "silu": functional.silu,
    "add": lambda t: t + t.float(),
    "topk": lambda t: t.topk(2)[0],
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_autocast_casts_as_torch_does(name: str, kind: str) -> None:
    """Results have the type that torch's own autocast for CUDA gives them, on fake tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    found = []
    with torch.no_grad(), pretending("cuda", (8, 0), full_rows=True):
        for modes in (
            (DeviceRedirectMode(stand_ins.DETOURS), FakeCudaMode(Ledger())),
            (FakeTensorMode(),),
        ):
            with contextlib.ExitStack() as stack:
                for mode in (*modes, torch.autocast("cuda", torch.bfloat16)):
                    stack.enter_context(mode)
                tensor = torch.empty(8, 8, dtype=getattr(torch, kind), device="cuda")
                found.append(OPERATIONS[name](tensor).dtype)
    assert found[0] is found[1]


@pytest.mark.parametrize("double_quant", [False, True])
def test_four_bit_storage_is_that_of_bitsandbytes(double_quant: bool) -> None:
    """Packed weights, scales and tables have the bytes of the real module."""
    nn = pytest.importorskip("bitsandbytes").nn
    linear = torch.nn.Linear(320, 200, bias=False)
    real = nn.Linear4bit(320, 200, bias=False, quant_type="nf4", compress_statistics=double_quant)
    real.load_state_dict(linear.state_dict())
    real = real.to("cpu")
    state = real.weight.quant_state
    tensors = [real.weight.data, state.absmax, state.code]
    if double_quant:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    ours = quantized.four_bit_class()(linear, replace(LORA, double_quant=double_quant))
    assert sum(t.nbytes for t in tensors) == sum(p.nbytes for p in ours.parameters())


def test_quantized_linears_leave_the_head_and_experts_alone() -> None:
    """Of a mixture's weights only attention goes to 4 bits, as when transformers loads it."""
    pytest.importorskip("bitsandbytes")
    with torch.device("meta"):
        model = fake_model.build(
            config_of("mixtral"), replace(LORA, method="qlora", targets=("q_proj",))
        )
    four_bit = [name for name, m in model.named_modules() if type(m).__name__ == "FourBit"]
    assert len(four_bit) == 3 * 4
    assert all("self_attn" in name for name in four_bit)


def test_one_step_tells_what_two_do() -> None:
    """States made without a first step are those that a first step makes."""
    for setup in (FULL, replace(FULL, optimizer="adafactor", accumulation=2), LORA):
        once, twice = (
            rehearse(config_of("llama"), setup, seq_len=64, steps=steps) for steps in (1, 2)
        )
        names = [f.name for f in fields(once) if f.name != "seconds"]
        assert [getattr(once, n) for n in names] == [getattr(twice, n) for n in names]


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_8bit_states_leave_embeddings_in_32_bits(name: str) -> None:
    """Large tensors have a byte a moment and scales; paged ones are there for the step only."""
    pytest.importorskip("bitsandbytes")
    config = {**config_of("llama"), "vocab_size": 12800}
    found = rehearse(config, replace(FULL, optimizer=name), seq_len=16)
    embedding = 12800 * 96
    assert found.optimizer_state_bytes > 8 * embedding + 2 * embedding
    assert found.optimizer_state_bytes < 8 * embedding + 2.2 * (found.num_params - embedding)
    assert (found.paged_bytes > 8 * embedding) == name.startswith("paged")
    static = found.static_bytes + found.gradient_bytes + found.optimizer_state_bytes
    assert found.moments["optimizer_step"] == pytest.approx(static, rel=0.01)


def test_8b_model_is_rehearsed_whole() -> None:
    """Its parameters are counted exactly, and the list of what is alive adds up to the peak."""
    found = rehearse(LLAMA_3_8B, FULL, seq_len=1024, explain=True)
    assert found.num_params == found.num_trainable == 8_030_261_248
    assert found.static_bytes == pytest.approx(2 * found.num_params, rel=1e-6)
    assert found.optimizer_state_bytes == pytest.approx(4 * found.num_params, rel=1e-6)
    assert set(found.moments) == set(MOMENTS)
    assert found.peak_bytes == max(found.moments.values()) == found.moments[found.winner]
    assert found.peak_bytes == sum(size for _, size in found.at_peak)
    assert found.peak_bytes == max(size for _, size in found.timeline)
    assert any("layers.*.mlp.down_proj.weight" in label for label, _ in found.at_peak)


def test_older_gpus_have_no_flash_attention() -> None:
    """Before Ampere grouped heads without a mask go through whole scores."""
    new, old = (
        rehearse(config_of("llama"), LORA, seq_len=512, capability=capability)
        for capability in ((8, 0), (7, 5))
    )
    scores = 4 * 512 * 512 * 2 * WIDTHS["num_hidden_layers"]
    assert old.saved_bytes - new.saved_bytes > scores


def test_dropout_keeps_a_byte_mask_on_a_gpu() -> None:
    """The CPU keeps an fp32 factor; where nothing before it is trained, neither keeps anything."""
    setup = replace(LORA, dropout=0.1, targets=("down_proj",), checkpointing=False)
    tokens, width, layers = 128, WIDTHS["intermediate_size"], WIDTHS["num_hidden_layers"] - 1
    gpu, cpu = (
        rehearse(config_of("llama"), setup, seq_len=128, device=device).saved_bytes
        - rehearse(
            config_of("llama"), replace(setup, dropout=0), seq_len=128, device=device
        ).saved_bytes
        for device in ("cuda", "cpu")
    )
    assert cpu - gpu == 3 * tokens * width * layers


def test_nothing_of_the_pretence_is_left() -> None:
    """Afterwards tensors, autocast and libraries are as before."""
    from trl.kernels import chunked_logprob

    before = FakeCudaTensor.pretended, FakeCudaTensor.truth, chunked_logprob._use_triton
    rehearse(config_of("llama"), LORA, seq_len=16)
    assert before == (FakeCudaTensor.pretended, FakeCudaTensor.truth, chunked_logprob._use_triton)
    assert not torch.is_autocast_enabled("hpu")
    assert not torch.is_autocast_enabled("cuda")
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
    with pytest.raises(RuntimeError, match="outside their mode"):
        wrap(torch.empty(2, device="meta")) + 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"optimizer": "adam_of_eden"}, "paged_adamw_8bit"),
        ({"method": "levitation"}, "levitation"),
        ({"loss": "none"}, "chunked"),
    ],
)
def test_unknown_names_are_refused(change: dict[str, str], word: str) -> None:
    """The message says which name, or which are known."""
    with pytest.raises(ValueError, match=word):
        rehearse(config_of("llama"), replace(LORA, **change), seq_len=8)
