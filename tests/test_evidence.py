"""What kills runs, told from what the system leaves behind: fixtures of real formats."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from profiles.errors import ExitCode
from profiles.runs import durable, rundir
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.worker import End, TrainBegun, WorkerStarted
from profiles.runs.state import State
from runner.supervision import console, evidence, kernel_log, outcome
from runner.supervision.evidence import Evidence
from runner.supervision.kernel_log import Line, Xid
from runner.supervision.outcome import Ended

V2 = "0::/user.slice/run-42.scope\n"
V1 = "5:devices:/\n4:memory:/docker/abc\n0::/\n"
DMESG = """\
[    0.000000] Linux version 6.8.0
[ 4000.100000] NVRM: Xid (PCI:0000:3b:00): 31, pid=99, name=python, Ch 00000008, MMU Fault
[ 5123.456789] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off
[ 5124.000000] Out of memory: Killed process 4711 (python) total-vm:9000kB, anon-rss:100kB
[ 5125.000000] Memory cgroup out of memory: Killed process 4712 (pt_data_worker) total-vm:1kB
"""
KMSG = (
    "4,1206,5123456789,-;NVRM: Xid (PCI:0000:3b:00.0): 48, pid=7, DBE (double bit error) ECC\n"
    " SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n"
    "6,1207,5124000000,-,caller=T1;usb 1-1: new device\n"
)
TORCHRUN = """\
W1122 torch/distributed/elastic/multiprocessing/api.py:10] Sending process 5 closing signal SIGTERM
E1122 torch/distributed/elastic/multiprocessing/api.py:1003] failed (exitcode: -9) local_rank: 1 \
(pid: 4712) of binary: /usr/bin/python
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
  exitcode  : -9 (pid: 4712)
  traceback : Signal 9 (SIGKILL) received by PID 4712
"""


@pytest.fixture
def run(home):
    """A run in its first attempt, with a checkpoint of step 400 and 431 steps done."""
    found = rundir.create("a run")
    durable.write_json(found.manifest, {"created": 1.0})
    events = Journal(found.worker_events, attempt=1)
    events.append(WorkerStarted(pid=4711, start=1))
    events.append(TrainBegun(step=0, num_steps=1000))
    events.append(Evaluated(step=431, loss=1.0, seconds=0.5))
    (found.checkpoints / "step-00000400").mkdir()
    durable.write_json(found.checkpoints / "step-00000400" / "MANIFEST.json", {})
    return found


def judged(run, return_code, **facts):
    """The exit record for this end."""
    return outcome.of(run, Ended(attempt=1, return_code=return_code, **facts))


def failed(run, what, code=70):
    """Let the worker say why it gave up."""
    content = {"attempt": 1, "code": code, "what": what, "why": "", "do": "", "where": ""}
    durable.write_json(run.error, content)


def group(root, path, **files):
    """Make a control group of files."""
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "path", "name", "content"),
    [
        (V2, "user.slice/run-42.scope", "memory__events", "low 0\nmax 9\noom 3\noom_kill 2\n"),
        (V1, "memory/docker/abc", "memory__oom_control", "under_oom 0\noom_kill 2\n"),
        ("0::/../../elsewhere\n", "", "memory__events", "oom_kill 2\n"),
    ],
)
def test_memory_kills_are_counted_in_the_group_of_the_worker(tmp_path, text, path, name, content):
    """Version 2, version 1, and a container whose own group is mounted at the root."""
    group(tmp_path, path, **{name: content})

    found = evidence.memory_group(text, tmp_path)

    assert evidence.oom_kills(found) == 2


@pytest.mark.parametrize("content", ["", "oom_kill", "oom_kill x\n", "oom_kill_group 4\n"])
def test_a_damaged_count_is_no_evidence(tmp_path, content):
    """Nothing raises, nothing is counted."""
    found = group(tmp_path, "a", memory__events=content)

    assert evidence.oom_kills(found) == evidence.oom_kills(None) == 0


def test_the_lowest_limit_above_a_group_counts(tmp_path):
    """A pod's limit may stand above the container's; "max" limits nothing."""
    group(tmp_path, "pod", memory__max=f"{32 << 30}\n")
    inner = group(tmp_path, "pod/box", memory__max="max\n")
    old = group(tmp_path, "old", memory__limit_in_bytes="9223372036854771712\n")

    assert evidence.limit_bytes(inner, tmp_path) == 32 << 30
    assert evidence.limit_bytes(old, tmp_path) is None


def test_xids_since_the_start_are_read_from_dmesg():
    """Older lines are another run's."""
    found = kernel_log.xids(kernel_log.parse_dmesg(DMESG), since=5000.0)

    assert found == [Xid(79, "0000:3b:00")]


