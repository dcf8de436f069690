"""A rehearsal as people read it, line by line."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from known import model
from plans import changed, made
from rehearsed import GIB

from runner.rehearsal.results import Rehearsed, Tried
from tui.pages import rehearsal as page

LORA = made("lora", seq_len=1024, rank=8, micro_batch=2)
FORMULA = SimpleNamespace(
    allocated_bytes=16 * GIB,
    moments=(
        SimpleNamespace(name="forward", total_bytes=15 * GIB),
        SimpleNamespace(name="loss_forward", total_bytes=12 * GIB),
        SimpleNamespace(name="loss_backward", total_bytes=10_000 * (GIB // 1024)),
        SimpleNamespace(name="first_layer_backward", total_bytes=16 * GIB),
    ),
)
SEEN = Rehearsed(
    asked=LORA,
    plan=LORA,
    peak_bytes=17 * GIB,
    winner="layer_backward",
    moments={
        "forward": 15 * GIB,
        "loss_backward": 9_998 * (GIB // 1024),
        "layer_backward": 17 * GIB,
        "optimizer_step": 3 * GIB,
    },
    seconds=61.0,
    formula=FORMULA,
)
FIT = SimpleNamespace(
    plan=LORA,
    budget_bytes=20 * GIB,
    memory=SimpleNamespace(low_bytes=16 * GIB, expected_bytes=int(17.5 * GIB), high_bytes=19 * GIB),
)
TABLE = """
level 2, rehearsed in 1 m 1 s: the model's own code, on tensors without memory
  (lora, 2 x 1 024 tokens)
  torch's own count       formula  rehearsed  difference
  forward pass and loss  15.0 GiB   15.0 GiB      +0.0 %
  loss's backward pass    9.8 GiB    9.8 GiB      +0.0 %
  layers' backward pass  16.0 GiB   17.0 GiB      +6.2 %
  optimizer's step              -    3.0 GiB           -
  peak                   16.0 GiB   17.0 GiB      +6.2 %
"""


def text(rows):
    """Rows as one text that begins and ends with a line break."""
    return "\n".join([*rows, ""])


def test_both_levels_stand_beside_each_other():
    """What the formula has no word for is a dash; what rounds to nothing has no minus."""
    verdict = (
        "  on the device, with what lies outside torch's count: 17.0 GiB to 20.0 GiB of\n"
        "  20.0 GiB free: it fits\n"
    )

    assert text(page.lines(SEEN, FIT, 80)) == TABLE + verdict


def test_a_rehearsal_of_a_larger_peak_says_that_the_plan_does_not_fit():
    """One byte decides."""
    over = replace(SEEN, peak_bytes=SEEN.peak_bytes + 1)

    assert "20.0 GiB free: it does NOT fit" in " ".join(page.lines(over, FIT, 200))


def test_without_a_formula_the_rehearsal_stands_alone():
    """No number is made up for it."""
    rows = page.lines(replace(SEEN, formula=None), FIT, 80)

    assert "  peak                         -   17.0 GiB           -" in rows
    assert "  layers' backward pass        -   17.0 GiB           -" in rows


def test_what_was_rehearsed_instead_is_told_with_no_word_on_whether_it_fits():
    """The recipe's plan, or a divided one undivided."""
    other = replace(SEEN, asked=changed(LORA, rank=4))
    divided = changed(LORA, strategy="fsdp", num_gpus=2)
    whole = replace(SEEN, asked=divided)
    of_divided = SimpleNamespace(**{**vars(FIT), "plan": divided})

    assert page.lines(other, FIT, 100)[-1] == (
        "  this is what a saved recipe would run; the recommended plan has no rehearsal"
    )
    assert page.lines(whole, of_divided, 100)[-1] == (
        "  both are of the whole model on one device; the plan divides it"
    )


def test_without_a_formula_every_method_is_told_with_its_least_memory():
    """Those that were rehearsed with their peak, the others with the reason."""
    odd = model(unmodelled="it is odd")
    seen = replace(SEEN, formula=None)
    tried = [
        Tried(
            plan=made("full", seq_len=1024),
            on_gpu=True,
            free_bytes=19 * GIB,
            rehearsed=None,
            why="weights and states alone take 119.7 GiB",
        ),
        Tried(plan=LORA, on_gpu=True, free_bytes=20 * GIB, rehearsed=seen),
        Tried(
            plan=changed(LORA, method="qlora"),
            on_gpu=True,
            free_bytes=19 * GIB,
            rehearsed=replace(seen, winner="optimizer_step", seconds=5.0),
        ),
    ]

    assert (
        text(page.unmodelled(odd, tried, "1x RTX 4090", 80))
        == """\
model      llama-3.1-8b (8.03 B parameters) on 1x RTX 4090
formula    none holds: it is odd
rehearsed  one row of 1 024 tokens, activations recomputed
free       19.0 GiB

  method            fits  peak, GiB
  full fine-tuning  no               weights and states alone take 119.7 GiB:
                                     not rehearsed
  LoRA rank 8       yes   17.2-19.6  the peak comes in the layers' backward
                                     pass; took 1 m 1 s
  QLoRA rank 8      no    17.2-19.6  the peak comes in the optimizer's step;
                                     took 5 s

Level 2 counts bytes exactly and knows nothing of time: tokens/s, a batch and a
recipe need the formula.
"""
    )
