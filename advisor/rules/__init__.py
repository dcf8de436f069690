"""The bottleneck rules of the reference §2.1, one small module a theme.

A rule takes a Case and answers with a Finding, with None if all is well, or with NotMeasured.
"""

from __future__ import annotations

from collections.abc import Callable

from advisor.rules import headroom, inputs, logits, padding, stalls
from advisor.rules.case import Case, Finding, NotMeasured

RULES: tuple[Callable[[Case], Finding | NotMeasured | None], ...] = (
    padding.check,
    logits.check,
    stalls.check,
    inputs.check,
    headroom.check,
)
