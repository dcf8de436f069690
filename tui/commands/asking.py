"""Questions of a command to the person at the terminal."""

from __future__ import annotations

import sys

import click


def can_ask() -> bool:
    """Somebody types here and sees what is asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def agrees(question: str) -> bool:
    """Yes or no; no if nobody answers."""
    try:
        return click.confirm(question, default=False, err=True)
    except click.Abort:  # ctrl-c or the end of input
        return False
