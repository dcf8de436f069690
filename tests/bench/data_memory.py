"""Memory and rate of reading data: a large file against its budgets, and against the libraries.

    python tests/bench/data_memory.py ROWS.json [--gigabytes 1] [--model FOLDER] [--only rate]

ROWS.json: real rows, a JSON list, of which the files are made: repeated with a number in the first
text, so that no two rows are equal. Memory is the peak resident size of whole processes. Rates are
rows per second of CPU time, ours and theirs in turns in one run, for other work on the machine
slows both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

COMMAND_BUDGET_MB = 100
PREPARATION_BUDGET_MB = 600
ROWS_PER_SECOND = 25_000
SHARE_OF_TOKENIZER = 0.8
RATE_ROWS = 60_000
MODEL_ROWS = 10_000

PEAK = "import resource; print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
COMMAND = f"import sys; from tui.main import run; run(sys.argv[1:]); {PEAK}"
BARE = f"import torch, transformers, datasets; {PEAK}"
PREPARATION = f"""
import sys, tempfile
from pathlib import Path
from types import SimpleNamespace
import torch, transformers, datasets
from advisor import recipe as recipes
from runner.tasks import sft
from runner.training import data
model, file = sys.argv[1:]
recipe = recipes.parse('schema = 1\\nname = "x"\\n[model]\\nid = "%s"\\n[data]\\ntrain = "%s"\\n'
    'chat_template = "chatml"\\n[method]\\nname = "lora"\\n' % (model, file), where="bench")
tokenizer = transformers.AutoTokenizer.from_pretrained(model)
encoder = data.encoder_of(recipe, Path(model), tokenizer)
reading = data.Reading(recipe=recipe, base_dir=Path("/"), encoder=encoder, columns=sft.columns)
with tempfile.TemporaryDirectory() as folder:
    reading.load(Path(folder) / "rows-1", reading.draw(), SimpleNamespace(tick=lambda: None))
    {PEAK}
"""


def main(arguments: list[str]) -> int:
    """Measure what is asked for; 1 if a budget is passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--model", type=Path, help="Folder with tokenizer.json and config.json.")
    parser.add_argument("--only", choices=("memory", "preparation", "rate"))
    asked = parser.parse_args(arguments)
    source = json.loads(asked.rows.read_text())
    kept = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.only in (None, "memory"):
            kept &= memory(source, folder, asked)
        if asked.only in (None, "preparation") and asked.model:
            kept &= preparation(source, folder, asked)
        if asked.only in (None, "rate"):
            kept &= rates(source, folder, asked.model)
    return 0 if kept else 1


