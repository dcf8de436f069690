"""How far a library's own loops over rows have come, for the heartbeat."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from datasets import arrow_dataset

from runner.training.attempt import Progress


@contextmanager
def counted(progress: Progress) -> Iterator[None]:
    """Inside, `Dataset.map` and `filter` tell their rows to the heartbeat, one loop at a time.

    By their progress bar, whether it is shown or not.
    """
    bar: Any = arrow_dataset.hf_tqdm

    class Counting(bar):  # type: ignore[misc]
        """The library's progress bar."""

        def __init__(self, *args: Any, total: int | None = None, **kwargs: Any) -> None:
            progress.expect(total or 0)
            super().__init__(*args, total=total, **kwargs)

        def update(self, n: float | None = 1) -> Any:
            """So many rows more."""
            progress.tick(round(n or 0))
            return super().update(n)

    with mock.patch.object(arrow_dataset, "hf_tqdm", Counting):
        yield
