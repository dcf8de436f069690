"""What the layers do, from records to words: nothing that could be chance, nothing twice."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest

from profiles.layer_facts import ExpertUse, LinearNorms, Routing, together
from profiles.models import mixture
from profiles.runs.journal import Journal, Tail
from profiles.runs.layers import LayerLog
from profiles.runs.records.layers import Moved, Routed
from tui.pages import layers as page


def use(*counts, layer=0, top_k=2, entropy=0.5):
    """Of a layer whose experts got so many tokens."""
    tokens = sum(counts) // top_k
    return ExpertUse(layer=layer, tokens=tokens, counts=counts, entropy=entropy)


@pytest.mark.parametrize(
    ("found", "dead", "overloaded", "spread"),
    [
        (use(500, 500, 500, 500), (), (), 1.0),
        (use(1000, 1000, 0, 0), (2, 3), (0, 1), 0.0),
        (use(900, 500, 500, 100), (), (0,), None),
        (use(899, 501, 500, 100), (), (), None),
        (use(64, 64, 0, 0), (2, 3), (0, 1), 0.0),
        (use(62, 62, 0, 0), (), (0, 1), 0.0),
        (use(*[40] * 15, 200, top_k=1), (), (15,), None),
        (use(*[40] * 15, 199, top_k=1), (), (), None),
        (use(100, 100), (), (), 1.0),
        (use(300, 100, top_k=1), (), (), math.exp(0.75 * math.log(4 / 3) + math.log(4) / 4) - 1),
    ],
)
def test_dead_and_overloaded_experts_are_those_that_chance_does_not_make(
    found, dead, overloaded, spread
):
    """Four times the even share, or 9 tokens of 10; none of 32 that were to come."""
    assert (found.dead, found.overloaded) == (dead, overloaded)
    if spread is not None:
        assert found.spread == pytest.approx(spread)


@pytest.mark.parametrize(
    ("found", "collapsed"),
    [
        (use(1000, 1000, 0, 0), True),
        (use(1000, 960, 20, 20), True),
        (use(1000, 700, 200, 100), False),
        (use(1000, 1000, *[2] * 62), True),
        (use(62, 62, 0, 0), False),
        (use(100, 100), False),
    ],
)
def test_a_layer_has_collapsed_where_its_tokens_go_to_the_same_few(found, collapsed):
    """As many as a token goes to, and hardly more."""
    assert found.is_collapsed is collapsed


def test_uses_add_up_by_their_tokens():
    """Entropies as a mean over tokens."""
    both = together(use(10, 20, 0, 10, entropy=1.0), use(10, 20, 20, 70, entropy=0.2))

    assert (both.tokens, both.counts) == (80, (20, 40, 20, 80))
    assert both.entropy == pytest.approx((20 * 1.0 + 60 * 0.2) / 80)
    assert together(use(2, 2), use(2, 2, entropy=None)).entropy is None


def routed(since, step, *counts, layer=0):
    """A record of these steps."""
    return Routed(step=step, since=since, use=use(*counts, layer=layer))


def counts_of(routing):
    """By layer."""
    return {one.layer: one.counts for one in routing.layers}


def test_records_of_several_steps_add_up_layer_by_layer():
    """The first stay for comparison."""
    log = LayerLog()
    log.add([routed(0, 2, 1, 3), routed(0, 2, 4, 0, layer=1)])
    found = log.add([routed(2, 4, 5, 5), routed(2, 4, 6, 6, layer=1)])

    assert counts_of(found.routing) == {0: (6, 8), 1: (10, 6)}
    assert (found.routing.since, found.routing.step) == (0, 4)
    assert counts_of(found.first_routing) == {0: (1, 3), 1: (4, 0)}


def test_what_is_made_again_counts_once():
    """From a checkpoint in the middle, from the start of a record, and from the very first step."""
    first = [routed(0, 2, 1, 1), routed(2, 3, 2, 2), routed(3, 4, 9, 9), routed(4, 6, 9, 9)]

    def then(*more):
        found = LayerLog().add([*first, *more])
        return counts_of(found.routing)[0][0], counts_of(found.first_routing)[0][0]

    assert then(routed(3, 4, 1, 1)) == (4, 1)
    assert then(routed(3, 6, 5, 5)) == (8, 1)
    assert then(routed(0, 2, 7, 7)) == (7, 7)
    assert then(routed(0, 4, 7, 7), routed(4, 6, 1, 1)) == (8, 7)


def test_of_a_long_run_the_newest_records_count():
    """As few as have 64 tokens for each expert of each layer, eight at most, and the first."""

    def newest(*each):
        records = [
            routed(n, n + 1, count, count, layer=layer)
            for n in range(1, 101)
            for layer, count in enumerate(each)
        ]
        found = LayerLog().add(records)
        assert found.first_routing.step == 2
        assert {counts[0] for counts in counts_of(found.routing).values()} == {
            count * (101 - found.routing.since) for count in each
        }
        return found.routing.since, found.routing.step

    assert newest(64) == (100, 101)
    assert newest(63) == (99, 101)
    assert newest(64, 32) == (99, 101)
    assert newest(1) == (93, 101)


def test_what_no_router_has_written_is_passed_over(tmp_path):
    """Negative counts, no experts, as many layers as no model has."""
    journal = Journal(tmp_path / "layers.jsonl", attempt=1)
    for odd in (use(-5, 9), use(), use(0, 0), use(5, 5, layer=-1), use(5, 5, layer=10**9)):
        journal.append(Routed(step=2, since=0, use=odd))
    assert LayerLog().add(Tail(tmp_path / "layers.jsonl").stream()).routing is None

    found = LayerLog().add([routed(0, 2, 5, 5), routed(2, 4, 5, 5, 5)])
    assert counts_of(found.routing) == {0: (5, 5, 5)}
    assert page.as_json(found)["experts"]["step"] == 4


def test_the_largest_layer_that_there_is_fits_into_a_line(tmp_path):
    """512 experts with a thousand million tokens each."""
    journal = Journal(tmp_path / "layers.jsonl", attempt=1)
    journal.append(routed(0, 10**9, *[10**9 + n for n in range(512)], layer=99))

    found = LayerLog().add(Tail(tmp_path / "layers.jsonl").stream())
    assert len(found.routing.layers[0].counts) == 512


ROUTING = Routing(
    since=40,
    step=60,
    layers=(
        use(500, 600, 550, 350, layer=0, entropy=math.log(4)),
        use(1000, 0, 0, 1000, layer=3, entropy=None),
    ),
)


def test_each_layer_has_a_row_that_names_what_is_wrong():
    """Dead and overloaded experts by their numbers, at any width."""
    found = LayerLog().add(Routed(step=60, since=40, use=one) for one in ROUTING.layers)
    text = "\n".join(page.lines(found, 80))

    assert "1 000 tokens of steps 41 to 60" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "1.2 x, expert 1" in rows["0"]
    assert "100 %" in rows["0"]
    assert "dead" not in rows["0"]
    assert "collapsed; 2 dead: 1, 2; 2 overloaded: 0, 3" in " ".join(text.split())
    assert all(len(line) <= 60 for line in page.lines(found, 60))


def test_one_line_says_the_worst():
    """In words, not by colour alone."""
    told = page.routing_line(ROUTING)

    assert told == (
        "experts: 2 dead in 1 of 2 layers, COLLAPSED in layer 3, busiest 2.0 x (layer 3)"
    )
    calm = page.routing_line(Routing(since=0, step=1, layers=ROUTING.layers[:1]))
    assert calm == "experts: none dead, no layer collapsed, busiest 1.2 x (layer 0)"


def test_a_dense_run_says_nothing_of_experts():
    """Nor of adapters that it has not."""
    assert page.lines(LayerLog().facts, 80) == []
    assert page.as_json(LayerLog().facts) == {"experts": None, "adapters": None}


def moved(step, name, norms, relative=(), layers=None):
    """A record of one linear."""
    layers = tuple(range(len(norms))) if layers is None else layers
    linear = LinearNorms(name=name, layers=layers, norms=tuple(norms), relative=tuple(relative))
    return Moved(step=step, since=0, linear=linear)


def norms_of(*records):
    """The newest norms."""
    return LayerLog().add(records).norms


def test_the_newest_norms_count_those_of_all_linears():
    """Of an attempt that goes on from before, too."""
    first = [moved(4, "q", [1.0, 2.0]), moved(4, "v", [3.0]), moved(6, "q", [9.0, 9.0])]

    assert [one.name for one in norms_of(*first[:2]).linears] == ["q", "v"]
    assert [one.norms for one in norms_of(*first).linears] == [(9.0, 9.0)]
    again = norms_of(*first, moved(5, "q", [4.0]), moved(5, "v", [5.0]))
    assert (again.step, again.num_adapters) == (5, 2)


@pytest.mark.parametrize(
    "odd",
    [
        moved(4, "q", [1.0, -2.0]),
        moved(4, "q", [1.0, 2.0], layers=(0,)),
        moved(4, "q", [1.0, 2.0], [0.1]),
        moved(4, "q", [], layers=()),
        moved(4, "q", [1.0], layers=(-2,)),
    ],
)
def test_norms_that_are_none_are_passed_over(odd):
    """Negative, of fewer layers than there are, of none."""
    assert norms_of(odd) is None
    assert norms_of(moved(2, "v", [1.0]), odd).step == 2


@pytest.mark.parametrize(
    ("norms", "unmoved", "ahead"),
    [
        ([1.0, 1.1, 0.9, 1.0], [], []),
        ([1.0, 0.0, 0.9, 1.0], [1], []),
        ([1.0, 0.0009, 0.9, 1.0], [1], []),
        ([1.0, 0.0011, 0.9, 1.0], [], []),
        ([1.0, 1.0, 8.1, 1.0], [], [2]),
        ([1.0, 1.0, 7.9, 1.0], [], []),
        ([1.0, 1.0, 9.0], [], []),
        ([0.0, 0.0, 0.0, 0.0], [0, 1, 2, 3], []),
        ([1.0, None, 1.0, 20.0, 1.0], [], [3]),
    ],
)
def test_an_adapter_is_held_against_those_of_the_other_layers(norms, unmoved, ahead):
    """A thousandth of their median, or eight times, and of four layers at least."""
    found = norms_of(moved(20, "q", norms), moved(20, "v", [100.0, 100.0]))

    assert found.unmoved == tuple((n, "q") for n in unmoved)
    assert found.running_away == tuple((n, "q") for n in ahead)


def test_each_linear_has_a_line_of_its_layers():
    """As shares of the weights where they are known; what stands out is named."""
    q = moved(20, "self_attn.q_proj", [1.0, 0.0, 1.0, 9.0], [0.01, 0.0, 0.0123456, 0.09])
    found = LayerLog().add([q, moved(20, "mlp.up_proj", [1.0], [0.5], layers=(3,))])
    text = page.lines(found, 80)

    assert "by step 20, in % of the norm of the weight" in " ".join(" ".join(text).split())
    assert "  self_attn.q_proj    1    0 1.23    9" in text
    assert "  mlp.up_proj      50" in text
    assert "  did not move: layer 1 self_attn.q_proj" in text
    assert "  far ahead: layer 3 self_attn.q_proj" in text
    assert page.norms_line(found.norms) == (
        "adapters: 1.23 % of the weights; 1 UNMOVED; 1 FAR AHEAD; most 50 % (layer 3 mlp.up_proj)"
    )
    assert page.as_json(found)["adapters"]["unmoved"] == ((1, "self_attn.q_proj"),)
    many = LayerLog().add([moved(20, "q", [0.5] * 90)])
    assert all(len(line) <= 60 for line in page.lines(many, 60))
    assert page.norms_line(many.norms) == "adapters: 0.5; most 0.5 (layer 89 q)"


def test_norms_of_which_none_is_finite_are_told():
    """Not as no adapters."""
    found = norms_of(moved(20, "q", [None, None]))

    assert page.norms_line(found) == "adapters: NO NORM IS FINITE"
    assert found.unmoved == found.running_away == ()


SOURCES = sorted((how, kind) for how, kinds in mixture._SCORES.items() for kind in kinds)


@pytest.mark.parametrize(("how", "kind"), SOURCES, ids=[kind for _, kind in SOURCES])
def test_router_scores_are_those_of_the_family_in_transformers(how, kind):
    """As the source of its router says."""
    found = importlib.util.find_spec("transformers")
    if found is None:
        pytest.skip("transformers is not installed")
    name = kind.removesuffix("_text")
    file = Path(found.origin).parent / "models" / name / f"modeling_{name}.py"
    source = file.read_text()
    recorded = source.split('"router_logits": OutputRecorder(')[1].split(",")[0]
    body = re.split(r"\n(?=class |@)", source.split(f"class {recorded}(")[1])[0]

    assert ("sigmoid" in body) == (how == "sigmoid")
    assert ("return router_probabilities" in body) == (how == "shares")
