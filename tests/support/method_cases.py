"""Every method that runs, with settings that change what it does, for tests that hold for all."""

from __future__ import annotations

import tomllib
from typing import NamedTuple

from advisor.plan import Plan


class Case(NamedTuple):
    """A method with settings, and a learning rate at which a dozen steps show."""

    method: str
    settings: str = ""
    """Lines of [method]."""
    rate: float = 1e-2

    def plan(self, **values):
        """As estimates and rehearsals take it."""
        return Plan.of(self.method, **tomllib.loads(self.settings), **values)


CASES = {
    "lora": Case("lora", "dropout = 0.1"),
    "rslora": Case("lora", "rslora = true"),
    "gaussian": Case("lora", 'init = "gaussian"'),
    "pissa": Case("lora", 'init = "pissa"\nrslora = true', 1e-3),
    "olora": Case("lora", 'init = "olora"', 1e-3),
    "lora-fa": Case("lora", "freeze_a = true"),
    "lora+": Case("lora", "b_rate = 8.0", 1e-3),
    "full": Case("full", rate=1e-3),
}
