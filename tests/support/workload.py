"""The life of a run on a faulty disk, and what must hold whatever happens.

`violations` lives through faults one by one: a run is launched, trains, saves, rotates, is stopped,
publishes, is resumed and comes to its end, with the fault somewhere on the way; after each fault
the run is recovered and goes on to its end. What people were told must still be true.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from faulty_disk import Crash, Fault, FaultyDisk
from on_disk import read_all
from record_examples import example

from profiles.errors import UserError
from profiles.runs import durable, rundir
from profiles.runs.journal import Journal
from profiles.runs.records.evaluation import Answer
from profiles.runs.records.metrics import Loss
from profiles.runs.records.worker import Checkpoint, End, Resumed
from profiles.runs.rundir import read_json
from runner import checkpoints

STOP_AT, END_AT = 40, 60
_KEEP = 1
"""Fewer than rotation allows: it must keep two."""
_TRIES = 2
_ROTS = 30


class World:
    """One run, and what people were told of it."""

    def __init__(self):
        self.run = None
        self.told = set()
        """Steps whose checkpoint was acknowledged."""
        self.rotten = set()
        """Steps whose files went bad on the device."""
        self.has_rotted = False
        self.seen = []
        """What was wrong on the way."""
        self.attempts, self.best, self.pins = {1}, {None}, {()}
        """Values that may be on the disk: the old and, while it is written, the new one."""
        self.files = set()
        """JSON files that are there."""
        self.has_model = False

    def go_on(self):
        """Do all that is left to do: launcher, supervisor and worker."""
        if self.run is None:
            self._launch()
        while not self._has_ended("finished"):
            self._attempt()

    def _has_ended(self, state):
        return any(e.get("state") == state for e in read_all(self.run.worker_events))

    def _launch(self):
        run = rundir.create("a run")
        durable.write_atomic(run.recipe, b"name = 'a run'\n")
        durable.write_json(run.manifest, {"schema": 1, "created": 1.0})
        self.run, self.files = run, {run.manifest}

    def _attempt(self):
        run, number = self.run, max(self.attempts) + self.run.attempt_file.exists()
        self.attempts.add(number)
        durable.write_atomic(run.attempt_file, f"{number}\n".encode())
        self.attempts = {number}
        durable.clear_leftovers(run.path)  # the supervisor, once it holds the lock
        with self._journals(number) as (events, metrics):
            self._train(events, metrics)
        durable.write_json(run.exit, {"attempt": number})
        self.files.add(run.exit)

    @contextlib.contextmanager
    def _journals(self, number):
        with contextlib.ExitStack() as stack:
            opened = []
            for path in (self.run.worker_events, self.run.metrics):
                opened.append(Journal(path, attempt=number, max_bytes=900))
                stack.callback(opened[-1].close)
            yield opened

    def _train(self, events, metrics):
        run = self.run
        checkpoints.clear_staging(run)
        sound, faults = checkpoints.newest_sound(run)
        for checkpoint in faults:
            checkpoints.set_aside(checkpoint)
            self.rotten.discard(checkpoint.step)
        start = sound.step if sound else 0
        events.append(Resumed(from_step=start, passed_over=()))
        until = END_AT if self._has_ended("stopped") else STOP_AT
        for step in range(start + 10, until + 10, 10):
            metrics.append(Loss(step=step, loss=1.0), sync=False)
            self._save(events, step)
            self._mark(step)
        metrics.sync()
        if until == STOP_AT:
            self._save(events, until)
            self._pin()
        self._publish(events, until)
        events.append(End(state="finished" if until == END_AT else "stopped", step=until))

    def _save(self, events, step):
        _retry(self._commit, step)
        self.acknowledge(events, step)
        if durable.disk.fault.kind == "error" and (why := checkpoints.verify(self._place(step))):
            self.seen.append(f"step {step} was acknowledged, but {why}")
        checkpoints.rotate(self.run, _KEEP)
        if step == _ROTS and not self.has_rotted:
            self._rot()

    def acknowledge(self, events, step):
        """Write the event; people are told once it is on the device."""
        before = events.num_failed_syncs
        events.append(example(Checkpoint, step=step))
        if events.num_waiting == 0 and events.num_failed_syncs == before:
            self.told.add(step)

    def _commit(self, step):
        staging = checkpoints.stage(self.run, step)
        (staging / "deep").mkdir()
        (staging / "weights").write_bytes(bytes([step]) * 40)
        (staging / "deep" / "state.json").write_text(f'{{"step": {step}}}')
        final = checkpoints.commit(self.run, staging, step).path
        self.rotten.discard(step)
        os.utime(final, (10_000 - step, 10_000 - step))  # the clock is set back now and then

    def _rot(self):
        """The newest checkpoint goes bad on the device; the worker does not know."""
        self.seen += self._lost()
        self.has_rotted = True
        self.rotten.add(_ROTS)
        self.told &= self._sound_steps() - {_ROTS}  # the others were rotated while this one counted
        with contextlib.suppress(OSError):  # a rotation that goes wrong may have removed it
            (self._place(_ROTS) / "weights").write_bytes(b"rot")

    def _place(self, step):
        return self.run.checkpoints / f"step-{step:08d}"

    def _mark(self, step):
        if step in (10, 50):
            self.best.add(step)
            with contextlib.suppress(OSError):
                checkpoints.mark_best(self.run, step, 1.0 / step)
                self.best = {step}

    def _pin(self):
        if not self._place(20).exists():
            return
        self.pins.add((20,))
        with contextlib.suppress(OSError):
            checkpoints.pin(self.run, 20, "before the fault")
            self.pins = {(20,)}

    def _publish(self, events, step):
        _retry(self._publish_once, step)
        events.append(example(Answer, step=step))
        self.has_model = True

    def _publish_once(self, step):
        staging = self.run.path / f"{durable.STAGING_PREFIX}model"
        durable.remove_tree(staging, inside=self.run.path)
        staging.mkdir()
        (staging / "model.safetensors").write_bytes(bytes([step]) * 30)
        (staging / "model.safetensors").chmod(0o644)  # as a library may leave it
        checkpoints.seal(staging, step=step)
        durable.publish_dir(staging, self.run.model)

    def faults_at_once(self):
        """What is wrong right after a fault, before anything was repaired."""
        yield from self.seen
        if self.run is None:
            return
        for checkpoint in checkpoints.committed(self.run):
            if checkpoint.step not in self.rotten and (why := checkpoints.verify(checkpoint.path)):
                yield f"step {checkpoint.step} has its final name, but {why}"
        for path in (self.run.worker_events, self.run.metrics):
            numbers = [record["seq"] for record in read_all(path)]
            if numbers != list(range(1, len(numbers) + 1)):
                yield f"{path.name} has the records {numbers}"
        if self.run.attempt_file.exists() and self.run.attempt() not in self.attempts:
            yield f"attempt {self.run.attempt()}, not {self.attempts}"
        for path in self.files:
            if read_json(path) is None:
                yield f"{path.name} is gone"
        on_disk = {e["step"] for e in read_all(self.run.worker_events) if e["kind"] == "checkpoint"}
        if missing := self.told - on_disk:
            yield f"the events of {missing} are gone"

    def faults_after_repair(self):
        """What is wrong once the next attempt has settled what was unfinished."""
        if self.run is None:
            return
        checkpoints.clear_staging(self.run)
        run, sound = self.run, self._sound_steps()
        best, pinned = checkpoints.best(run), tuple(checkpoints.pins(run))
        if (best.step if best else None) not in self.best:
            yield f"the best is {best}, not {self.best}"
        if pinned not in self.pins:
            yield f"pinned are {pinned}, not {self.pins}"
        yield from self._lost()
        if best and best.step not in sound | self.rotten:
            yield f"the best, {best.step}, is gone"
        if self.has_model and checkpoints.verify(run.model):
            yield f"the model: {checkpoints.verify(run.model)}"

    def _lost(self):
        """Acknowledged checkpoints that no rotation may have removed."""
        sound, pinned = self._sound_steps(), checkpoints.pins(self.run)
        for step in self.told - sound:
            if sum(other > step for other in sound) < 2 or step in pinned:
                yield f"step {step} is gone, sound are {sorted(sound)}"

    def _sound_steps(self):
        return {
            c.step for c in checkpoints.committed(self.run) if checkpoints.verify(c.path) is None
        }

    def faults_at_the_end(self):
        """What is wrong when the run is finished."""
        run = self.run
        yield from self.faults_at_once()
        yield from self.faults_after_repair()
        if checkpoints.verify(self._place(END_AT)):
            yield "the last step was not saved"
        if (read_json(run.model / checkpoints.MANIFEST) or {}).get("step") != END_AT:
            yield "the model is not that of the last step"
        known = {"best.json", "pins.json"} | {c.path.name for c in checkpoints.committed(run)}
        names = {p.name for p in run.checkpoints.iterdir()} - known
        names = {n for n in names if not n.startswith(f"bad-step-{_ROTS:08d}-")}
        names |= {p.name for p in run.path.iterdir() if p.name.startswith(".")}
        # Nobody comes after the one who writes how the run ended
        names = {n for n in names if not n.startswith(f".tmp-{run.exit.name}-")}
        if names:
            yield f"left over: {sorted(names)}"


def _retry(act, step):
    """As the worker does when there is room again."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(OSError):
            return act(step)
    return act(step)


