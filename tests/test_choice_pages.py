"""The recommendation, its alternatives and the comparison as lines, from made-up answers."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent
from types import SimpleNamespace

import pytest
from known import HOST, model
from made_up import alternative, estimate, fit, pick, plan, recommendation, speed, unlock

from advisor.choice.tree import Leaf
from advisor.registry.lookup import TASKS
from advisor.registry.task_spec import TaskSpec
from profiles.facts import GIB, Gpu, Origin
from tui.pages import alternatives, comparison, memory
from tui.pages import recommendation as page
from tui.terminal import Symbols

GPU = Gpu(
    index=0,
    name="RTX 4090",
    vendor="nvidia",
    vram_bytes=24 * GIB,
    vram_free_bytes=24 * GIB,
    origin=Origin.TABLE,
)
BOX = replace(HOST, backend="cuda", gpus=(GPU, GPU))


def lines_of(text, keep=0):
    """The lines of an indented block, with the blanks that all of them begin with."""
    return [f"{' ' * keep}{line}" for line in dedent(text).strip("\n").splitlines()]


def shown(found, width=72, **more):
    """The page in plain ASCII."""
    return page.lines(found, width, Symbols.ASCII, page.Shown(**more))


def fact(found, name, **more):
    """The value of one fact of the answer, on one line."""
    start = f"{name}  "
    (row,) = [row for row in shown(found, 500, **more) if row.startswith(start)]
    return row.removeprefix(start).strip()


def test_the_whole_page():
    """The answer, the peak, the way there, the settings, the table, what to look out for."""
    assert shown(recommendation(), price=2.0) == lines_of("""
        recommended  LoRA rank 8, about 12.0 GiB at the peak
        for          llama-3.1-8b (8.03 B parameters) on CPU
        because      the tree ends at: the leaf
        data         1 000 rows, 250 000 tokens, 150 000 of them learnt (60 %)
        batch        16 rows a step (2 at a time x 8 accumulated), each of up to
                     2 048 tokens
        how          bf16, chunked loss, adamw, activations recomputed
        tokens/s     about 700 (560 to 910)
        time         about 2 h 30 m for 3 epochs of 1 000 rows; 1 m 10 s to the
                     first step
        cost         about 5.00, at 2 per hour
        disk         301 B for checkpoints and the result; 204 B free

        memory at the peak: 10.0 GiB to 16.0 GiB, 24.0 GiB free: it fits
          it comes in the optimizer's step (adam)
        #####################============+++::::::::::::........................
        # weights 7.0 GiB  = optimizer states 4.0 GiB  + process 1.0 GiB
        : margin 4.0 GiB  . left 8.0 GiB

        path through the decision tree
          one? YES
            user: you said so
          two? NO
            measured: a probe
          => the leaf

        settings to start from
          epochs  3  usual

        every method on this machine, with 24.0 GiB free
          Peaks are those of the batch below each: rows at a time x accumulated
          (x GPUs), activations kept or recomputed. Least: with the fewest rows
          at a time, recomputed where that can be.
           method            fits  peak, GiB  least  tokens/s  hours
           full fine-tuning  no    10.0-16.0   16.0         -      -
              2 x 8 rows, recomputed; too large
        >  LoRA              yes   10.0-16.0   16.0       700    2.5
              2 x 8 rows, recomputed
           QLoRA 4-bit       yes   10.0-16.0   16.0       700    2.5
              2 x 8 rows, recomputed; this version does not run it yet; not
              needed

        ! look out
        """)


def test_what_is_not_known_is_left_out():
    """No warning, no price, no reason above; hours that nobody has are no column."""
    rows = (alternative("lora", hours=None),)
    text = "\n".join(shown(recommendation(warnings=(), alternatives=rows)))

    assert text.endswith(
        dedent("""
            every method on this machine, with 24.0 GiB free
              Peaks are those of the batch below each: rows at a time x accumulated
              (x GPUs), activations kept or recomputed. Least: with the fewest rows
              at a time, recomputed where that can be.
               method  fits  peak, GiB  least  tokens/s
            >  LoRA    yes   10.0-16.0   16.0       700
                  2 x 8 rows, recomputed""")
    )
    assert "cost" not in text
    assert "why no more" not in text
    assert "NOT YET" not in text


def test_long_questions_and_reasons_wrap_under_themselves():
    """Deeper than what they belong to."""
    step = SimpleNamespace(question="q" * 31, answer="yes", origin="user", evidence="e " * 20)
    found = recommendation(path=(step,), leaf=Leaf(name="leaf " * 8, methods=("lora",)))

    assert page.path(found, 36) == lines_of(
        """
          qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq
            YES
            user: e e e e e e e e e e e e e
              e e e e e e e
          => leaf leaf leaf leaf leaf leaf
             leaf leaf
        """,
        keep=2,
    )
    assert shown(recommendation(warnings=("word " * 9,)), 40)[-2:] == [
        "! word word word word word word word",
        "  word word",
    ]


def test_each_gpu_has_its_own_memory():
    """One is the machine; two share nothing."""
    one = "\n".join(shown(recommendation(machine=replace(BOX, gpus=(GPU,)))))
    two = "\n".join(shown(recommendation(machine=BOX)))

    assert "with 24.0 GiB free\n" in one
    assert "with 24.0 GiB free on each GPU\n" in two
    assert "+ GPU context 1.0 GiB" in two
    assert "on 2x RTX 4090" in two


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "16 rows a step (2 at a time x 8 accumulated), each of up to 2 048 tokens"),
        (
            {"accumulation": 1},
            "2 rows a step, each of up to 2 048 tokens",
        ),
        (
            {"micro_batch": 1, "accumulation": 1},
            "1 row a step, each of up to 2 048 tokens",
        ),
        (
            {"accumulation": 1, "num_gpus": 2},
            "4 rows a step (2 at a time x 2 GPUs), each of up to 2 048 tokens",
        ),
        (
            {"accumulation": 2, "num_gpus": 2},
            "8 rows a step (2 at a time x 2 accumulated x 2 GPUs), each of up to 2 048 tokens",
        ),
    ],
)
def test_a_batch_in_words(changes, expected):
    """What it is made of, where it is made of something."""
    assert fact(recommendation(fit=fit(plan=plan(**changes))), "batch") == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "bf16, chunked loss, adamw, activations recomputed"),
        ({"checkpointing": False}, "bf16, chunked loss, adamw, activations kept"),
        (
            {"strategy": "fsdp", "num_gpus": 4, "offload": "optimizer"},
            "bf16, chunked loss, adamw, activations recomputed, fsdp over 4 GPUs, optimizer in RAM",
        ),
    ],
)
def test_how_it_is_run(changes, expected):
    """Precision, loss, optimizer, activations; devices and RAM where they matter."""
    assert fact(recommendation(fit=fit(plan=plan(**changes))), "how") == expected


def test_speed_time_and_cost_say_what_they_do_not_know():
    """And a rough rate says so."""
    unknown = recommendation(fit=fit(speed=None), hours=None)
    rough = recommendation(fit=fit(speed=speed(rough=True)), epochs=1)

    assert fact(unknown, "tokens/s") == "not known for this device"
    assert [row for row in shown(unknown) if row.startswith("time")] == []
    assert fact(unknown, "cost", price=1.5) == "not known without the time, at 1.5 per hour"
    assert fact(rough, "tokens/s") == "about 700 (560 to 910, a rough guide)"
    assert fact(rough, "time") == (
        "about 2 h 30 m for 1 epoch of 1 000 rows; 1 m 10 s to the first step"
    )
    assert fact(recommendation(dataset=None), "time") == "not known without --data"
    assert "for 1.5 epochs of 1 000 rows" in fact(recommendation(epochs=1.5), "time")


def test_a_model_that_is_not_here_is_downloaded_too():
    """Its size is part of what the disk must hold."""
    found = recommendation(model=model(path=None))

    assert ", the base model's download included; " in fact(found, "disk")


@pytest.mark.parametrize(
    ("origin", "told"), [("default", "assumed"), ("user", "there"), ("measured", "free")]
)
def test_ram_and_disk_are_told_with_where_they_are_known_from(origin, told):
    """Each on its own."""
    box = replace(BOX, ram_origin=Origin(origin))
    found = recommendation(machine=box)

    assert fact(found, "RAM") == f"201 B at the most while it loads, trains or saves; 202 B {told}"
    assert fact(found, "disk").endswith("; 204 B free")
    other = recommendation(machine=replace(BOX, disk_origin=Origin(origin)))
    assert fact(other, "disk").endswith(f"; 204 B {told}")


def test_a_row_tells_all_that_is_short():
    """Device, RAM and disk; that the device is can be read from the row, by how much below it."""
    short = fit(**SHORT, host_bytes=3 * GIB, host_budget_bytes=GIB, disk_bytes=5 * GIB)
    row = alternative("full", possible=False, fit=short, unlocks=(unlock("memory", 8 * GIB, ""),))
    lines = alternatives.lines(recommendation(alternatives=(row,), machine=BOX), 300)
    ram_alone = alternative(
        "full", possible=False, fit=fit(host_bytes=3 * GIB, host_budget_bytes=GIB), why_not="needs",
        unlocks=(unlock("ram", 2 * GIB, "2.0 GiB more RAM"),),
    )  # fmt: skip

    assert lines[2].strip().partition("; ")[2] == (
        "needs 3.0 GiB of RAM of 1.0 GiB free, and writes 5.0 GiB to a disk with 0 MiB free; "
        "would fit with 8.0 GiB more per device and 2.0 GiB more RAM and 5.0 GiB more disk"
    )
    of_ram = alternatives.lines(recommendation(alternatives=(ram_alone,), machine=BOX), 300)
    assert of_ram[2].strip().endswith("; needs; would fit with 2.0 GiB more RAM")


def test_where_nothing_fits_the_nearest_is_told():
    """With its batch; neither speed nor settings of what cannot be."""
    short = fit(budget_bytes=8 * GIB)
    rows = (alternative("full"), alternative("qlora", fit=short, possible=False))
    found = recommendation(rung=None, fit=short, runnable=None, runs=False, alternatives=rows)
    text = "\n".join(shown(found))

    assert fact(found, "recommended") == "nothing fits on this machine"
    assert fact(found, "nearest").startswith("QLoRA 4-bit; 16 rows a step")
    assert fact(replace_rows(found, ()), "nearest").startswith("16 rows a step")
    assert "settings to start from" not in text
    assert "tokens/s     " not in text
    assert "NOT YET" not in text


def replace_rows(found, rows):
    """The same with other alternatives."""
    return SimpleNamespace(**(vars(found) | {"alternatives": rows}))


def test_what_cannot_be_run_names_the_recipe_in_its_place():
    """Or says that there is none."""
    other = recommendation(runs=False, runnable=pick(fit=fit(speed=speed(), plan=plan(rank=4))))
    none = recommendation(runs=False, runnable=None)

    assert fact(other, "NOT YET") == "no builder"
    assert fact(other, "saved recipe") == (
        "QLoRA 4-bit rank 4, about 12.0 GiB at the peak, about 700 tokens/s; "
        "16 rows a step (2 at a time x 8 accumulated), each of up to 2 048 tokens"
    )
    without_speed = recommendation(runs=False, runnable=pick(fit=fit(speed=None)))
    assert "tokens/s" not in fact(without_speed, "saved recipe")
    assert fact(none, "NOT YET") == (
        "this version cannot run it, and nothing that it can run fits; no recipe is written"
    )
    assert [row for row in shown(none) if row.startswith("saved recipe")] == []
    with TASKS.having(TaskSpec(name="sorting", title="sorting")):
        label = recommendation(runs=False, runnable=None, fit=fit(plan=plan(task="sorting")))
        assert fact(label, "NOT YET") == (
            "this version does not train sorting yet; no recipe is written"
        )


def test_a_rank_is_told_of_methods_that_have_one():
    """Others have only their name."""
    found = recommendation(rung="full", fit=fit(plan=plan(method="full")))

    assert page.headline(found) == "full fine-tuning, about 12.0 GiB at the peak"


def test_why_the_leaf_of_the_tree_was_left():
    """In place of the leaf."""
    assert fact(recommendation(detour="it is too large"), "because") == "it is too large"


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (None, "-"),
        (0.0099, "<0.01"),
        (0.01, "0.01"),
        (0.994, "0.99"),
        (1, "1.0"),
        (3.14, "3.1"),
        (99.9, "99.9"),
        (100, "100"),
        (410.4, "410"),
    ],
)
def test_hours(hours, expected):
    """To the figures that they are good for."""
    assert alternatives.hours_text(hours) == expected


def test_a_peak_of_a_thousand_gibibytes_has_no_decimals():
    """The column stays narrow."""
    wide = estimate(low_bytes=int(999.9 * GIB), high_bytes=1000 * GIB)
    rows = alternatives.lines(
        recommendation(alternatives=(alternative("lora", fit=fit(memory=wide)),)), 80
    )

    assert "999.9-1000 " in rows[1]


def reason(**changes):
    """What stands below a row that was not chosen."""
    row = alternative("full", **({"possible": False, "fits": False} | changes))
    found = recommendation(alternatives=(row,), machine=changes.pop("machine", BOX))
    told = " ".join(" ".join(alternatives.lines(found, 300)[2:]).split())
    return told.removeprefix("2 x 8 rows, recomputed").removeprefix("; ")


SHORT = {"budget_bytes": 8 * GIB}


def test_below_a_method_stands_why_it_was_not_chosen():
    """That memory is short can be read from the row; what would help cannot."""
    ways = (unlock(), unlock("memory", 8 * GIB, "much more"), unlock("rows", 512, "rows of 512"))
    told = "would fit with 3 more GPUs, or 8.0 GiB more per device, or rows of 512"

    assert reason(possible=True, why_not="slower", unlocks=ways) == "slower"
    assert reason(why_not="no kernel") == "no kernel"
    assert reason(why_not="no kernel", unlocks=ways) == f"no kernel; {told}"
    assert reason(fit=fit(**SHORT), why_not="too large", unlocks=ways) == told
    assert reason(fit=fit(**SHORT), why_not="too large") == "too large"
    assert reason() == ""


def test_a_machine_without_gpus_is_short_of_ram():
    """Not of memory per device."""
    row = alternative(
        "full", possible=False, fit=fit(**SHORT), unlocks=(unlock("memory", GIB, ""),)
    )
    found = recommendation(alternatives=(row,), machine=HOST)

    assert alternatives.lines(found, 80)[2].endswith("; would fit with 1.0 GiB more RAM")


def test_below_every_method_stands_the_batch_of_its_peak():
    """The chosen one's too; on one GPU no engine divides anything."""
    spread = plan(num_gpus=4, strategy="fsdp", micro_batch=1, checkpointing=False)
    rows = (alternative("lora"), alternative("full", fit=fit(plan=spread), runs=False))
    told = alternatives.lines(recommendation(alternatives=rows), 80)
    assert told[2].strip() == "2 x 8 rows, recomputed"
    assert told[4].strip() == "1 x 8 x 4 rows, kept, fsdp; this version does not run it yet"