def test_xids_are_read_from_the_kernel_log_device():
    """Continuation lines of a record are passed over."""
    lines = kernel_log.parse_kmsg(KMSG)

    assert [line.seconds for line in lines] == [5123.456789, 5124.0]
    assert kernel_log.xids(lines, since=0.0) == [Xid(48, "0000:3b:00.0")]


def test_memory_kills_are_read_from_the_kernel_log():
    """The killer's two forms: of the host, of a control group."""
    assert kernel_log.killed_for_memory(kernel_log.parse_dmesg(DMESG), 0.0) == [4711, 4712]


@pytest.mark.parametrize("number", [48, 63, 64, 74, 79, 94, 95, 119, 120])
def test_an_xid_of_the_hardware_class_ends_with_84(run, number):
    """Whatever the worker died of: another start on the same GPU would meet it again."""
    failed(run, "training failed: RuntimeError: CUDA error: unspecified launch failure")

    found = judged(run, 1, evidence=Evidence(xids=(Xid(number, "0000:3b:00"),)))

    assert (found["code"], found["class"]) == (ExitCode.GPU_LOST, "gpu_lost")
    assert f"(Xid {number}); resumable from step 400" in found["what"]
    assert "another GPU" in found["do"]
    assert found["evidence"]["xids"] == [{"number": number, "gpu": "the GPU at 0000:3b:00"}]


@pytest.mark.parametrize("number", [13, 31, 43, 45])
def test_an_xid_of_the_application_class_accuses_no_hardware(run, number):
    """It explains a death, and the code stays what it was."""
    found = judged(run, -11, evidence=Evidence(xids=(Xid(number, "0000:3b:00"),)))

    assert (found["code"], found["signal"]) == (139, "SIGSEGV")
    assert f"Xid {number} (" in found["why"]


def test_a_gpu_is_named_by_the_drivers_number(tmp_path):
    """From the driver's own table of PCI addresses."""
    folder = tmp_path / "0000:3b:00.0"
    folder.mkdir()
    (folder / "information").write_text("Model: H100\nDevice Minor: \t 3\n")

    assert kernel_log.name_of_gpu("0000:3b:00", tmp_path) == "GPU 3"
    assert kernel_log.name_of_gpu("0000:5e:00", tmp_path) == "the GPU at 0000:5e:00"


def test_a_gpu_fault_after_the_end_changes_nothing(run):
    """A result that is there is there."""
    Journal(run.worker_events, attempt=1).append(End(state="finished", step=1000))
    run.model.mkdir()

    found = judged(run, 1, evidence=Evidence(xids=(Xid(79, "0000:3b:00"),)))

    assert (found["state"], found["code"]) == (State.FINISHED, 0)


def test_a_run_that_stopped_early_has_not_done_all_its_steps(run):
    """It is finished all the same, and says where it ended."""
    run.model.mkdir()
    Journal(run.worker_events, attempt=1).append(End(state="finished", step=600))

    found = judged(run, 0)

    assert (found["state"], found["code"]) == (State.FINISHED, 0)
    assert found["what"].startswith("stopped early at step 600 of 1000, the result is in")