@contextlib.contextmanager
def _fresh_home(*, tracks=False):
    """A home of its own, in memory where that is possible, on a faulty disk."""
    base = Path("/dev/shm")  # noqa: S108  # a private directory is made inside
    place = Path(tempfile.mkdtemp(dir=base if base.is_dir() else None))
    home = place / "home"
    (home / "runs").mkdir(parents=True)
    disk = FaultyDisk(home, tracks=tracks)
    disk.fsync_dir(home)
    disk.count, mask = 0, os.umask(0o077)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TUNEDECK_HOME", str(home))
            patch.setattr(durable, "disk", disk)
            yield disk
    finally:
        os.umask(mask)
        disk.release()
        shutil.rmtree(place)


@functools.cache
def operations():
    """How many there are in a life without a fault, and which of them are writes."""
    with _fresh_home() as disk:
        World().go_on()
        return disk.count, tuple(disk.writes)


def crashes():
    """Before every operation."""
    return [(Fault(at=n),) for n in range(1, operations()[0] + 1)]


def torn_writes():
    """In every write."""
    return [(Fault(at=n, kind="torn"),) for n in operations()[1]]


def repeated_crashes():
    """At every fourth operation, and again while what that left is recovered."""
    chance = random.Random(1)  # noqa: S311  # no secret
    return [(*first, Fault(at=chance.randint(1, 60))) for first in crashes()[::4]]


