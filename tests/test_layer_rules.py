"""What is concluded of layers, and every place that tells it: report, live screen, lines, JSON."""

from __future__ import annotations

import json

import pytest
from driven_app import drive, install, until
from known import RECIPE, model

from advisor import findings, recipe
from advisor.rules import quality
from advisor.rules.quality.training import Training
from profiles.facts import Experts
from profiles.layer_facts import AdapterNorms, ExpertUse, Layers, LinearNorms, Routing
from profiles.run_facts import NOT_EVALUATED, Curves
from profiles.runs import run as runs
from profiles.runs.journal import Journal
from profiles.runs.records.layers import Moved, Routed
from tests.canned_run import canned_run, finish
from tui import follow
from tui.main import run as advisor
from tui.screens.parts import Rows

EVEN, FEW, BUSY = (250, 250, 250, 250), (500, 500, 0, 0), (480, 300, 200, 20)
ONE_DEAD = (400, 300, 300, 0)
TRAINED = RECIPE.replace('name = "lora"', 'name = "lora"\nrouter = "trained"')


def routing(*layers, since=0, step=20):
    """Of layers whose experts got so many tokens."""
    uses = [
        ExpertUse(layer=n, tokens=sum(counts) // 2, counts=counts, entropy=0.5)
        for n, counts in enumerate(layers)
    ]
    return Routing(since=since, step=step, layers=tuple(uses))


def norms(*values, relative=(), step=20):
    """Of one linear, layer by layer."""
    layers = tuple(range(len(values)))
    linear = LinearNorms(name="q", layers=layers, norms=values, relative=relative)
    return AdapterNorms(step=step, linears=(linear,))


def concluded(layers, *, text=RECIPE, is_over=False):
    """The findings."""
    asked = recipe.parse(text, where="r")
    curves = Curves(is_over=is_over)
    found = quality.findings(
        Training(curves=curves, result=NOT_EVALUATED, recipe=asked, layers=layers)
    )
    for one in found:
        recipe.validate(findings.patched(asked, [one]), where="r")  # the remedy can be applied
    return found


@pytest.mark.parametrize(
    ("first", "now", "told"),
    [
        ((EVEN, EVEN), (EVEN, EVEN), None),
        ((EVEN, EVEN), (EVEN, FEW), ("routing collapse", "critical", "in layer 1 nearly all")),
        ((FEW, EVEN), (FEW, FEW), ("routing collapse", "critical", "in layer 1 nearly all")),
        ((EVEN, FEW), (EVEN, FEW), ("routing collapse", "warning", "as they did at the beginning")),
        ((EVEN,), (ONE_DEAD,), ("dead experts", "warning", "1 of 4 experts in layer 0 got no")),
        ((ONE_DEAD,), (ONE_DEAD,), ("dead experts", "info", "as at the beginning")),
        ((EVEN,), (BUSY,), ("overloaded experts", "info", "up to 1.9 times")),
    ],
)
def test_routing_is_held_against_how_it_began(first, now, told):
    """What the model or the data had is no fault of the training."""
    found = concluded(Layers(routing=routing(*now, since=10), first_routing=routing(*first)))

    if told is None:
        assert found == ()
        return
    (one,) = found
    assert (one.id, one.title, one.severity) == ("Q06", *told[:2])
    assert told[2] in one.sentence
    assert "steps 11 to 20" in one.sentence


def test_a_router_that_collapses_is_frozen_where_it_can_be():
    """Else smaller steps are taken; what was so before training is not changed."""
    layers = Layers(routing=routing(FEW), first_routing=routing(EVEN))
    (free,), (fixed,) = concluded(layers, text=TRAINED), concluded(layers)

    assert free.change == {"method.router": ("trained", "frozen")}
    assert fixed.change == {"train.learning_rate": (2e-4, 1e-4)}
    (same,) = concluded(Layers(routing=routing(FEW), first_routing=routing(FEW)))
    assert same.change == {}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (norms(1.0, 1.1, 0.9, 1.0), None),
        (norms(1.0, 0.0, 0.9, 1.0), ("adapters that did not move", "layer 1 q did not move", {})),
        (norms(1.0, 1.0, 9.0, 1.0), ("a layer runs away", "layer 2 q moved 8 times", None)),
        (norms(1.0, relative=(1.2,)), ("a layer runs away", "layer 0 q learnt more than", None)),
        (norms(1.0, relative=(0.9,)), None),
        (norms(0.0, 0.0), ("no adapter moved", "all 2 adapters are where they began", {})),
        (norms(0.0, 0.0, step=9), None),
    ],
)
def test_adapters_that_stay_or_run_away_are_named(found, told):
    """With the change of the recipe that answers it."""
    result = concluded(Layers(norms=found))

    if told is None:
        assert result == ()
        return
    (one,) = result
    assert (one.id, one.title) == ("Q07", told[0])
    assert told[1] in one.sentence
    assert one.change == ({"train.learning_rate": (2e-4, 1e-4)} if told[2] is None else told[2])