def test_little_memory_is_not_called_none(run):
    """A container of 300 MiB is not one of 0 GB."""
    seen = Evidence(num_oom_kills=1, memory_limit_bytes=300 << 20)

    found = judged(run, -9, evidence=seen, rusage={"max_rss_bytes": 290 << 20})

    assert "(cgroup limit 300.0 MiB)" in found["what"]
    assert "peak was 290.0 MiB" in found["why"]


def test_a_signal_to_stop_before_anything_could_answer_it_is_a_stop(home):
    """While Python starts; later the same death is a kill."""
    early = rundir.create("early")
    durable.write_json(early.manifest, {"created": 1.0})
    found = judged(early, -15)
    Journal(early.worker_events, attempt=1).append(TrainBegun(step=0, num_steps=10))
    later = judged(early, -15)

    assert (found["state"], found["code"]) == (State.STOPPED, 75)
    assert "nothing was saved" in found["what"]
    assert (later["state"], later["signal"]) == (State.KILLED, "SIGTERM")


def test_a_memory_kill_of_the_control_group_ends_with_81(run):
    """With the limit, the peak, and what to do."""
    seen = Evidence(num_oom_kills=1, memory_limit_bytes=32 << 30)

    found = judged(run, -9, evidence=seen, rusage={"max_rss_bytes": 31 << 30})

    assert (found["state"], found["code"], found["signal"]) == (State.KILLED, 81, "SIGKILL")
    assert found["what"] == (
        "killed by the kernel for memory (cgroup limit 32.0 GiB) at step 431; "
        "resumable from step 400"
    )
    assert "peak was 31.0 GiB" in found["why"]
    assert "train.workers" in found["do"]


def test_the_kernel_log_tells_a_memory_kill_where_no_group_counts(run):
    """By the pid that it names."""
    assert judged(run, -9, evidence=Evidence(killed_pids=(4711,)))["code"] == ExitCode.HOST_OOM
    assert judged(run, -9, evidence=Evidence(killed_pids=(1,)))["code"] == 137


def test_a_kill_elsewhere_on_the_host_is_a_guess_and_said_to_be_one(run):
    """The code stays that of the signal."""
    found = judged(run, -9, evidence=Evidence(num_host_oom_kills=1))

    assert (found["code"], found["class"]) == (137, "killed")
    assert "likely" in found["why"]


def test_another_signal_is_no_memory_kill(run):
    """A count that rose for another process does not explain a segmentation fault."""
    assert judged(run, -11, evidence=Evidence(num_oom_kills=1))["code"] == 139


def test_a_rank_that_was_killed_is_told_as_killed(run):
    """Torchrun itself ends with 1; its agent's log says which rank died of what."""
    run.console.write_text(TORCHRUN)

    found = judged(run, 1)

    assert (found["state"], found["code"], found["signal"]) == (State.KILLED, 137, "SIGKILL")
    assert found["what"] == (
        "process 1 (pid 4712) was killed by SIGKILL at step 431; resumable from step 400"
    )


@pytest.mark.parametrize("code", [1, 75])
def test_a_stop_that_the_death_of_another_rank_asked_for_is_no_persons(run, code):
    """Torchrun sends the others SIGTERM, which they obey as a stop."""
    run.console.write_text(TORCHRUN)
    Journal(run.worker_events, attempt=1).append(End(state=State.STOPPED, step=431))

    found = judged(run, code)

    assert (found["state"], found["code"], found["signal"]) == (State.KILLED, 137, "SIGKILL")
    assert "process 1 (pid 4712) was killed by SIGKILL" in found["what"]


def test_a_rank_that_ended_with_the_others_is_no_kill(run):
    """A second SIGTERM, or torchrun's patience, may end one after a stop that was asked for."""
    run.console.write_text(TORCHRUN.replace("exitcode: -9", "exitcode: -15"))
    Journal(run.worker_events, attempt=1).append(End(state=State.STOPPED, step=431))

    assert judged(run, 1)["state"] == State.STOPPED


