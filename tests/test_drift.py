"""What a result depends on is compared before a run goes on or again, and told or refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from known import HOST

from advisor import recipe as recipes
from profiles.errors import ExitCode, UserError
from profiles.machines import machine, planned
from profiles.runs import durable, rundir
from runner.checks import preflight, replay
from runner.checks import surroundings as around
from tui.commands import run as command

TEXT = """schema = 1
name = "tiny"
[model]
id = "model"
[data]
train = "rows.json"
[method]
name = "lora"
[train]
precision = "fp32"
"""
FLAGS = "flags : fpu avx2 fma avx512f avx512bw avx512dq avx512vl\n"


@pytest.fixture
def box(monkeypatch, tmp_path):
    """A machine as the test wants it: processor, GPUs, environment."""
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(FLAGS)
    monkeypatch.setattr(around, "_CPU_INFO", cpu)
    monkeypatch.setattr(around, "num_processors", lambda: 8)
    for name in [name for name in os.environ if name.startswith(around._READ_BY_TORCH)]:
        monkeypatch.delenv(name)
    here = SimpleNamespace(machine=replace(HOST, gpus=()), cpu=cpu)
    monkeypatch.setattr(machine, "probe", lambda *_: here.machine)
    return here


@pytest.fixture
def locked(home, box, tmp_path):
    """A run with its inputs and its lock, as the first attempt leaves them."""
    folder = tmp_path / "inputs"
    (folder / "model").mkdir(parents=True)
    for name, content in {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors": b"weights",
    }.items():
        (folder / "model" / name).write_bytes(content)
    (folder / "rows.json").write_text('[{"instruction": "a", "output": "b"}]')
    run = rundir.create("tiny")
    run.recipe.write_text(TEXT)
    recipe = recipes.parse(TEXT, where="r")
    found = preflight.surroundings_of(recipe)
    durable.write_json(run.manifest, {"id": run.id, "base_dir": str(folder), "surroundings": found})
    lock = {"schema": 1, "packages": {"click": None, "pytest": None}}
    first = replay.found(recipe, folder, lock, found)
    durable.write_json(run.recipe_lock, lock | first)
    return SimpleNamespace(run=run, folder=folder, box=box)


def flip_bit(path, *, keeps_time=False):
    """One bit of a file, in place."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keeps_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit(locked, old, new):
    """The run's own recipe says something else."""
    locked.run.recipe.write_text(locked.run.recipe.read_text().replace(old, new))


def break_lock(locked, **changes):
    """The lock was of something else."""
    lock = json.loads(locked.run.recipe_lock.read_text())
    durable.write_json(locked.run.recipe_lock, lock | changes)


def with_gpu(locked, name, driver="580.1"):
    """A machine with a GPU."""
    found = planned.plan_machine(name)
    locked.box.machine = replace(found, driver=driver)


def relock(locked):
    """The lock of the machine as it is now."""
    recipe = recipes.parse(locked.run.recipe.read_text(), where="r")
    break_lock(locked, surroundings=preflight.surroundings_of(recipe))


def other_driver(locked, _monkeypatch):
    with_gpu(locked, "T4")
    relock(locked)
    with_gpu(locked, "T4", driver="570.9")


def other_gpu(locked, _monkeypatch):
    with_gpu(locked, "T4")
    relock(locked)
    with_gpu(locked, "RTX 4090")