def distinct(source: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows again and again, each with a number of its own in its first text."""
    for number in count():
        row = dict(source[number % len(source)])
        key = next(iter(row))
        yield row | {key: f"{row[key]} ({number})"}


def write_lines(file: Path, rows: Iterator[dict[str, Any]], num_bytes: float) -> None:
    """JSON Lines of at least this size."""
    with file.open("w") as out:
        while out.tell() < num_bytes:
            for _ in range(1000):
                out.write(json.dumps(next(rows), ensure_ascii=False) + "\n")


def write_table(file: Path, rows: Iterator[dict[str, Any]], num_bytes: float) -> None:
    """CSV of at least this size."""
    first = next(rows)
    with file.open("w", newline="") as out:
        table = csv.DictWriter(out, list(first), restval="", extrasaction="ignore")
        table.writeheader()
        while out.tell() < num_bytes:
            table.writerows(next(rows) for _ in range(1000))


def peak_mb(code: str, *arguments: str) -> tuple[float, float]:
    """Peak resident megabytes of a process, and its seconds of CPU time."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    after = os.times()
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    return int(done.stdout.split("PEAK")[-1]) / 1024, spent


def memory(source: list[dict[str, Any]], folder: Path, asked: argparse.Namespace) -> bool:
    """`data check` and `recommend` on large files."""
    kept = True
    for name, write in (("rows.jsonl", write_lines), ("rows.csv", write_table)):
        file = folder / name
        write(file, distinct(source), asked.gigabytes * 1e9)
        model = ["--model", str(asked.model or "Qwen/Qwen2.5-0.5B-Instruct")]
        for command in (["data", "check"], ["recommend", *model, "--gpu", "RTX 4090", "--data"]):
            peak, spent = peak_mb(COMMAND, *command, str(file))
            kept &= peak <= COMMAND_BUDGET_MB
            print(f"{command[0]} {name}: {peak:.0f} MB (budget {COMMAND_BUDGET_MB}), {spent:.0f} s")
        file.unlink()
    return kept


def preparation(source: list[dict[str, Any]], folder: Path, asked: argparse.Namespace) -> bool:
    """What a worker takes to read and tokenise a large file, above the libraries alone."""
    file = folder / "rows.jsonl"
    write_lines(file, distinct(source), asked.gigabytes * 1e9)
    bare, _ = peak_mb(BARE)
    peak, spent = peak_mb(PREPARATION, str(asked.model.resolve()), str(file))
    above = peak - bare
    limit = f"(budget {PREPARATION_BUDGET_MB})"
    print(f"preparation: {above:.0f} MB above {bare:.0f} {limit}, {spent:.0f} s")
    return above <= PREPARATION_BUDGET_MB


def in_turns(number: int, *runs: Callable[[], object], rounds: int = 5) -> list[float]:
    """Rows per second of CPU time of each, the median of some rounds."""
    rates: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, found in zip(runs, rates, strict=True):
            began = time.process_time()
            run()
            found.append(number / (time.process_time() - began))
    return [statistics.median(found) for found in rates]


def rates(source: list[dict[str, Any]], folder: Path, model: Path | None) -> bool:
    """Rows per second of the check, against `datasets` and against the bare tokenizer."""
    import datasets  # the libraries are what is compared with

    from profiles.data import dataset

    rows, file = distinct(source), folder / "rows.jsonl"
    with file.open("w") as out:
        out.writelines(json.dumps(next(rows), ensure_ascii=False) + "\n" for _ in range(RATE_ROWS))
    fresh = iter(range(1_000_000))

    def load() -> None:
        cache = str(folder / f"cache{next(fresh)}")
        datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)

    datasets.disable_progress_bars()
    ours, theirs = in_turns(RATE_ROWS, lambda: dataset.inspect(file), load)
    print(
        f"check without a model: {ours:,.0f} rows/s, datasets {theirs:,.0f}, {ours / theirs:.2f} x"
    )
    kept = ours >= ROWS_PER_SECOND
    if model is not None:
        kept &= against_tokenizer(file, folder, model)
    return kept


def against_tokenizer(file: Path, folder: Path, model: Path) -> bool:
    """The check with a model against `encode_batch_fast` of the same texts, in one process."""
    from profiles.data import dataset
    from profiles.models.model import from_folder
    from runner.checks import chat_templates

    part = folder / "part.jsonl"
    with file.open() as lines, part.open("w") as out:
        out.writelines(line for line, _ in zip(lines, range(MODEL_ROWS), strict=False))
    encoder = chat_templates.encoder(from_folder(model), "chatml")
    assert encoder is not None
    texts = [
        written.text
        for row in dataset.read_examples(part, renderer=encoder.renderer)
        for written in row.written
    ]

    def bare() -> None:
        for start in range(0, len(texts), 1000):
            encoder.tokenizer.encode_batch_fast(
                texts[start : start + 1000], add_special_tokens=False
            )

    ours, theirs = in_turns(MODEL_ROWS, lambda: dataset.inspect(part, encoder=encoder), bare)
    print(f"check with a model: {ours:,.0f} rows/s, tokenizer {theirs:,.0f}, {ours / theirs:.2f} x")
    return ours >= SHARE_OF_TOKENIZER * theirs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