def test_the_output_of_an_earlier_attempt_explains_nothing(run):
    """Only what came since the attempt began is read."""
    run.console.write_text(TORCHRUN)

    assert judged(run, 1, console_offset=console.size(run))["state"] == State.FAILED


def test_a_rank_that_said_why_is_believed_before_the_log(run):
    """Its error record names the cause; the signals to the others are the consequence."""
    run.console.write_text(TORCHRUN)
    failed(run, "the loss became nan", code=82)

    assert (judged(run, 1)["state"], judged(run, 1)["code"]) == (State.FAILED, 82)


@pytest.mark.parametrize(("number", "state"), [(9, State.KILLED), (6, State.FAILED)])
def test_an_error_that_the_death_of_another_rank_brought_about_is_not_the_cause(run, number, state):
    """A broken connection follows a kill; an abort follows an error, as NCCL's watchdog does it."""
    run.console.write_text(TORCHRUN.replace("exitcode: -9", f"exitcode: -{number}"))
    failed(run, "training failed: RuntimeError: Connection closed by peer", code=70)

    assert judged(run, 1)["state"] == state


def test_a_killed_data_loader_process_is_named(run):
    """Torch's own message alone would not say what to do."""
    failed(run, "RuntimeError: DataLoader worker (pid(s) 4712) exited unexpectedly")

    found = judged(run, 70)

    assert found["what"].startswith("data loader process 4712 ended unexpectedly at step 431")
    assert "train.workers" in found["do"]


@pytest.mark.parametrize("seen", [Evidence(num_oom_kills=1), Evidence(killed_pids=(4712,))])
def test_a_data_loader_process_killed_for_memory_ends_with_81(run, seen):
    """The group's count or the kernel's log proves it."""
    failed(run, "RuntimeError: DataLoader worker (pid 4712) is killed by signal: Killed. ")

    found = judged(run, 70, evidence=seen)

    assert found["code"] == ExitCode.HOST_OOM
    assert found["what"].startswith("data loader process 4712: killed by the kernel for memory")


def test_a_full_shared_memory_is_told_with_its_place(run):
    """The bus error of a data loader process."""
    failed(
        run,
        "RuntimeError: DataLoader worker (pid 4712) is killed by signal: Bus error. It is possible "
        "that dataloader's workers are out of shared memory. Please try to raise your limit.",
    )

    found = judged(run, 70)

    assert (found["code"], found["where"]) == (ExitCode.HOST_OOM, "/dev/shm")  # noqa: S108
    assert "--shm-size" in found["do"]


def test_a_worker_that_ends_with_zero_too_early_is_counted_as_stopped(run):
    """Success is every step done and a result, not an exit code."""
    found = judged(run, 0)

    assert (found["state"], found["code"]) == (State.STOPPED, ExitCode.STOPPED)
    assert found["what"] == "ended at step 431 of 1000: counted as stopped"


def test_a_process_stuck_in_the_driver_is_named_in_the_record(run):
    """A person has to know before the next start."""
    words = "process 4711 is stuck in the driver; the host may need a reboot"

    found = judged(run, -9, stuck=(words,))

    assert found["leftovers"] == [words]
    assert words in found["why"]


@pytest.mark.parametrize("return_code", [-64, -40, 255, 3])
def test_every_exit_code_is_told(run, return_code):
    """Real-time signals have no name, and a code without a reason is still reported."""
    found = judged(run, return_code)

    assert found["what"]
    assert found["code"] in (128 - return_code, return_code)


def test_the_watch_finds_nothing_where_nothing_happened():
    """On this host, with whatever control groups and kernel log it has."""
    found = evidence.Watch(os.getpid()).look()

    assert (found.num_oom_kills, found.xids, found.killed_pids) == (0, (), ())