def errors(*, last, every=1):
    """At every operation, or each so many, each kind in turn."""
    kinds = itertools.cycle((errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS))
    numbers = range(1, operations()[0] + 1, every)
    return [
        (Fault(at=n, kind="error", number=number, lasts=last),)
        for n, number in zip(numbers, kinds, strict=False)
    ]


def power_losses(*kinds):
    """At every operation, with unsynced names of these kinds and both ends of files in turn."""
    kinds = kinds or ("no", "yes", "some", "inner")
    ways = itertools.cycle(itertools.product((False, True), kinds))
    numbers = range(1, operations()[0] + 1)
    return [
        (Fault(at=n, kind="power", keeps_names=names, zeroes=zeroes),)
        for n, (zeroes, names) in zip(numbers, ways, strict=False)
    ]


def violations(faults, world_of=World):
    """What goes wrong in lives with these faults; nothing should."""
    for chain in faults:
        with _fresh_home(tracks=any(fault.kind in ("power", "error") for fault in chain)) as disk:
            try:
                for found in _live(world_of(), disk, chain):
                    yield chain, found
            except Exception as error:  # noqa: BLE001  # on a sound disk nothing may be raised
                yield chain, f"{type(error).__name__}: {error}"


def _live(world, disk, chain):
    for fault in chain:
        disk.begin(fault)
        with contextlib.suppress(Crash, OSError, UserError):
            world.go_on()
        if fault.kind == "power":
            disk.cut()
        disk.begin(Fault())
        yield from world.faults_at_once()
        yield from world.faults_after_repair()
    world.go_on()
    yield from world.faults_at_the_end()
