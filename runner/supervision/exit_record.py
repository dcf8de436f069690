"""exit.json, which must be written whatever the disk does: people will look for it.

Room for it is kept from the start of an attempt on; where even that does not help, it is waited
for.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from profiles.runs import durable
from profiles.runs.rundir import RunDir

_ROOM_BYTES = 16 << 10
_TRIES = 60
_RETRY_SECONDS = 10.0


class ExitRecord:
    """The record of one run's end, and the room that waits for it."""

    def __init__(self, run: RunDir) -> None:
        self._final = run.exit
        self._room = run.path / ".exit-room"
        with contextlib.suppress(OSError):
            durable.keep_room(self._room, _ROOM_BYTES)

    def write(self, content: dict[str, Any]) -> None:
        """Publish the record; waits for room up to ten minutes, then the OSError goes up.

        A run directory that was removed meanwhile gets none.
        """
        data = durable.json_bytes(content)
        try:
            durable.fill_room(self._room, self._final, data)
        except OSError:
            self._write_elsewhere(content)

    def _write_elsewhere(self, content: dict[str, Any]) -> None:
        self._give_up(self._room)
        for _ in range(_TRIES - 1):
            try:
                durable.write_json(self._final, content)
            except OSError:
                if not self._final.parent.is_dir():
                    return
                time.sleep(_RETRY_SECONDS)
            else:
                return
        durable.write_json(self._final, content)

    @staticmethod
    def _give_up(room: Path) -> None:
        with contextlib.suppress(OSError):
            durable.disk.unlink(room)
