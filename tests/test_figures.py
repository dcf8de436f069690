"""Estimates and recommendations stay what they are until somebody means to change them.

That they are right is held elsewhere, against the real model, the rehearsal and published runs.
"""

from __future__ import annotations

import json

import figures
import pytest


def differences(was, now, place=""):
    """Every place where two values from JSON differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in was | now:
            yield from differences(was.get(key), now.get(key), f"{place}.{key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from differences(one, other, f"{place}[{index}]")
    elif isinstance(was, float) or isinstance(now, float):
        if now != pytest.approx(was, rel=1e-8):
            yield f"{place}: {was} -> {now}"
    elif was != now:
        yield f"{place}: {was} -> {now}"


@pytest.mark.parametrize(
    ("name", "say"), [("estimates", figures.figures), ("recommendations", figures.advice)]
)
def test_no_figure_changes_unless_it_is_meant(name, say):
    """To change one on purpose: python tests/support/figures.py."""
    changed = {}
    for case in figures.kept(name):
        now = json.loads(json.dumps(say(case)))
        was = {key: value for key, value in case.items() if key in now}
        if found := list(differences(was, now)):
            changed[json.dumps({key: case[key] for key in case if key not in now})] = found[:8]

    assert not changed, f"{len(changed)} differ, first: {next(iter(changed.items()))}"


def test_the_figures_are_of_every_method_optimizer_engine_and_way_to_run_them():
    """So that none can change unseen."""
    kept = figures.kept("estimates")
    assert {case["method"] for case in kept} == set(figures.METHODS.names())
    assert {case["plan"]["optimizer"] for case in kept} == set(figures.OPTIMIZERS.names())
    assert {case["plan"]["strategy"] for case in kept} == set(figures.ENGINES.names())
    assert len({name for case in kept for name in case["framework"]}) > 30