INPUTS = {
    "data": (lambda o, _: flip_bit(o.folder / "rows.json"), "data.train"),
    "model": (
        lambda o, _: flip_bit(o.folder / "model" / "model.safetensors"),
        "model/model.safetensors",
    ),
    "model, its time put back": (
        lambda o, _: flip_bit(o.folder / "model" / "model.safetensors", keeps_time=True),
        "model/model.safetensors",
    ),
    "template": (
        lambda o, _: flip_bit(o.folder / "model" / "chat_template.jinja"),
        "model/chat_template.jinja",
    ),
    "tokenizer": (lambda o, _: flip_bit(o.folder / "model" / "tokenizer.json"), "tokenizer.json"),
    "another shard": (
        lambda o, _: (o.folder / "model" / "more.safetensors").write_bytes(b"x"),
        "model/more.safetensors",
    ),
    "a file that is gone": (
        lambda o, _: (o.folder / "model" / "config.json").unlink(),
        "model/config.json",
    ),
}
RECIPE = {
    "learning rate": (
        lambda o, _: edit(o, "[train]", "[train]\nlearning_rate = 1e-3"),
        "recipe: train.learning_rate",
    ),
    "seed": (lambda o, _: edit(o, "[train]", "[train]\nseed = 7"), "recipe: train.seed"),
    "rank": (lambda o, _: edit(o, 'name = "lora"', 'name = "lora"\nrank = 4'), "method.rank"),
}
AROUND = {
    "threads": (lambda _, m: m.setenv("OMP_NUM_THREADS", "1"), "$OMP_NUM_THREADS"),
    "processors": (lambda _, m: m.setattr(around, "num_processors", lambda: 4), "processors"),
    "processor": (
        lambda o, _: setattr(o.box, "machine", replace(o.box.machine, cpu_name="other")),
        "processor",
    ),
    "instructions": (
        lambda o, _: o.box.cpu.write_text("flags : fpu avx2 fma\n"),
        "instructions",
    ),
    "environment": (lambda _, m: m.setenv("NVIDIA_TF32_OVERRIDE", "0"), "$NVIDIA_TF32_OVERRIDE"),
    "GPU": (other_gpu, "GPU"),
    "driver": (other_driver, "driver"),
    "package": (lambda o, _: break_lock(o, packages={"click": "0.1"}), "click"),
    "python": (lambda o, _: break_lock(o, python="3.7.0"), "python"),
}


def replayed(locked, capsys, **options):
    """What `advisor run RUN_DIR` says before it starts; the error, if it refuses."""
    path = locked.run.recipe
    recipe = recipes.parse(path.read_text(), where="r")
    try:
        command._compare(recipe, path, (), **{"allow_changed": False} | options)
    except UserError as error:
        return capsys.readouterr().err, error
    return capsys.readouterr().err, None


def resumed(locked, **options):
    """The warnings of a resume, or the error with which it is refused; as far as the lock goes."""
    recipe = recipes.parse(locked.run.recipe.read_text(), where="r")
    found = preflight._changes(locked.run, recipe, preflight.surroundings_of(recipe))
    if not options.get("allow_changed"):
        replay.refuse_resume(found, locked.run.recipe)
    return [change.words for change in found]


def test_what_is_as_it_was_is_said_to_be(locked, capsys):
    """Nothing is read again, nothing told."""
    assert resumed(locked) == []
    said, error = replayed(locked, capsys)
    assert error is None
    assert said.splitlines()[-1].endswith("machine are as the lock has them")


@pytest.mark.parametrize("kind", INPUTS)
def test_other_inputs_are_refused_by_a_resume_and_by_a_replay(locked, monkeypatch, capsys, kind):
    """With their names; `--allow-changed` goes on and tells them."""
    change, name = INPUTS[kind]
    change(locked, monkeypatch)

    with pytest.raises(UserError, match="not as the run began") as refused:
        resumed(locked)
    said, error = replayed(locked, capsys)

    assert refused.value.code == error.code == ExitCode.BAD_DATA
    assert name in refused.value.what
    assert name in error.what
    assert name in said
    assert any(name in words for words in resumed(locked, allow_changed=True))
    assert replayed(locked, capsys, allow_changed=True)[1] is None


@pytest.mark.parametrize("kind", RECIPE)
def test_an_edited_recipe_is_refused_by_a_resume_and_told_by_a_replay(
    locked, monkeypatch, capsys, kind
):
    """Key, value then and value now."""
    change, name = RECIPE[kind]
    change(locked, monkeypatch)

    with pytest.raises(UserError, match="not as the run began") as refused:
        resumed(locked)
    said, error = replayed(locked, capsys)

    assert refused.value.code == ExitCode.BAD_RECIPE
    assert name in refused.value.why
    assert " was " in refused.value.why
    assert error is None
    assert name in said
    assert any(name in words for words in resumed(locked, allow_changed=True))


