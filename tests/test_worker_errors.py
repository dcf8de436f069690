"""What the training process says of an error, and the code it ends with."""

from __future__ import annotations

import errno
from functools import partial

import pytest

torch = pytest.importorskip("torch")

import played  # noqa: E402
import real_runs  # noqa: E402

from profiles import installation  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import durable  # noqa: E402
from profiles.runs.rundir import read_json  # noqa: E402


@pytest.fixture
def run():
    """A run that nobody trains."""
    return real_runs.new_run("model", "data")


@pytest.fixture
def train(run):
    """Run the worker; what is given plays the training. Returns the exit code."""
    return partial(played.train, run)


def failure(run):
    """(code, what, why, where) that people are shown."""
    told = read_json(run.error)
    return tuple(told[name] for name in ("code", "what", "why", "where"))


def told(code=ExitCode.BAD_DATA):
    """An error in our own words."""
    return UserError("that", why="because", do="this", where="here", code=code)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EFBIG, "File too large", "/x/model.safetensors"),
        RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
    ],
)
def test_a_limit_on_the_size_of_files_has_its_own_words(train, run, error):
    """Making room would not help."""
    assert train(played.raising(error)) == ExitCode.IO_ERROR

    code, what, why, _ = failure(run)
    assert (code, what) == (
        ExitCode.IO_ERROR,
        "a file may not grow as large as a checkpoint is",
    )
    assert "ulimit -f" in why


@pytest.mark.parametrize("name", ["check", "check_floors"])
def test_an_installation_that_is_not_sound_trains_nothing(train, run, monkeypatch, name):
    """Refused before the data is read, with the check's own code."""
    monkeypatch.setattr(installation, name, played.raising(told(ExitCode.DRIVER)))

    assert train(lambda *_: 0) == ExitCode.DRIVER
    assert failure(run) == (ExitCode.DRIVER, "that", "because", "here")
    assert not run.worker_events.exists()


def test_what_a_person_can_mend_is_told_in_its_own_words(train, run, capfd):
    """In the run's error and in the console's log, without a traceback."""
    assert train(played.raising(told())) == ExitCode.BAD_DATA

    assert failure(run) == (ExitCode.BAD_DATA, "that", "because", "here")
    assert read_json(run.error)["attempt"] == 1
    console = capfd.readouterr().err
    assert "error: that\nbecause" in console
    assert "Traceback" not in console


def test_an_error_that_nobody_knows_leaves_its_traceback(train, run, capfd):
    """Code 70; the console's log has what we need to mend it."""
    assert train(played.raising(ValueError("odd"))) == ExitCode.INTERNAL

    code, what, _, where = failure(run)
    assert (code, what) == (ExitCode.INTERNAL, "training failed: ValueError: odd")
    assert where == str(run.console)
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
    ],
)
def test_a_gpu_without_memory_is_told_with_what_saves_some(train, run, error):
    """The library's first sentence, and changes of the recipe."""
    assert train(played.raising(error)) == ExitCode.GPU_OOM

    assert failure(run) == (
        ExitCode.GPU_OOM,
        "the GPU ran out of memory",
        "CUDA out of memory",
        str(run.console),
    )


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("std::bad_alloc\nat 0x123"), "std::bad_alloc"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory"),
    ],
)
def test_a_machine_without_memory_is_not_called_a_gpu(train, run, error, why):
    """A code of its own."""
    assert train(played.raising(error)) == ExitCode.HOST_OOM

    assert failure(run) == (
        ExitCode.HOST_OOM,
        "the machine ran out of memory",
        why,
        str(run.console),
    )


def test_a_disk_that_fails_is_told_with_its_place(train, run):
    """The file, where there is one."""
    assert (
        train(played.raising(OSError(errno.EIO, "Input/output error", "/data/x")))
        == ExitCode.IO_ERROR
    )
    code, what, why, where = failure(run)
    assert (code, what) == (ExitCode.IO_ERROR, "reading or writing failed: Input/output error")
    assert "/data/x" in why
    assert where == "/data/x"

    run.error.unlink()
    assert train(played.raising(OSError("odd"))) == ExitCode.IO_ERROR
    assert failure(run)[1:] == ("reading or writing failed: odd", "odd", str(run.path))


def test_the_error_of_the_first_rank_that_fails_stays(train, run):
    """What the others say is its consequence; the code is each rank's own."""
    durable.write_json(run.error, {"attempt": 1, "what": "first"})

    assert train(played.raising(told())) == ExitCode.BAD_DATA

    assert read_json(run.error)["what"] == "first"


@pytest.mark.parametrize("earlier", [{"attempt": 1, "what": "before"}, {"what": "before"}])
def test_the_error_of_an_earlier_attempt_is_replaced(train, run, earlier):
    """And one that names no attempt."""
    durable.write_json(run.error, earlier)
    durable.write_atomic(run.attempt_file, b"2\n")

    train(played.raising(told()))

    found = read_json(run.error)
    assert (found["attempt"], found["what"]) == (2, "that")


def test_a_full_disk_does_not_cost_the_exit_code(train, run, monkeypatch):
    """The error is lost, how it ended is not."""
    monkeypatch.setattr(
        durable, "write_json", played.raising(OSError(errno.ENOSPC, "No space left"))
    )

    assert train(played.raising(told())) == ExitCode.BAD_DATA
    assert read_json(run.error) is None
