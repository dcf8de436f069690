"""What a method hands to the trainer."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from transformers.integrations import sdpa_attention  # noqa: E402  # after the check for torch

from runner.methods import prepared  # noqa: E402


@pytest.mark.parametrize(("capability", "shares"), [((7, 5), False), ((8, 0), True)])
def test_key_heads_are_repeated_before_ampere(monkeypatch, capability, shares):
    """SDPA's kernel there would take whole scores rather than shared heads."""
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    prepared._repeat_heads_where_needed()

    key = torch.zeros(1, 2, 4, 64)
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key) is shares
