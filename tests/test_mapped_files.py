"""What loading takes of RAM: weights that are taken as a file has them stay the file's pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import made

torch = pytest.importorskip("torch")

import tiny_families  # noqa: E402

from advisor.choice import storage  # noqa: E402
from advisor.cost.weights import trained_params  # noqa: E402
from advisor.precision import trained_width  # noqa: E402
from profiles.models import find_model  # noqa: E402
from runner import methods  # noqa: E402
from runner.methods.base import load_base  # noqa: E402

MAPS = Path("/proc/self/maps")


def mapped_files():
    """(start, end) of what is a file's pages."""
    for line in MAPS.read_text().splitlines():
        if line.endswith(".safetensors"):
            start, end = line.split()[0].split("-")
            yield int(start, 16), int(end, 16)


FP16 = made("lora", seq_len=64, precision="fp16")
PURE = made("full", seq_len=64, precision="bf16_pure")


@pytest.mark.skipif(not MAPS.exists(), reason="the system does not tell its mappings")
@pytest.mark.parametrize(
    ("family", "plan"),
    [
        ("llama", made("lora", seq_len=64)),
        ("llama", made("full", seq_len=64)),
        ("mixtral", made("lora", seq_len=64)),
        pytest.param("llama", FP16, marks=pytest.mark.long),
        pytest.param("llama", PURE, marks=pytest.mark.long),
    ],
)
def test_what_is_said_to_be_copied_is_what_lies_outside_the_files(family, plan, tmp_path):
    """By the addresses of a real model's weights, loaded as the runner loads them."""
    tiny_families.make(family).to(torch.bfloat16).save_pretrained(tmp_path / "m")
    base = find_model.resolve(str(tmp_path / "m"))
    assert base.dtype == "bfloat16"

    loaded = load_base(tmp_path / "m", **methods.family_of(plan.method).load_options(plan))
    files = list(mapped_files())
    outside = sum(
        p.numel() * p.element_size()
        for p in loaded.parameters()
        if not any(start <= p.data_ptr() < end for start, end in files)
    )

    added = 0 if plan.method.trains_base else trained_params(base, plan) * trained_width(plan)
    assert outside == storage.loading_bytes(base, plan) - added
