"""One device: nothing is shared."""

from __future__ import annotations

from runner.engines.engine import Engine

ENGINE = Engine()
