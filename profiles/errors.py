"""The one error a user can act on, and the exit codes that scripts may rely on.

Anything else that escapes is our own mistake and keeps its traceback.
"""

from __future__ import annotations

from enum import IntEnum

from profiles.redact import redact


class ExitCode(IntEnum):
    """Process exit codes: sysexits where one fits, 80 and up for training outcomes."""

    FINISHED = 0
    USAGE = 2
    BAD_DATA = 65
    NO_INPUT = 66
    NO_NETWORK = 69
    INTERNAL = 70
    DRIVER = 71
    CANNOT_CREATE = 73
    IO_ERROR = 74
    STOPPED = 75
    NEWER_SCHEMA = 76
    REFUSED = 77
    BAD_RECIPE = 78
    GPU_OOM = 80
    HOST_OOM = 81
    DIVERGED = 82
    LOSS_SPIKE = 83
    GPU_LOST = 84
    NO_CHECKPOINT = 85


class UserError(Exception):
    """Something the user can repair, told in four parts: what, why, what to do, where."""

    def __init__(self, what: str, *, why: str, do: str, where: str, code: ExitCode) -> None:
        super().__init__(redact(what))
        # An error is printed, kept with the run and sent to us: no token may be in it
        self.what, self.why, self.do, self.where = map(redact, (what, why, do, where))
        self.code = code

    def as_dict(self) -> dict[str, str | int]:
        """The same four parts and the exit code, for `--json` and `exit.json`."""
        return {
            "code": int(self.code),
            "class": self.code.name.lower(),
            "what": self.what,
            "why": self.why,
            "do": self.do,
            "where": self.where,
        }
