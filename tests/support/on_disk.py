"""Records as they lie on the disk: JSON objects, written and read without the product's classes."""

from __future__ import annotations

import json
import zlib

from profiles.runs import parts
from profiles.runs.journal import Tail, last_seq
from profiles.runs.lines import decode, encode


def read_all(path):
    """Every sound line of a file, in order."""
    for part in parts.existing(path):
        for line in part.read_bytes().split(b"\n"):
            content = decode(line)
            if content is not None:
                yield content


def write(path, kind, *, attempt=1, **fields):
    """Add a line with a sound checksum, whatever it says; a field called t, m... replaces ours."""
    head = {"v": 1, "seq": last_seq(path) + 1, "t": 1e9, "m": 1e3, "a": attempt, "kind": kind}
    with path.open("ab") as file:
        file.write(encode(head | fields) + b"\n")


def tell(path, record, at=0.0, *, attempt=1):
    """Add a record that was written at this second, by both clocks."""
    write(path, record.kind, attempt=attempt, **record.content(), t=1e9 + at, m=1e3 + at)


def num_damaged(run):
    """How many lines of all its files a reader passes over."""
    tails = [
        Tail(path) for path in (run.worker_events, run.supervisor_events, run.metrics, run.samples)
    ]
    for tail in tails:
        for _ in tail.stream():
            pass
    return sum(tail.num_damaged for tail in tails)


def seal(content):
    """The line of any JSON object, not-a-number and infinity too, with a sound checksum."""
    body = json.dumps(content).encode()[:-1]
    return body + f',"crc":"{zlib.crc32(body):08x}"}}\n'.encode()
