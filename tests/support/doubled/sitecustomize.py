"""Put on PYTHONPATH, lets every Python of a test start the double instead of the worker.

TUNEDECK_TEST_WORKER holds the double's arguments after the run directory. TUNEDECK_TEST_FLOCK makes
every lock succeed for every caller, as some network file systems do; the name of an error makes
every lock fail with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path


def _flock(_fd: int, _operation: int) -> None:
    number = getattr(errno, os.environ["TUNEDECK_TEST_FLOCK"], None)
    if number is not None:
        raise OSError(number, os.strerror(number))


if "TUNEDECK_TEST_FLOCK" in os.environ:
    fcntl.flock = _flock

if "TUNEDECK_TEST_WORKER" in os.environ:
    from runner.supervision import worker_command

    _DOUBLE = Path(__file__).parent.parent / "double_worker.py"
    _ARGUMENTS = os.environ["TUNEDECK_TEST_WORKER"].split()
    worker_command.worker_argv = lambda path: [sys.executable, str(_DOUBLE), str(path), *_ARGUMENTS]