@pytest.mark.parametrize("kind", AROUND)
def test_what_changes_the_bits_around_a_run_is_told(locked, monkeypatch, capsys, kind):
    """By name, then and now; it refuses nothing."""
    change, name = AROUND[kind]
    change(locked, monkeypatch)

    said, error = replayed(locked, capsys)

    rows = [line.split()[0] for line in said.splitlines() if line.startswith("  ")]
    assert error is None
    assert name in rows
    assert any(words.startswith(f"{name} was ") for words in resumed(locked))


def test_keys_that_are_set_on_the_command_line_are_told_too(locked, capsys):
    """They are drift like any other; data that was set on purpose is not refused."""
    recipe = recipes.with_changes(TEXT, {"train.seed": "9"}, where="r")
    command._compare(recipe, locked.run.recipe, ("train.seed",), allow_changed=False)

    row = next(line for line in capsys.readouterr().err.splitlines() if "train.seed" in line)
    assert row.split()[-2:] == ["0", "9"]


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe"])
def test_a_lock_that_cannot_be_read_is_an_error_and_not_no_lock(locked, capsys, content):
    """Nobody would know that nothing was compared."""
    locked.run.recipe_lock.write_bytes(content)

    _, error = replayed(locked, capsys)

    assert error.code == ExitCode.BAD_DATA
    assert "cannot be read" in error.what


def test_a_run_without_a_lock_is_compared_with_nothing(locked):
    """It was killed before it had read its inputs."""
    locked.run.recipe_lock.unlink()
    flip_bit(locked.folder / "rows.json")

    assert resumed(locked) == []


def test_only_what_changed_in_size_or_time_is_read_again(locked, monkeypatch):
    """A model of 100 GB would take minutes."""
    read = []
    real = replay.checkpoints.hash_file
    monkeypatch.setattr(
        replay.checkpoints, "hash_file", lambda path: read.append(path.name) or real(path)
    )

    resumed(locked)
    assert read == []
    (locked.folder / "rows.json").touch()
    assert resumed(locked) == []
    assert read == ["rows.json"]


def test_an_older_lock_is_compared_as_far_as_it_goes(locked, capsys):
    """Nothing that it does not have is called new."""
    lock = json.loads(locked.run.recipe_lock.read_text())
    for table in ("recipe", "surroundings", "stamps"):
        del lock[table]
    durable.write_json(locked.run.recipe_lock, lock)

    assert resumed(locked) == []
    assert replayed(locked, capsys)[1] is None


def test_secrets_of_the_environment_are_no_surroundings(box, monkeypatch):
    """Only what torch and its libraries read for their results is kept."""
    for name in ("HF_TOKEN", "CUDA_VISIBLE_DEVICES", "OMP_WAIT_POLICY", "PATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    found = around.surroundings(box.machine, (), os.environ)

    assert {name for name in found if name.startswith("$")} == {"$CUBLAS_WORKSPACE_CONFIG"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (FLAGS, "AVX512"),
        ("flags : avx2 fma avx512f\n", "AVX2"),
        ("flags : avx2\n", "default"),
        ("", "unknown"),
    ],
)
def test_the_instructions_are_those_that_torch_takes(box, flags, expected):
    """As `torch.backends.cpu.get_cpu_capability` names them, where it is asked."""
    box.cpu.write_text(flags)
    assert around.instructions() == expected


def test_this_processor_is_named_as_torch_names_it():
    """The real one."""
    torch = pytest.importorskip("torch")
    assert around.instructions().upper() == torch.backends.cpu.get_cpu_capability().upper()


def test_only_the_gpus_to_be_used_count(box):
    """By their place."""
    two = planned.plan_machine("1x T4 + 1x RTX 4090")
    used = [str(two.gpus[1].index)]
    assert around.surroundings(two, used, {})["GPU"] == two.gpus[1].name
