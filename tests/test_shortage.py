"""Which memory ran out, by what is raised; and how a process goes on with less at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from profiles.errors import ExitCode, UserError  # noqa: E402
from runner.training import oom  # noqa: E402
from runner.training.division import Division  # noqa: E402
from runner.training.oom import Shortage  # noqa: E402
from runner.training.parts import Part  # noqa: E402

GPU, HOST = Shortage.GPU, Shortage.HOST
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


def raised(error, *, cause=None, during=None, hidden=False):
    """An error as Python has it that was raised from another, or while one was handled."""
    error.__cause__, error.__context__ = cause, during
    error.__suppress_context__ = hidden
    return error


def test_a_shortage_is_found_behind_what_a_library_makes_of_it():
    """As a cause, or as what was being handled, however deep."""
    deep = raised(ValueError("c"), cause=raised(KeyError("b"), during=RuntimeError(FULL)))

    assert oom.shortage(raised(ValueError("a"), cause=MemoryError())) is HOST
    assert oom.shortage(raised(ValueError("a"), during=MemoryError())) is HOST
    assert oom.shortage(deep) is GPU
    assert oom.shortage(ValueError("a")) is None


def test_a_cause_that_was_named_counts_before_what_was_handled():
    """Python shows it so too."""
    both = raised(ValueError("a"), cause=RuntimeError(FULL), during=MemoryError())

    assert oom.shortage(both) is GPU


def test_what_was_hidden_on_purpose_is_no_cause():
    """`raise ... from None` says that it has nothing to do with it."""
    assert oom.shortage(raised(ValueError("a"), during=MemoryError(), hidden=True)) is None


def test_an_error_in_our_own_words_is_no_shortage():
    """It was explained already, whatever it quotes; its cause may be one."""
    told = UserError(FULL, why=FULL, do="x", where="y", code=ExitCode.GPU_OOM)

    assert oom.shortage(told) is None
    assert oom.shortage(raised(told, cause=MemoryError())) is HOST


def test_a_message_counts_where_a_library_could_have_written_it():
    """A GPU's before the machine's."""
    assert oom.shortage(torch.OutOfMemoryError("Allocation on device")) is GPU
    assert oom.shortage(KeyError(FULL)) is None
    assert oom.shortage(OSError("Cannot allocate memory")) is HOST
    assert oom.shortage(RuntimeError(f"std::bad_alloc: {FULL}")) is GPU
    assert oom.shortage(RuntimeError("nothing of the kind")) is None


def test_shortages_have_names():
    """As they are written down."""
    assert [*Shortage] == ["gpu", "host"]


def test_a_cpu_goes_on_after_a_shortage():
    """No context is there that could be broken."""
    assert oom.is_sane(torch.device("cpu")) is True


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that counts what it is asked; `value` is what it finds in memory."""
    found = SimpleNamespace(value=1.0, asked=[])

    def ones(number, *, device):
        found.asked.append(f"{number} on {device}")
        return SimpleNamespace(item=lambda: found.value)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: found.asked.append("emptied"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda one: found.asked.append(f"waited {one}"))
    monkeypatch.setattr(torch, "ones", ones)
    return found


def test_a_gpu_that_still_computes_is_sane(gpu):
    """Tried on the device itself, with the memory that is left given back."""
    assert oom.is_sane(torch.device("cuda", 1)) is True
    assert gpu.asked == ["emptied", "waited cuda:1", "1 on cuda:1"]


def test_a_gpu_that_computes_nonsense_is_not(gpu):
    """It says so no other way."""
    gpu.value = 2.0

    assert oom.is_sane(torch.device("cuda")) is False


@pytest.mark.parametrize("name", ["empty_cache", "synchronize"])
def test_a_gpu_whose_context_is_broken_is_not(gpu, monkeypatch, name):
    """Every later call fails."""

    def fail(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, name, fail)

    assert oom.is_sane(torch.device("cuda")) is False


def test_on_a_cpu_it_is_the_machine_s_memory():
    """Exit code 81, and no word of a GPU."""
    error = oom.OutOfMemoryError(
        "why", on_cpu=True, do="do", where="where", pieces=2, clean_restart=False
    )

    assert (error.what, error.code) == ("the machine ran out of memory", ExitCode.HOST_OOM)


def test_memory_that_the_cpus_allocator_could_not_get_is_the_hosts():
    """As torch really says it."""
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 60, dtype=torch.uint8)

    assert oom.shortage(failed.value) is oom.Shortage.HOST


@pytest.mark.parametrize("restart", [True, False])
def test_an_end_for_want_of_memory_tells_the_next_process_what_to_do_better(restart):
    """Beside what people are told."""
    error = oom.OutOfMemoryError(
        "why", on_cpu=False, do="do", where="where", pieces=4, clean_restart=restart
    )

    told = error.as_dict()

    assert (told["what"], told["why"]) == ("the GPU ran out of memory", "why")
    assert (told["do"], told["where"], told["code"]) == ("do", "where", ExitCode.GPU_OOM)
    assert (told["pieces"], told["clean_restart"]) == (4, restart)
    assert error.code is ExitCode.GPU_OOM


@pytest.fixture
def divide(monkeypatch):
    """Divide in a trainer; what its division was asked, and how often the cache was emptied."""

    def ask(during, *, processes=1, trial=False, alone=True, device="cpu"):
        asked, emptied = [], []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
        trainer = SimpleNamespace(
            is_trial=trial,
            engine=SimpleNamespace(forwards_alone=alone),
            ranks=SimpleNamespace(world_size=processes),
            state=SimpleNamespace(global_step=7),
            args=SimpleNamespace(device=torch.device(device)),
            division=SimpleNamespace(divide=lambda *a, **kw: asked.append((a, kw))),
        )
        Part.divide(trainer, during, "full", 4)
        return asked, len(emptied)

    return ask


@pytest.mark.parametrize(
    ("during", "processes", "trial", "engine", "alone"),
    [
        ("train", 1, False, True, True),
        ("train", 1, False, False, True),
        ("train", 2, False, True, False),
        ("eval", 2, False, True, True),
        ("eval", 2, False, False, False),
        ("train", 2, True, True, True),
        ("train", 2, True, False, False),
    ],
)
def test_a_process_goes_on_alone_only_where_no_other_waits_for_it(
    divide, during, processes, trial, engine, alone
):
    """One process; or a forward pass, or gradients that are thrown away, if the engine can."""
    ((asked,), _) = divide(during, processes=processes, trial=trial, alone=engine)

    assert asked == ((during, "full"), {"rows": 4, "step": 7, "is_alone": alone})


@pytest.mark.parametrize(("device", "times"), [("cpu", 0), ("cuda", 1)])
def test_what_a_gpu_kept_of_the_batch_that_failed_is_given_back(divide, device, times):
    """Smaller pieces want other blocks."""
    assert divide("train", device=device)[1] == times


def test_a_division_that_cannot_be_ends_it(divide):
    """The library's error goes up as ours."""
    division = Division(
        attempt=SimpleNamespace(run=SimpleNamespace(console="c")),
        device=torch.device("cpu"),
        rows=1,
        accumulation=1,
        lighter=("this", "that"),
    )

    with pytest.raises(oom.OutOfMemoryError, match="ran out of memory") as caught:
        division.divide("train", "full", rows=1, step=1, is_alone=True)

    assert (caught.value.clean_restart, caught.value.do[-10:]) == (False, "this; that")
