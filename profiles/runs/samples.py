"""What the samples of a run say of its GPUs, added up over all of them.

A week has 600 000 samples. Their lines are all of one form, so they are known by a pattern of it,
which accepts only what is a sound record; any other line is read as every record is.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, fields
from zlib import crc32

from profiles.runs.alike import CRC, REAL, WHOLE
from profiles.runs.journal import Tail
from profiles.runs.lines import CRC_LENGTH, VERSION
from profiles.runs.records.sampler import GpuUsage, Usage

_TIME = r"-?+(?:0|[1-9][0-9]{0,10}+)\.[0-9]++"
_WORDS = r'\[(?:"[A-Za-z0-9_ -]*+"(?:,"[A-Za-z0-9_ -]*+")*+)?+\]'
_PATTERNS = {
    "int": WHOLE,
    "float": REAL,
    "int | None": f"(?:{WHOLE}|null)",
    "float | None": f"(?:{REAL}|null)",
    "tuple[str, ...]": _WORDS,
}
"""Of a field's value in JSON, by its type."""


@dataclass(slots=True)
class DeviceUse:
    """The fullest GPU that was seen, and what held busy ones back."""

    used_bytes: int = 0
    total_bytes: int = 0
    """Of the GPU that was the fullest."""
    num_busy: int = 0
    """Samples of a GPU that did something."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of the busy ones."""

    def add(self, gpu: GpuUsage) -> None:
        """One GPU of one sample."""
        if (gpu.used_bytes or 0) > self.used_bytes:
            self.used_bytes, self.total_bytes = gpu.used_bytes or 0, gpu.total_bytes or 0
        if (gpu.utilization_percent or 0) > 0:
            self.num_busy += 1
            self.reasons.update(gpu.throttle)

    def add_written(self, used: bytes, total: bytes, utilization: bytes, words: bytes) -> None:
        """The same, as it stands in a line."""
        if used != b"null" and int(used) > self.used_bytes:
            self.used_bytes, self.total_bytes = int(used), 0 if total == b"null" else int(total)
        if utilization != b"null" and float(utilization) > 0:
            self.num_busy += 1
            if words != b"[]":
                self.reasons.update(words.decode()[2:-2].split('","'))


def read(tail: Tail) -> DeviceUse:
    """Everything that a tail has not read yet."""
    found = DeviceUse()
    for lines in tail.chunks():
        for line in lines:
            if _LINE.fullmatch(line) and crc32(line[:-CRC_LENGTH]) == int(line[-10:-2], 16):
                for gpu in _GPU.findall(line):
                    found.add_written(*gpu)
                continue
            for record in tail.parsed([line]):
                if isinstance(record, Usage):
                    for known in record.gpus:
                        found.add(known)
    return found


def _pattern(kind: type, wanted: tuple[str, ...] = (), **others: str) -> str:
    """Of the fields of a dataclass, as they are written; `wanted` ones are groups."""
    pairs = []
    for one in fields(kind):
        if "name" not in one.metadata:  # those are the head's
            value = others.get(one.name) or _PATTERNS[str(one.type)]
            pairs.append(f'"{one.name}":{f"({value})" if one.name in wanted else value}')
    return ",".join(pairs)


def _line() -> str:
    gpu = rf"\{{{_pattern(GpuUsage)}\}}"
    head = rf'"v":{VERSION},"seq":{WHOLE},"t":{_TIME},"m":{_TIME},"a":{WHOLE}'
    own = _pattern(Usage, gpus=rf"\[(?:{gpu}(?:,{gpu})*+)?+\]")
    return rf'\{{{head},"kind":"{Usage.kind}",{own}{CRC}'


_WANTED = ("used_bytes", "total_bytes", "utilization_percent", "throttle")
_GPU = re.compile(_pattern(GpuUsage, _WANTED).encode())
_LINE = re.compile(_line().encode())
