"""Python code that lets no process reach a network, and tells what each of them tried.

Written as `sitecustomize.py` into a folder on PYTHONPATH, it is obeyed by every Python process that
inherits the environment: hooks see the calls of the standard library and of what is built on it.
"""

from __future__ import annotations

from pathlib import Path

_CODE = """
import os, sys
def note(text):
    fd = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, (" ".join(text.split()) + chr(10)).encode())
    os.close(fd)
note("started " + " ".join(sys.orig_argv[-3:]))
def hook(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        if isinstance(arguments[1], (str, bytes)):
            return  # a path: a socket of this machine
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "os.system"):
        return
    note(event + " " + repr(arguments[1:]))
    raise PermissionError(event + " is denied by the test")
sys.addaudithook(hook)
"""


def deny_network(folder: Path) -> Path:
    """Write the code into `folder`; returns the log that it will keep."""
    folder.mkdir()
    log = folder / "log"
    (folder / "sitecustomize.py").write_text(_CODE.format(log=str(log)))
    return log
