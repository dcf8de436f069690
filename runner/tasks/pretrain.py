"""Continued pretraining: the next token of texts that are joined to rows of the full length."""

from __future__ import annotations

from typing import Any

from profiles.data.formats.spec import Example
from runner.tasks.sft import RunSft, arguments
from runner.training.data import Render

__all__ = ["TRAINER", "arguments", "columns"]


def columns(example: Example, render: Render, _max_length: int) -> dict[str, Any]:
    """A whole text in tokens, to be joined with others."""
    return {"input_ids": render(example).ids}


TRAINER = RunSft