def test_what_a_method_could_do_with_stands_beside_its_peak():
    """With another batch than the peak's."""
    row = alternative("lora", least=fit(memory=estimate(high_bytes=9 * GIB)))
    head, told, _ = alternatives.lines(recommendation(alternatives=(row,)), 80)
    assert head.split()[3:5] == ["GiB", "least"]
    assert told.split()[3:5] == ["10.0-16.0", "9.0"]


def test_why_not_the_next_larger_method():
    """The numbers of its row, and as many ways as asked for."""
    row = alternative(
        "full",
        is_above=True,
        fit=fit(**SHORT),
        why_not="no",
        unlocks=(unlock(), unlock(words="a larger one")),
    )
    found = recommendation(above="not full fine-tuning: long words", alternatives=(row,))
    fits = recommendation(
        above="not full fine-tuning: long words",
        alternatives=(alternative("full", is_above=True, why_not="no"),),
    )

    assert alternatives.above(found) == (
        "not full fine-tuning: needs up to 16.0 GiB; would fit with 3 more GPUs, or a larger one"
    )
    assert alternatives.above(found, most=1) == (
        "not full fine-tuning: needs up to 16.0 GiB; would fit with 3 more GPUs"
    )
    assert alternatives.above(fits) == "not full fine-tuning: no"
    assert alternatives.above(recommendation()) == ""
    assert fact(fits, "why no more") == "not full fine-tuning: no"