def test_the_watch_counts_a_kill_since_its_start(tmp_path, monkeypatch):
    """What happened before is another run's."""
    name = evidence.memory_group(f"{V2}", tmp_path)
    folder = group(tmp_path, "box", memory__events="oom_kill 5\n")
    monkeypatch.setattr(evidence, "memory_group", lambda _: folder)
    watch = evidence.Watch(os.getpid())
    group(tmp_path, "box", memory__events="oom_kill 6\n", memory__max=f"{1 << 30}\n")
    monkeypatch.setattr(evidence.limit_bytes, "__defaults__", (tmp_path,))

    found = watch.look()

    assert name == tmp_path
    assert (found.num_oom_kills, found.memory_limit_bytes) == (1, 1 << 30)


def test_an_address_space_limit_is_an_error_that_python_can_tell():
    """A MemoryError ends in a traceback and a code, not in a kill: no evidence is needed."""
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 28,) * 2); b = bytearray(1 << 29)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, "MemoryError" in done.stderr) == (1, True)


class KernelLog:
    """What reads of /dev/kmsg give, in order; the device is closed with the last one."""

    def __init__(self, monkeypatch, reads):
        reads = iter(reads)
        real = os.open
        monkeypatch.setattr(kernel_log.os, "read", lambda _fd, _num: next(reads))
        monkeypatch.setattr(
            kernel_log.os,
            "open",
            lambda path, *a: real("/dev/null" if path == "/dev/kmsg" else path, *a),
        )


def test_a_kernel_log_that_has_an_end_is_read_to_it(monkeypatch):
    """Containers bind /dev/null there: every read gives nothing, none would block."""
    KernelLog(monkeypatch, [KMSG.encode(), b""])

    assert kernel_log._read_kmsg() == KMSG


def test_a_kernel_log_without_an_end_is_read_so_far(monkeypatch):
    """A file that never runs dry keeps no supervisor from recording the end."""
    KernelLog(monkeypatch, itertools.repeat(b"x" * 8192))

    assert len(kernel_log._read_kmsg()) == 16 << 20


def test_overwritten_progress_bars_are_collapsed():
    """What a terminal would still show stays; line ends of both kinds stay."""
    text = b"a\rb\rc\nplain\r\nlast 1%\rlast 2%"

    assert console.collapse(text) == b"c\nplain\r\nlast 2%"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"a\rb\r\n", b"b\r\n"),
        (b"a\r\r\nb", b"\r\nb"),
        (b"a\rb\r", b"b\r"),
        (b"x\r" * 500_000 + b"end\n", b"end\n"),
        (b"x" * 1_000_000 + b"\r\n", b"x" * 1_000_000 + b"\r\n"),
    ],
)
def test_a_line_of_any_length_is_collapsed_in_one_pass(text, shown):
    """In time that grows with its length alone: with its square, these would take hours."""
    assert console.collapse(text) == shown


def test_a_log_over_its_limit_is_cut_and_its_end_kept(run, monkeypatch):
    """Both parts together stay within twice the limit."""
    monkeypatch.setattr(console, "LIMIT_BYTES", 1000)
    run.console.write_bytes(b"x" * 5000 + b"\nthe end\n")

    assert console.rotate(run)
    assert run.console.stat().st_size == 0
    kept = console.older_part(run).read_bytes()
    assert (len(kept), kept.endswith(b"the end\n")) == (1000, True)


def test_a_full_disk_costs_the_old_part_not_the_run(run, monkeypatch):
    """The log is cut all the same: it must not fill what is left."""
    monkeypatch.setattr(console, "LIMIT_BYTES", 1000)
    run.console.write_bytes(b"x" * 5000)
    real = durable.write_atomic
    monkeypatch.setattr(durable, "write_atomic", _no_room)

    assert console.rotate(run)

    monkeypatch.setattr(durable, "write_atomic", real)
    assert console.size(run) == 0


def _no_room(*_):
    raise OSError(28, "No space left on device")


def test_lines_of_a_log_are_compared_with_their_own_clock():
    """A message at the very moment of the start is older than the start."""
    lines = [Line(5.0, "NVRM: Xid (PCI:0000:3b:00): 79")]

    assert kernel_log.xids(lines, since=5.0) == []
