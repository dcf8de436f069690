"""A command of ours at a real terminal: a pseudo-terminal whose other side is the test."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

WATCH = "import sys; sys.argv = ['advisor', *{arguments!r}]; from tui.main import main; main()"


class PseudoTerminal:
    """One process, and what it has shown so far."""

    def __init__(self, code: str, *, size: tuple[int, int], environment: dict[str, str]) -> None:
        self._leader, self._follower = pty.openpty()
        window = struct.pack("HHHH", size[1], size[0], 0, 0)
        fcntl.ioctl(self._leader, termios.TIOCSWINSZ, window)
        self.modes_before = self.modes()
        self.shown = b""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            stdin=self._follower,
            stdout=self._follower,
            stderr=self._follower,
            start_new_session=True,
            # a hang-up is sent to those whose controlling terminal it is
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no threads
            env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **environment},
        )

    def modes(self) -> list[object]:
        """What `stty -a` shows."""
        return list(termios.tcgetattr(self._follower))

    def read(self, seconds: float) -> bytes:
        """Take what comes within this time."""
        ready = select.poll()  # select() takes no descriptor above 1023
        ready.register(self._leader, select.POLLIN)
        if ready.poll(max(0.0, seconds) * 1000):
            try:
                self.shown += os.read(self._leader, 65536)
            except OSError:  # nobody holds the other side any more
                time.sleep(0.01)
        return self.shown

    def until(self, words: bytes, seconds: float = 30.0) -> None:
        """Read until the words were shown."""
        end = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < end, f"no {words!r} in {self.shown[-3000:]!r}"
            self.read(end - time.monotonic())

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._leader, keys)

    def end(self, seconds: float = 10.0) -> int:
        """Read until the process has ended; its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still there: {self.shown[-3000:]!r}"
            self.read(0.05)
        self.read(0.05)
        return self.process.returncode

    def close(self) -> None:
        """Cut the connection."""
        for fd in (self._leader, self._follower):
            os.close(fd)
        self._leader = self._follower = -1


@contextmanager
def at_terminal(
    *arguments: str, code: str = "", size: tuple[int, int] = (80, 24), **environment: str
) -> Iterator[PseudoTerminal]:
    """Run `advisor` with these arguments, after `code`, at a terminal of columns and rows."""
    whole = code + "\n" + WATCH.format(arguments=list(arguments))
    terminal = PseudoTerminal(whole, size=size, environment=environment)
    try:
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        if terminal._leader >= 0:
            terminal.close()
