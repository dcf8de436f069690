"""The run of `fixtures/v1` that is over, moved under a test's home and beside a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from small_model import small_model

from profiles.runs.rundir import RunDir

RUN = next((Path(__file__).parents[1] / "fixtures" / "v1").iterdir())


def finished_run(home: Path, base: Path) -> RunDir:
    """The run, as if it had been started in `base`; its findings B14 and others have changes."""
    small_model(base / "model")
    run = RunDir(Path(shutil.copytree(RUN, home / "runs" / RUN.name)))
    manifest = json.loads(run.manifest.read_text()) | {"base_dir": str(base)}
    run.manifest.write_text(json.dumps(manifest))
    return run
