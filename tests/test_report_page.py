"""The bottleneck report as lines: what was measured, in words, and nothing that was not."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from types import SimpleNamespace

import pytest

from advisor.cost.memory import Term
from advisor.findings import Report
from advisor.rules.case import Finding
from profiles.facts import GIB
from profiles.intervals import Difference
from profiles.row_counts import RowCounts
from profiles.run_facts import Result, Run, Sample, Verdict
from profiles.runs.state import State
from tests.canned_run import canned_run
from tui import report as page
from tui.terminal import Symbols

RUN = Run(
    id="2026-11-22_0450_tiny_rwdxs",
    device="cuda:0",
    compute_capability="8.0",
    num_steps=200,
    num_steady_steps=150,
    step_seconds=0.5,
    phase_seconds={},
    longest_data_share=1.0,
    wall_seconds=120.0,
    setup_seconds=1.0,
    eval_seconds=20.0,
    num_evals=1,
    checkpoint_seconds=10.0,
    num_checkpoints=1,
    checkpoint_bytes=1,
    tokens=80_000,
    padded_tokens=100_000,
    label_tokens=20_000,
    longest=96,
    tokens_per_second=800.0,
    wall_tokens_per_second=650.0,
    peak_bytes=3 * GIB,
    reserved_peak_bytes=None,
    device_peak_bytes=None,
    capacity_bytes=24 * GIB,
    num_alloc_retries=0,
    throttle_shares={"heat": 0.25, "power cap": 0.5},
    base_loss=3.8312,
    eval_loss=3.6149,
    first_loss=None,
    last_loss=None,
    result=Result(
        verdict=Verdict.BETTER,
        rows=100,
        base_loss=3.8312,
        step=200,
        loss=3.6149,
        gain=Difference(0.2, 0.2163, 0.23),
        best_step=200,
        best_loss=3.6149,
        last_step=200,
        last_loss=3.6149,
        published_step=200,
    ),
    samples=(Sample(prompt="2 + 2?", wanted="4", before="", after="four\x1b[2J"),),
)
FINDING = Finding(
    id="B07",
    title="padding",
    severity="warning",
    confidence="exact",
    sentence="20 % of the tokens were padding.",
    evidence={},
    change={"train.packing": (None, True), "train.micro_batch": (2, 4)},
    peak_delta_bytes=-GIB,
    time_factor=(0.9, 0.8, 0.7),
    side_effects="rows share a batch",
)


def a_report(run=RUN, **changes):
    """A report of hand-made facts."""
    peak = (Term(component="weights", num_bytes=GIB), Term(component="context", num_bytes=GIB))
    memory = SimpleNamespace(
        winner="optimizer_step",
        peak=SimpleNamespace(terms=peak),
        terms=(*peak, Term(component="fragmentation", num_bytes=GIB)),
    )
    made = Report(
        run=run,
        verdict="the backward pass took 60 % of a step",
        quality=(),
        phase_shares=(("forward", 0.4), ("backward", 0.6)),
        wall_shares=(("training steps", 0.75), ("evaluation", 0.25)),
        memory=memory,
        unexplained_bytes=GIB,
        findings=(FINDING,),
        not_measured=("links: no sample of the driver",),
        low_confidence=False,
    )
    return replace(made, **changes)


def lines_of(text):
    """The lines of an indented block."""
    return dedent(text).strip("\n").splitlines()


def shown(report, width=60):
    """As lines of plain ASCII."""
    return page.lines(report, width, Symbols.ASCII)


def test_the_whole_report():
    """Verdict, summary, time, memory, findings, what is missing, answers."""
    assert shown(a_report()) == lines_of("""
        model: better than the base model: evaluation loss 3.8312 ->
          3.6149 at step 200 (lower by 0.2163, 95 %: 0.2000 to
          0.2300, on 100 rows); published: step 200, the best and
          the last
        time: the backward pass took 60 % of a step

        run        2026-11-22_0450_tiny_rwdxs
        steps      200 on cuda:0, rates from 150
        tokens     80 000 read in these steps, 25 % learnt
        padding    20 % of what was processed
        tokens/s   800 in steps, 650 over the whole training
        throttled  heat 25 %, power cap 50 %

        time of a steady step, 0.5 s
        ########################====================================
        # forward 40 %  = backward 60 %

        training time, 2 m 0 s
        #############################################===============
        # training steps 75 %  = evaluation 25 %

        memory, allocated on the GPU: peak 3.0 GiB; parts predicted
        at the optimizer step
        ####################====================++++++++++++++++++++
        # weights 1.0 GiB  = context 1.0 GiB
        + not explained 1.0 GiB

        findings
          B07 warning: 20 % of the tokens were padding.
              change train.packing: default -> True
              change train.micro_batch: 2 -> 4
              predicted: 10 % to 30 % less time, 1.0 GiB less memory
                (exact)
              side effects: rows share a batch

        not measured
          links: no sample of the driver

        answers to held-out prompts
        asked:  2 + 2?
        wanted: 4
        before: (nothing)
        after:  four
        """)


def test_the_rows_are_told_as_the_check_counted_them():
    """The whole file, with what was lost of it."""
    rows = RowCounts(num_rows=24, num_dropped=2, num_cut=3, num_tokens=3201, num_learnt=1203)

    run = replace(RUN, rows=rows, of_template=("24 of 24 rows end with no mark",))
    told = " ".join(" ".join(shown(a_report(run), 300)).split())

    assert (
        "data 24 rows, 3 201 tokens, 1 203 of them learnt (38 %); 3 of 24 rows are cut at "
        "data.max_length; 2 more are left out, for nothing is learnt within it; "
        "24 of 24 rows end with no mark tokens"
    ) in told


def test_what_is_long_goes_on_further_in():
    """Each paragraph under its own beginning."""
    found = replace(FINDING, change={"train.packing_of_rows": ("never", "always")})
    sample = Sample(
        prompt="how much is it now?", wanted="four of them and no more", before=None, after=""
    )
    run = replace(RUN, samples=(sample,))

    rows = shown(a_report(run, findings=(found,)), 28)

    at = rows.index("")
    assert rows[at - 2 : at] == ["time: the backward pass took", "  60 % of a step"]
    assert rows[rows.index("findings") :] == lines_of("""
        findings
          B07 warning: 20 % of the
              tokens were padding.
              change
                train.packing_of_rows:
                never -> always
              predicted: 10 % to 30
                % less time, 1.0 GiB
                less memory (exact)
              side effects: rows
                share a batch

        not measured
          links: no sample of the
            driver

        answers to held-out prompts
        asked:  how much is it now?
        wanted: four of them and no
                more
        after:  (nothing)
        """)


def test_what_a_run_did_not_measure_is_not_told():
    """No loss, no throttling, no sample, no finding: no empty headings."""
    run = replace(RUN, eval_loss=None, throttle_shares={}, samples=(), padded_tokens=0, tokens=0)
    text = "\n".join(shown(a_report(run, findings=(), not_measured=())))

    assert "eval loss" not in text
    assert "throttled" not in text
    assert "not measured" not in text
    assert "answers" not in text
    assert "padding   0 % of what was processed\n" in text
    assert "tokens    0 read in these steps, 0 % learnt\n" in text
    assert text.endswith("findings: none of the rules fired")


def test_rates_of_few_steps_are_called_rough():
    """Right below what took the time."""
    rows = shown(a_report(low_confidence=True))

    assert rows[rows.index("  (few steady steps: the rates are rough)") - 1].startswith("time: ")


def test_a_run_on_the_cpu_has_a_process_in_place_of_a_gpu():
    """Its resident peak includes what lies outside the tensors."""
    text = "\n".join(shown(a_report(replace(RUN, device="cpu")), 100))

    assert "memory, process: peak 3.0 GiB; parts predicted at the optimizer step" in text
    assert "process 1.0 GiB" in text
    assert "context" not in text
    assert "fragmentation 1.0 GiB" in text


def test_a_prediction_above_the_peak_is_told():
    """It explains everything, and more."""
    text = "\n".join(shown(a_report(unexplained_bytes=-GIB)))

    assert "\nthe prediction was 1.0 GiB above the measured peak\n" in text
    assert "not explained" not in text
    assert "above the measured" not in "\n".join(shown(a_report(unexplained_bytes=0)))


@pytest.mark.parametrize(
    ("factors", "delta", "expected"),
    [
        ((0.9, 0.8, 0.7), 0, "10 % to 30 % less time"),
        ((0.8, 0.8, 0.8), 0, "20 % less time"),
        ((2.0, 2.0, 2.0), 0, "100 % more time"),
        ((1.1, 1.0, 0.7), 0, "0 % to 30 % less time"),
        ((1.2, 1.1, 1.0), 0, "up to 20 % more time"),
        ((1.0, 1.0, 1.0), 0, "no gain in numbers"),
        ((1.0, 1.0, 1.0), -GIB, "1.0 GiB less memory"),
        ((0.5, 0.5, 0.5), 2 * GIB, "50 % less time, 2.0 GiB more memory"),
    ],
)
def test_a_gain_in_words(factors, delta, expected):
    """A span where it is not exact; nothing is promised that is a loss."""
    found = replace(FINDING, time_factor=factors, peak_delta_bytes=delta)

    assert page.gain(found) == f"predicted: {expected} (exact)"


@pytest.mark.parametrize(
    ("state", "num_steps", "resumable", "expected"),
    [
        (State.FINISHED, 200, 200, "finished at step 123 of 200"),
        (
            State.KILLED,
            200,
            120,
            "killed at step 123 of 200; `advisor resume ID` goes on from step 120, or from {older}",
        ),
        (
            State.KILLED,
            None,
            None,
            "killed at step 123; `advisor resume ID` starts from step 0: no checkpoint was saved",
        ),
        (State.RUNNING, 200, 120, "running at step 123 of 200"),
    ],
)
def test_how_a_run_ended(state, num_steps, resumable, expected):
    """And whether it can go on."""
    now = SimpleNamespace(state=state, step=123, num_steps=num_steps, resumable_from=resumable)
    run, older = canned_run(), "an older one if that does not verify"

    assert page.ending(run, now) == expected.replace("ID", run.id).replace("{older}", older)


def test_answers_are_cut_and_named():
    """Each of the three that there is; the first prompt after one empty line."""
    samples = (
        Sample(prompt="p" * 500, wanted="w", before=None, after=None),
        Sample(prompt="q", wanted="v", before="b", after="a"),
    )
    rows = shown(a_report(replace(RUN, samples=samples)), 600)

    start = rows.index("answers to held-out prompts")
    assert rows[start - 1] == ""
    assert rows[start + 1 :] == [
        f"asked:  {'p' * 397}...",
        "wanted: w",
        "",
        "asked:  q",
        "wanted: v",
        "before: b",
        "after:  a",
    ]


def test_markdown_is_one_fenced_block():
    """At 100 columns, whatever the terminal has; what comes from data cannot close it."""
    words = " ".join(["```", *["word"] * 30])
    text = page.markdown(a_report(verdict=words))

    first, _, body = text.partition("\n\n```text\n")
    assert first == "# Bottleneck report"
    assert body.endswith("\n```\n")
    assert text.count("```") == 2
    rows = body.splitlines()
    assert f"time: '''{' word' * 18}" in rows
    assert 96 < max(map(len, rows)) <= 100