def test_where_free_memory_ends_is_marked_below_the_bar():
    """With the words where there is room for them."""
    found = fit(budget_bytes=4 * GIB)
    left = memory.lines(found, 60, Symbols.ASCII, on_gpu=True)
    right = memory.lines(fit(budget_bytes=15 * GIB), 60, Symbols.ASCII, on_gpu=True)

    assert left[0] == "memory at the peak: 10.0 GiB to 16.0 GiB, 4.0 GiB free: it"
    assert left[1] == "does NOT fit"
    assert left[4] == f"{' ' * 15}^ free memory ends here: 4.0 GiB"
    assert right[4] == f"{' ' * 24}free memory ends here: 15.0 GiB ^"
    assert "left" not in "\n".join(left[5:])


def test_the_mark_of_free_memory_keeps_inside_the_width():
    """Its words stand on the left where there is no room on the right, else below."""
    right, below, left = [
        memory.lines(fit(budget_bytes=place * 16 * GIB // 60), 60, Symbols.ASCII, on_gpu=True)[4:6]
        for place in (28, 29, 59)
    ]

    assert right[0] == f"{' ' * 28}^ free memory ends here: 7.5 GiB"
    assert below == [f"{' ' * 29}^", "free memory ends here: 7.7 GiB"]
    assert left[0] == "free memory ends here: 15.7 GiB ^".rjust(60)


def test_memory_that_fits_to_the_last_byte_fits():
    """Nothing is left, and nothing is marked."""
    rows = memory.lines(fit(budget_bytes=16 * GIB), 72, Symbols.ASCII, on_gpu=True)

    assert rows[0].endswith("16.0 GiB free: it fits")
    assert rows[2][-1] == "."
    assert len(rows[2]) == 72
    assert "ends here" not in "\n".join(rows)


def row(**changes):
    """A machine's line in the comparison."""
    values = {
        "machine": "1x RTX 4090",
        "method": "LoRA",
        "rung": "lora",
        "num_gpus": 1,
        "peak_bytes": 12 * GIB,
        "free_bytes": 24 * GIB,
        "tokens_per_second": 1000.0,
        "hours": 2.5,
        "price_per_hour": 2.0,
        "cost": 5.0,
        "runs": True,
    }
    return SimpleNamespace(**(values | changes))


def test_machines_beside_each_other():
    """A row each, what stands in the way below it, warnings once at the end."""
    ways = (unlock(), unlock(words="a larger one"))
    full = alternative("full", is_above=True, possible=False, why_not="too large", unlocks=ways)
    found = [
        recommendation(
            above="not full fine-tuning: no", warnings=("look out", "and up"), alternatives=(full,)
        ),
        recommendation(machine=replace(HOST, num_nodes=2), runs=False, runnable=pick()),
        recommendation(rung=None, detour="too large for it", fit=fit(plan=plan(seq_len=64))),
    ]
    rows = [
        row(),
        row(machine="8x H100", num_gpus=0, tokens_per_second=None, cost=None),
        row(machine="T4", method="nothing fits", rung=None, hours=None, cost=0.5),
    ]

    assert comparison.lines(found, rows, 90) == lines_of("""
        llama-3.1-8b (8.03 B parameters), rows of up to 2 048 tokens

        machine             method        GPUs  peak/free GiB  tokens/s  hours  cost
        1x RTX 4090         LoRA             1   12.0 of 24.0     1 000    2.5  5.00
            not full fine-tuning: too large; would fit with 3 more GPUs
        2 nodes of 8x H100  LoRA             -   12.0 of 24.0         -    2.5     -
            no builder
        T4                  nothing fits     1   12.0 of 24.0     1 000      -  0.50
            too large for it

        ! look out
        ! and up
        """)


def test_a_narrow_comparison_puts_the_method_into_the_second_line():
    """Columns that nobody knows are left out."""
    found = [recommendation(warnings=()), recommendation(warnings=(), runs=False, runnable=None)]
    rows = [row(hours=None, cost=None), row(method="Q" * 30, hours=None, cost=None)]

    assert comparison.lines(found, rows, 60) == lines_of("""
        llama-3.1-8b (8.03 B parameters), rows of up to 2 048 tokens

        machine      GPUs  peak/free GiB  tokens/s
        1x RTX 4090     1   12.0 of 24.0     1 000
            LoRA
        1x RTX 4090     1   12.0 of 24.0     1 000
            QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ
            this version cannot run it yet
        """)


def test_a_comparison_that_just_fits_keeps_the_method_in_its_row():
    """To the last cell."""
    found, rows = [recommendation(warnings=())], [row()]
    table = comparison.lines(found, rows, 200)[2:]
    width = max(map(len, table))

    assert comparison.lines(found, rows, width)[-len(table) :] == table
    assert "method" not in comparison.lines(found, rows, width - 1)[-3]
    longer = [row(), row(method="Q" * 30)]
    assert "method" not in comparison.lines(found * 2, longer, width)[2]
