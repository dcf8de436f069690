"""Run directories as the runner leaves them, then spoilt: bytes, types, sizes and kinds of files.

Everything is drawn from one seed, so a number names the same directory for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import stat
import zlib
from pathlib import Path

from finished_run import RUN, finished_run

from profiles.runs.rundir import RunDir
from tests.canned_run import add_sample, canned_run, gpu

HOLE_BYTES = 4 << 30
LONG_AGO = 1.7e9
"""Unix time of every file: a run that was just made could still be about to start."""
_LARGE_BYTES = 8 << 20
"""An earlier change made it so; what follows is not about its content."""
_DEEP = 100_000
ODD_JSON = (
    *('"x"', '""', "null", "true", "[]", "{}", "-1", "0", "7", "1e99", "-1e99", "1e400", "NaN"),
    *("-Infinity", "9" * 400, "-" + "9" * 400, "9" * 5000, "0." + "9" * 400, "9223372036854775808"),
    *('"\\ud800"', '"a\\u0000b"', '"../../.."', '"/dev/zero"', '"\\u001b[2J\\n"', '"7"', '"nan"'),
    *(f'"{"x" * 5000}"', f'"/{"y/" * 150_000}"', "[" * _DEEP + "]" * _DEEP, "[1,[2,[3]]]"),
    *(f'"/{"x" * 300}"', f'"/{"y/" * 1990}"', '"/proc/1/root"', '"\\udc80"'),
    *('{"a":' * 300 + "1" + "}" * 300, '{"0":{},"":[]}', f"[{'{},' * 500_000}0]"),
)
ODD_TOML = (
    *('"x"', '""', "true", "[]", "{}", "-1", "0", "nan", "-inf", "1e400", "9" * 400, "9" * 5000),
    *(
        "1979-05-27",
        "[" * 5000,
        f'"{"x" * 5000}"',
        '"a\\u0000b"',
        '"/dev/zero"',
        '"../.."',
        "{a=1}",
    ),
    *(
        "1\n[odd]\nkey = 1",
        "0x7fffffffffffffff",
        f"{'[' * 90}{']' * 90}",
        '["a", 1]',
        '"\\u001b[2J"',
    ),
)
_MANY_PARTS = ".".join("a" * 50_000)
ODD_WORDS = ("9" * 400, "9" * 5000, "-1", "0", "x", "1.5", "nan", "\u0663", "1_000", "1e9", "")
ODD_BYTES = (
    *(b"", b"\0", b"\0" * 5000, b"\xff\xfe\xff", b"\xc3", b"{", b"[]", b"null", b'"', b"\n" * 5000),
    *(b"\r" * 5000, b"\x1b[2J", b"x" * 3_000_000, b"{}\n" * 100_000, b"[" * 1_000_000),
)
ABSENT = (
    *(
        "devices.json",
        "error.json",
        "stacks.log",
        "evaluations.jsonl",
        "layers.jsonl",
        "metrics.00001.jsonl",
    ),
    *(
        "events.runner.00001.jsonl",
        "attempts",
        "attempts/1",
        "attempts/99999",
        "attempts/" + "9" * 250,
    ),
    *("control/in/1.json", "control/done", "console.log.1", "checkpoints/best.json", "model/more"),
    *("checkpoints/pins.json", "checkpoints/step-00000099", "checkpoints/step-00000006/more"),
    *("checkpoints/step-00000098/MANIFEST.json", "lock.worker", "config.json", "odd\nname\x1b[2J"),
)


def write_sound(home: Path, base: Path) -> list[RunDir]:
    """A finished run, a stopped one and a lost one under the home; their model lies in `base`."""
    finished = finished_run(home, base)
    rows = [{"instruction": f"a {n}", "input": "", "output": "a a"} for n in range(40)]
    (base / "orders.json").write_text(json.dumps(rows))
    stopped = RunDir(finished.path.with_name("2026-11-22_0451_tiny_rwdxt"))
    shutil.copytree(finished.path, stopped.path)
    ended = json.loads(stopped.exit.read_text()) | {"state": "stopped", "code": 75}
    stopped.exit.write_text(json.dumps(ended))
    lost = RunDir(canned_run().path.rename(finished.path.with_name("2026-11-22_0452_tiny_rwdxu")))
    add_sample(lost, gpu(), gpu(1))
    shutil.copy(RUN / "recipe.toml", lost.recipe)
    people = re.sub(r'"(start|pid)": \d+', r'"\1": 1', lost.processes.read_text())
    lost.processes.write_text(people)
    manifest = json.loads(lost.manifest.read_text()) | {"base_dir": str(base)}
    lost.manifest.write_text(json.dumps(manifest))
    lost.console.write_text("a line\n" * 50)
    return [finished, stopped, lost]


def spoil(run: RunDir, rng: random.Random) -> list[str]:
    """Change one to three things in the run's directory; returns what was done, in words."""
    told = [_one(run.path, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    if rng.random() < 0.2:
        told.append(_beside(run.path, rng))
    _age(run.path)
    return told


def _one(folder: Path, rng: random.Random) -> str:
    if rng.random() < 0.01:
        shutil.rmtree(folder)
        folder.mkdir()
        return "empty"
    path = _place(folder, rng)
    kind = rng.choice((_kind_of_file, _values, _values, _values, _bytes, _size))
    is_plain = not path.is_symlink() and path.is_file() and path.stat().st_size < _LARGE_BYTES
    kind = kind if is_plain else _kind_of_file
    with contextlib.suppress(OSError):  # what an earlier change has made of the place above it
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"{path.relative_to(folder)!s:.60}: {kind(path, rng)}"
    return "nothing"


def _place(folder: Path, rng: random.Random) -> Path:
    """A file of the run, one that could be there, or a folder."""
    if rng.random() < 0.15:
        return folder / rng.choice(ABSENT)
    top = sorted(folder.iterdir())
    if not top:
        return folder / "run.json"
    inner = sorted(p for p in folder.rglob("*") if p.parent != folder)
    return rng.choice(inner if inner and rng.random() < 0.25 else top)


def _kind_of_file(path: Path, rng: random.Random) -> str:
    """Something else where the file was: a special file, a link, a folder, nothing."""
    aside = path.with_name(".aside")
    if os.path.lexists(path):
        path.rename(aside)
    kind = rng.choice(sorted(KINDS))
    KINDS[kind](path)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside)
    else:
        aside.unlink(missing_ok=True)
    return kind


def _device(path: Path) -> None:
    """/dev/zero, which never ends; a pipe for those who may make no device."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "inside.json").write_text("{}")


def _hole(path: Path) -> None:
    path.touch()
    os.truncate(path, HOLE_BYTES)


KINDS = {
    "a pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "a device": _device,
    "a folder": _folder,
    "an empty file": Path.touch,
    "a hole": _hole,
    "not there": lambda _: None,
    "a link out": lambda path: path.symlink_to("/etc/passwd"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to its folder": lambda path: path.symlink_to("."),
    "a link above": lambda path: path.symlink_to("/"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
}


def _size(path: Path, rng: random.Random) -> str:
    """Longer than anything that is written there, with the content before, after or around."""
    content = path.read_bytes()
    how = rng.choice(("hole after", "hole before", "many times"))
    if how == "many times":
        path.write_bytes(content * min(3000, 6_000_000 // (len(content) or 1)))
    elif how == "hole after":
        os.truncate(path, HOLE_BYTES)
    else:
        os.truncate(path, 0)
        with path.open("r+b") as file:
            file.seek(HOLE_BYTES)
            file.write(b"\n" + content)
    return how


def _bytes(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    how = rng.choice(("cut", "put in", "instead", "flipped", "UTF-16", "mark", "lines mixed"))
    if how == "cut":
        new = content[:at]
    elif how == "put in":
        new = content[:at] + rng.choice(ODD_BYTES) + content[at:]
    elif how == "instead":
        new = rng.choice(ODD_BYTES)
    elif how == "flipped":
        new = content[:at] + bytes(b ^ 1 << rng.randrange(8) for b in content[at : at + 3])
        new += content[at + 3 :]
    elif how == "UTF-16":
        new = content.decode(errors="replace").encode("utf-16")
    elif how == "mark":
        new = b"\xef\xbb\xbf" + content
    else:
        lines = content.splitlines(keepends=True)
        new = b"".join(rng.sample(lines, len(lines)))
    path.write_bytes(new)
    return how


def _values(path: Path, rng: random.Random) -> str:
    """One value of a file that is otherwise as it was."""
    text = path.read_text(errors="replace")
    if path.suffix == ".jsonl" and text.strip():
        lines = text.splitlines()
        number = rng.randrange(len(lines))
        lines[number], told = _odd_record(lines[number], rng)
        new = "\n".join(lines) + "\n"
    elif path.suffix == ".toml":
        new, told = _odd_toml(text, rng)
    elif text.startswith("{"):
        new, told = _odd_json(text, rng)
    else:
        words = text.split() or [""]
        words[rng.randrange(len(words))] = told = rng.choice(ODD_WORDS)
        new = " ".join(words) + "\n"
    path.write_text(new, errors="surrogateescape")
    return told[:60]


def _odd_json(text: str, rng: random.Random) -> tuple[str, str]:
    """One value anywhere in the object is another, or gone."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text[:-1], "cut"
    if not content:
        return '{"odd": 1}', "something"
    inner, depth = content, 0
    while True:
        key = rng.choice(sorted(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
        deeper = inner[key]
        if not isinstance(deeper, dict | list) or not deeper or rng.random() < 0.3 or depth > 5:
            break
        inner, depth = deeper, depth + 1
    odd = rng.choice((*ODD_JSON, ""))
    if not odd:
        del inner[key]
        return json.dumps(content), f"{key} is gone"
    inner[key] = "@odd@"
    return json.dumps(content).replace('"@odd@"', odd), f"{key} = {odd}"


def _odd_record(line: str, rng: random.Random) -> tuple[str, str]:
    """The same in a line of records, with a sound checksum."""
    text, told = _odd_json(line, rng)
    body = re.sub(r', "crc": "[0-9a-f]{8}"\}$', "", text).encode(errors="replace")
    return f'{body.decode()},"crc":"{zlib.crc32(body):08x}"}}', told


def _odd_toml(text: str, rng: random.Random) -> tuple[str, str]:
    lines = text.splitlines() or [""]
    number = rng.randrange(len(lines))
    key, mark, _ = lines[number].partition("=")
    odd = rng.choice(ODD_TOML)
    instead = ("", f"odd = {odd}", "[odd]", f"{_MANY_PARTS} = 1", f"[{_MANY_PARTS}]")
    lines[number] = f"{key}= {odd}" if mark and rng.random() < 0.9 else rng.choice(instead)
    return "\n".join(lines), lines[number][:80]


def _beside(folder: Path, rng: random.Random) -> str:
    """Something odd among the runs."""
    name = rng.choice((b"\xff\xfe", b"a\nb", b"x" * 255, b"2026-11-22_0450_odd_aaaaa", b"-rf"))
    path = folder.parent / os.fsdecode(name)
    kind = rng.choice(sorted(KINDS))
    if not os.path.lexists(path):
        KINDS[kind](path)
    return f"beside: {name[:20]!r} {kind}"


def _age(folder: Path) -> None:
    for place, folders, files in os.walk(folder.parent):
        for name in (*folders, *files, "."):
            os.utime(Path(place, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)
