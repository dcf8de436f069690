"""How an attempt ended, in words and numbers: what exit.json says.

Pure but for the run's own files. The worker's own word counts before its exit code, and what the
system knows (memory kills, GPU faults) explains a death that the worker could not.
"""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from profiles.errors import ExitCode
from profiles.quantities import bytes_text
from profiles.runs import advice
from profiles.runs.journal import read_all
from profiles.runs.records.worker import End, WorkerStarted
from profiles.runs.rundir import RunDir, read_json
from profiles.runs.state import State, Status, status
from runner.supervision import console, kernel_log
from runner.supervision.evidence import Evidence

SCHEMA = 1
_PARTS = ("code", "what", "why", "do", "where")
_LOADER_DIED = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[\w ]+)|exited unexpectedly)"
)
_NO_SHARED_MEMORY = re.compile(
    r"out of shared memory|insufficient shared memory|Bus error", re.IGNORECASE
)
_GPU_GONE = re.compile(r"GPU is lost|fallen off the bus|uncorrectable ECC error", re.IGNORECASE)
_SUDDEN = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)
"""Signals that no process sends itself in answer to an error, as NCCL's watchdog does SIGABRT."""
_FEWER_WORKERS = "set train.workers lower (0 uses no extra process) or give the run more memory"
_OUT_OF_MEMORY = (ExitCode.GPU_OOM, ExitCode.HOST_OOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What the supervisor saw of a worker that has ended."""

    attempt: int
    return_code: int
    """As subprocess gives it: minus the signal for a death by signal."""
    forced: bool = False
    """We ended it, because it did not answer a "stop now"."""
    console_offset: int = 0
    """Where the attempt's output begins."""
    evidence: Evidence = field(default_factory=Evidence)
    rusage: dict[str, Any] = field(default_factory=dict)
    stuck: tuple[str, ...] = ()
    """Words for processes that could not be ended."""
    failure: str = ""
    """Why no worker could be started; empty if one was."""


def of(run: RunDir, ended: Ended) -> dict[str, Any]:
    """The content of exit.json."""
    found = _Facts(run, ended)
    content = found.blank() | found.judged()
    code = content["code"]
    known = {int(c): c.name.lower() for c in ExitCode}
    content["class"] = known.get(code, "killed" if content["signal"] else "unknown")
    if ended.stuck:
        content["why"] = "; ".join(filter(None, [content["why"], *ended.stuck]))
    return content


def unexplained(run: RunDir, ended: Ended) -> dict[str, Any]:
    """The least that can be said, where judging the end failed itself."""
    code = ended.return_code
    return {
        "schema": SCHEMA,
        "attempt": ended.attempt,
        "state": State.FAILED if code >= 0 else State.KILLED,
        "code": code if code > 0 else 128 - code if code else int(ExitCode.INTERNAL),
        "signal": name_of_signal(-code) if code < 0 else None,
        "class": "unknown",
        "what": f"the worker ended with {code}; why could not be found out",
        "why": "a fault of ours, with its traceback in the console log",
        "do": advice.going_on(run, status(run).resumable_from),
        "where": str(run.console),
        "t": time.time(),
    }


def wants_clean_restart(run: RunDir, attempt: int, return_code: int) -> bool:
    """The worker asked for a clean process: only that helps a GPU after running out of memory.

    torchrun ends with 1 whatever its ranks said, so the error record decides.
    """
    error = read_json(run.error) or {}
    asked = error.get("attempt") == attempt and error.get("clean_restart") is True
    return asked and return_code > 0 and error.get("code") in _OUT_OF_MEMORY


class _Facts:
    """One judgement: each method is one kind of end."""

    def __init__(self, run: RunDir, ended: Ended) -> None:
        self.run = run
        self.ended = ended
        self.now: Status = status(run)
        self.text = console.tail(run, ended.console_offset)
        error = read_json(run.error)
        mine = error is not None and error.get("attempt") == ended.attempt
        self.error = error if mine else None

    def blank(self) -> dict[str, Any]:
        resumable = self.now.resumable_from
        return {
            "schema": SCHEMA,
            "attempt": self.ended.attempt,
            "state": State.FAILED,
            "code": int(ExitCode.INTERNAL),
            "signal": None,
            "class": "",
            "what": "",
            "why": "",
            "do": advice.going_on(self.run, resumable) if resumable else "",
            "where": str(self.run.console),
            "evidence": self.ended.evidence.as_dict(),
            "leftovers": list(self.ended.stuck),
            "rusage": self.ended.rusage,
            "last_step": self.now.step,
            "resumable_from": resumable,
            "t": time.time(),
        }

    def judged(self) -> dict[str, Any]:
        said = self._said()
        if said == State.FINISHED and self.run.model.is_dir():
            # whatever happened after that, in a library's teardown for example, the result is there
            return self._finished()
        if self.ended.forced:
            return _stopped(f"stopped by force at step {self.now.step}: it did not answer for 10 s")
        if said == State.STOPPED or self.ended.return_code == ExitCode.STOPPED:
            stopped = f"stopped on request at step {self.now.step}, {self._saved()}"
            return self._rank_killed() or _stopped(stopped)
        if known := self._never_began() or self._system_fault():
            return known
        killed = self._killed()
        if killed is None and self.error is not None:
            return {part: self.error[part] for part in _PARTS if part in self.error}
        return killed or self._without_a_word()

    def _said(self) -> str | None:
        """The end that the worker wrote down in this attempt, if it came to one."""
        ends = [e for e in read_all(self.run.worker_events) if isinstance(e, End)]
        mine = [e.state for e in ends if e.attempt == self.ended.attempt]
        return mine[-1] if mine else None

    def _saved(self) -> str:
        step = self.now.resumable_from
        return f"resumable from step {step}" if step else "nothing was saved"

    def _never_began(self) -> dict[str, Any] | None:
        if self.ended.return_code == -signal.SIGTERM and not self.now.num_steps:
            # so early that nothing answered the signal yet
            return _stopped("stopped by SIGTERM before training began; nothing was saved")
        if not self.ended.failure:
            return None
        what = f"the worker could not be started: {self.ended.failure}"
        return {"code": int(ExitCode.DRIVER), "what": what}

    def _system_fault(self) -> dict[str, Any] | None:
        return self._gpu_lost() or self._killed_for_memory() or self._loader_died()

    def _finished(self) -> dict[str, Any]:
        step, planned = self.now.step, self.now.num_steps
        done = (
            f"stopped early at step {step} of {planned}"
            if step < planned
            else (f"all {step} steps are done")
        )
        what = f"{done}, the result is in {self.run.model}"
        return {"state": State.FINISHED, "code": 0, "what": what, "do": ""}

    def _signal(self) -> tuple[int, str]:
        """(number, who) of the signal that ended the worker or one of torchrun's ranks; 0: none."""
        if self.ended.return_code < 0:
            return -self.ended.return_code, ""
        found = console.killed_rank(self.text)
        if found is None:
            return 0, ""
        number, rank, pid = found
        if self.error is not None and not self._is_consequence(number):
            return 0, ""
        return number, f"process {rank} (pid {pid}) was "

    def _is_consequence(self, number: int) -> bool:
        """What a rank wrote is of the kind that the sudden death of another one brings about."""
        error = self.error or {}
        return error.get("code") == ExitCode.INTERNAL and number in _SUDDEN

    def _rank_killed(self) -> dict[str, Any] | None:
        """Torchrun asks the other ranks to stop when one has died: nobody else did."""
        found = console.killed_rank(self.text)
        return self._killed() if found is not None and found[0] in _SUDDEN else None

    def _killed(self) -> dict[str, Any] | None:
        number, who = self._signal()
        if not number or (self.error is not None and not who):
            return None
        name = name_of_signal(number)
        why = "a process outside the run sent the signal, or the kernel did"
        if self.ended.evidence.num_host_oom_kills and number == signal.SIGKILL:
            why = "the host ran out of memory meanwhile, and the kernel killed a process: likely it"
        return {
            "state": State.KILLED,
            "code": 128 + number,
            "signal": name,
            "what": f"{who}killed by {name} at step {self.now.step}; {self._saved()}",
            "why": self._with_program_faults(why),
        }

    def _with_program_faults(self, why: str) -> str:
        """Xids of the program's own making explain; they do not accuse the hardware."""
        known = kernel_log.APPLICATION
        said = [f"Xid {x.number} ({known[x.number]})" for x in self._xids() if x.number in known]
        return f"{why}; the driver reported {', '.join(said)}" if said else why

    def _xids(self) -> tuple[kernel_log.Xid, ...]:
        return self.ended.evidence.xids

    def _gpu_lost(self) -> dict[str, Any] | None:
        faults = [x for x in self._xids() if x.is_hardware]
        if faults:
            first = faults[0]
            name = kernel_log.name_of_gpu(first.bus)
            what = f"{name} {kernel_log.HARDWARE[first.number]} (Xid {first.number})"
        elif self.error is not None and (found := _GPU_GONE.search(self._told())):
            what = f"a GPU was lost: {found[0]}"
        else:
            return None
        return {
            "code": int(ExitCode.GPU_LOST),
            "signal": self._signal_name(),
            "what": f"{what}; {self._saved()}",
            "why": "a fault of the hardware or its driver, not of the training",
            "do": self._after_hardware(),
        }

    def _after_hardware(self) -> str:
        asked = "ask the administrator"
        resume = advice.command("resume", self.run)
        return f"{asked}; {resume} goes on on another GPU" if self.now.resumable_from else asked

    def _signal_name(self) -> str | None:
        number, _ = self._signal()
        return name_of_signal(number) if number else None

    def _told(self) -> str:
        """What the worker wrote about its error, and the end of its output."""
        error = self.error or {}
        return f"{error.get('what', '')} {error.get('why', '')} {self.text}"

    def _killed_for_memory(self) -> dict[str, Any] | None:
        number, _ = self._signal()
        loader = _LOADER_DIED.search(self._told()) if self.error is not None else None
        if number != signal.SIGKILL and loader is None:
            return None
        seen = self.ended.evidence
        if not seen.num_oom_kills and not self._is_named(loader):
            return None
        limit = seen.memory_limit_bytes
        place = f" (cgroup limit {bytes_text(limit)})" if limit else ""
        who = f"data loader process {loader['pids']}: " if loader else ""
        peak = self.ended.rusage.get("max_rss_bytes", 0)
        used = f"; the worker's peak was {bytes_text(peak)}" if peak else ""
        return {
            "state": State.KILLED,
            "code": int(ExitCode.HOST_OOM),
            "signal": "SIGKILL",
            "what": f"{who}killed by the kernel for memory{place} at step {self.now.step}; "
            f"{self._saved()}",
            "why": f"the host's memory, not the GPU's, was used up{used}",
            "do": _FEWER_WORKERS,
        }

    def _is_named(self, loader: re.Match[str] | None) -> bool:
        """The kernel's log names the process that ended."""
        events = read_all(self.run.worker_events)
        ours = {e.pid for e in events if isinstance(e, WorkerStarted)}
        if loader is not None:
            ours |= {int(pid) for pid in re.findall(r"\d+", loader["pids"])}
        return bool(ours.intersection(self.ended.evidence.killed_pids))

    def _loader_died(self) -> dict[str, Any] | None:
        found = _LOADER_DIED.search(self._told()) if self.error is not None else None
        if found is None:
            return None
        if _NO_SHARED_MEMORY.search(self._told()):
            return {
                "code": int(ExitCode.HOST_OOM),
                "what": f"data loader process {found['pids']} had no room in shared memory; "
                f"{self._saved()}",
                "why": "data loader processes pass their batches through /dev/shm, which is full",
                "do": f"{_FEWER_WORKERS}; in a container: a larger --shm-size",
                "where": "/dev/shm",  # noqa: S108  # named to a person, not written to
            }
        how = f"was killed ({found['signal'].strip()})" if found["signal"] else "ended unexpectedly"
        return {
            "code": int(ExitCode.INTERNAL),
            "what": f"data loader process {found['pids']} {how} at step {self.now.step}; "
            f"{self._saved()}",
            "why": "a process outside the run ended it, or the kernel did, most often for memory",
            "do": _FEWER_WORKERS,
        }

    def _without_a_word(self) -> dict[str, Any]:
        code, now = self.ended.return_code, self.now
        if code == ExitCode.FINISHED:  # success is every step done and a result, not a zero
            return _stopped(f"ended at step {now.step} of {now.num_steps}: counted as stopped")
        what = f"the worker ended with exit code {code} and gave no reason"
        return {"code": code, "what": what, "why": self._with_program_faults("")}


def _stopped(what: str) -> dict[str, Any]:
    return {"state": State.STOPPED, "code": int(ExitCode.STOPPED), "what": what}


def name_of_signal(number: int) -> str:
    """Like "SIGKILL"; real-time signals have numbers alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