def test_what_16_bits_round_away_is_trained_in_more():
    """And before the tenth step nothing is said, unless there will be no other."""
    text = RECIPE + '[train]\nprecision = "bf16_pure"\n'
    layers = Layers(norms=norms(0.0, step=4))

    assert concluded(layers, text=text) == ()
    (one,) = concluded(layers, text=text, is_over=True)
    assert one.change == {"train.precision": ("bf16_pure", "bf16")}


def write(run, step, *layers, moved=(1.0, 1.0, 1.0, 1.0)):
    """Records of these steps as a worker writes them."""
    journal = Journal(run.layers, attempt=1)
    for use in routing(*layers).layers:
        journal.append(Routed(step=step, since=step - 10, use=use))
    (linear,) = norms(*moved).linears
    journal.append(Moved(step=step, since=step - 10, linear=linear))
    journal.close()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that works, whose second layer has collapsed by step 20."""
    install(tmp_path, monkeypatch)
    found = canned_run(done=20)
    found.recipe.write_text(RECIPE)
    write(found, 10, EVEN, EVEN)
    write(found, 20, EVEN, (5000, 5000, 0, 0), moved=(1.0, 0.0, 1.0, 1.0))
    return found


def test_lines_tell_a_layer_that_collapses_once_and_another_one_again(run, monkeypatch):
    """Though there is no evaluation, and whatever the log said between."""
    polls = [
        lambda: None,
        lambda: write(run, 30, (10**6, 10**6, 0, 0), (10**6, 10**6, 0, 0)),
        lambda: finish(run, "stopped", 20),
    ]
    monkeypatch.setattr(follow.time, "sleep", lambda _: polls.pop(0)())

    lines = list(follow._lines(run))

    told = [line for line in lines if line.startswith("! routing collapse")]
    assert [line.split(" nearly")[0] for line in told] == [
        "! routing collapse: in layer 1",
        "! routing collapse: in layers 0, 1",
    ]
    assert len([line for line in lines if "layer 1 q did not move" in line]) == 1


def test_the_live_screen_has_a_row_for_experts_and_one_for_adapters(run):
    """At 80x24, in words; none before anything is known."""
    quiet = canned_run(done=20)
    seen = []

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        rows = app.screen.query_one("#layers", Rows)
        seen.append((rows.display, rows.text.splitlines()))
        assert app.screen.query_one("#footer").region.bottom == 24
        assert app.screen.query_one("#time").region.height >= 6

    drive(script, size=(80, 24), run_id=quiet.id)
    drive(script, size=(80, 24), run_id=run.id)

    assert seen[0][0] is False
    displayed, (experts, adapters) = seen[1]
    assert displayed
    assert experts == (
        "experts: 2 dead in 1 of 2 layers, COLLAPSED in layer 1, busiest 2.0 x (layer 1)"
    )
    assert adapters == "adapters: 1; 1 UNMOVED; most 1 (layer 3 q)"


def test_scripts_and_the_report_have_it_too(run, capsys):
    """Every layer, with what is wrong of it."""
    assert advisor(["watch", run.id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["collapsed"] for one in found["experts"]["layers"]] == [False, True]
    assert found["experts"]["layers"][1]["dead"] == [2, 3]
    assert found["adapters"]["unmoved"] == [[1, "q"]]

    facts, num_damaged = runs.from_run_dir(run)
    assert num_damaged == 0
    told = findings.report(facts, recipe.parse(RECIPE, where="r"), model())
    assert {one.id for one in told.quality} == {"Q06", "Q07"}


def test_damaged_records_of_layers_are_counted(run, capsys):
    """As of other files."""
    with run.layers.open("ab") as file:
        file.write(b"{broken}\n")

    assert runs.from_run_dir(run)[1] == 1
    assert advisor(["watch", run.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["experts"]["step"] == 20


def test_a_mixture_of_which_nothing_was_recorded_is_told_as_such(tmp_path, monkeypatch):
    """As runs of earlier versions are; a dense model has nothing to record."""
    install(tmp_path, monkeypatch)
    facts, _ = runs.from_run_dir(canned_run(done=20))
    asked = recipe.parse(RECIPE, where="r")
    experts = Experts(num_experts=4, top_k=2, width=64, num_layers=2)

    told = findings.report(facts, asked, model(experts=experts)).not_measured
    assert [one for one in told if one.startswith("Q06")] != []
    assert [
        one for one in findings.report(facts, asked, model()).not_measured if "Q06" in one
    ] == []
