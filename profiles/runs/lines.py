"""One record as a line of JSON with a sequence number and a checksum.

Line format (reference: run protocol §3.6):
`{"v":1,"seq":7,"t":unix,"m":monotonic,"a":attempt,"kind":"step",...,"crc":"9f3a11c0"}`.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

VERSION = 1
MAX_LINE_BYTES = 16 * 1024
CRC_LENGTH = len(b',"crc":"00000000"}')
"""Bytes at the end of a line that its checksum does not cover."""
_CRC_MARK = b',"crc":"'
_MAX_TEXT_BYTES = 4000
_HEAD = ("v", "seq", "t", "m", "a", "kind")

Content = dict[str, Any]
"""What a line says, whatever that is."""


def encode(content: Content) -> bytes:
    """One line without its newline; numbers that JSON cannot say become null and are named.

    Of a record that is too long, long texts are cut; if that is not enough, its head is kept alone.
    """
    finite, nonfinite = _without_nonfinite(content)
    if nonfinite:
        finite["nonfinite"] = nonfinite
    body = _dump(finite)
    if len(body) > MAX_LINE_BYTES:
        body = _dump({k: _cut(v) for k, v in finite.items()} | {"cut": True})
    if len(body) > MAX_LINE_BYTES:
        body = _dump({k: finite[k] for k in _HEAD if k in finite} | {"cut": True})
    crc = zlib.crc32(body[:-1])
    return body[:-1] + _CRC_MARK + f'{crc:08x}"}}'.encode()


def decode(line: bytes) -> Content | None:
    """What a line says, or None if it is damaged."""
    body, tail = line[:-CRC_LENGTH], line[-CRC_LENGTH:]
    if not tail.startswith(_CRC_MARK):
        return None
    if b"%08x" % zlib.crc32(body) != tail[len(_CRC_MARK) : -2]:
        return None
    try:
        content = _decode_json(line.decode())
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


_decode_json = json.JSONDecoder().decode
"""For text alone, which it is known to be: json.loads would guess the encoding of each line."""


def _cut(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode(errors="replace")[:_MAX_TEXT_BYTES].decode(errors="ignore")


def _dump(content: Content) -> bytes:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", errors="replace")


def _without_nonfinite(content: Content, prefix: str = "") -> tuple[Content, list[str]]:
    clean: Content = {}
    names: list[str] = []
    for key, value in content.items():
        if isinstance(value, float) and not math.isfinite(value):
            clean[key] = None
            names.append(prefix + key)
        elif isinstance(value, dict):
            clean[key], inner = _without_nonfinite(value, f"{prefix}{key}.")
            names += inner
        else:
            clean[key] = value
    return clean, names
