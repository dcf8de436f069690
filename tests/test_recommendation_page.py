"""What `advisor recommend` says: the right facts, in words, in lines that fit the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from known import dataset, model
from plans import made

from advisor.choice import words
from advisor.choice.answers import Answer, Answers
from advisor.choice.ladder import steps
from advisor.choice.recommend import recommend
from advisor.cost import memory as estimates
from advisor.cost import weights
from advisor.registry.low_rank import ALL_TARGETS
from profiles.facts import GIB, Origin
from profiles.machines import planned
from profiles.models import catalog, find_model
from profiles.quantities import bytes_text
from tui.pages import alternatives, explain, memory
from tui.pages import recommendation as page
from tui.terminal import Symbols, num_cells

MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "mistralai/Mixtral-8x7B-v0.1")
BOXES = ("1x RTX 4090", "8x H100", "2 nodes of 4x A100 40GB", "T4")


OF_STEP = {"full": "full fine-tuning needs", "lora": "16-bit LoRA at micro-batch 1 needs"}
"""What the tree says of a rung."""


def found_for(name="llama-3.1-8b", box="1x RTX 4090", answers=None, data=None):
    """A recommendation for a machine that is only named."""
    base = find_model.resolve(name) if "/" in name else model(name)
    return recommend(base, planned.plan_machine(box), data, answers or Answers())


def text_of(found, width=80, **shown):
    """The page as one text."""
    return "\n".join(page.lines(found, width, Symbols.BRAILLE, page.Shown(**shown)))


def flat(text):
    """Without line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(name, box, width):
    """The whole page, every term of the estimate included."""
    found = found_for(name, box, data=dataset())

    rows = page.lines(found, width, Symbols.BRAILLE, page.Shown(explained=True, price=1.5))

    assert [row for row in rows if num_cells(row) > width] == []


def test_the_answer_comes_first_and_every_method_has_its_row():
    """Method and peak, then what it is of, then all of the ladder."""
    found = found_for("meta-llama/Llama-3.1-8B-Instruct")

    text = text_of(found)

    peak = bytes_text(found.fit.memory.expected_bytes)
    assert text.startswith(f"recommended  LoRA rank 8, about {peak} at the peak\n")
    assert "meta-llama/Llama-3.1-8B-Instruct (8.03 B parameters) on 1x RTX 4090" in flat(text)
    assert "\n>  LoRA " in text
    names = [words.title(row.rung) for row in found.alternatives]
    assert [name for name in names if f"  {name} " not in text] == []
    assert {words.title(rung) for rung in steps()} <= set(names)


def test_experts_are_counted_twice():
    """All of them are in memory, few of them meet a token."""
    assert "(30.5 B parameters, 3.35 B active)" in flat(text_of(found_for("Qwen/Qwen3-30B-A3B")))


def test_the_bar_is_as_long_as_what_is_free_and_says_when_the_peak_comes():
    """The moment in words a user knows."""
    found = found_for("meta-llama/Llama-3.1-8B-Instruct")

    head, when, *_ = memory.lines(found.fit, 80, Symbols.ASCII, on_gpu=True)

    assert head.endswith("24.0 GiB free: it fits")
    assert "in the last layer, where the backward pass begins" in when
    bar = next(row for row in text_of(found).splitlines() if row.startswith("██"))
    left = found.fit.budget_bytes - found.fit.memory.high_bytes
    assert abs(bar.count("·") - 80 * left / found.fit.budget_bytes) <= 2


def test_where_nothing_fits_the_bar_shows_where_free_memory_ends():
    """And no settings are offered for what cannot be."""
    found = found_for("llama-3.1-70b", "T4")

    text = text_of(found)

    assert "recommended  nothing fits on this machine" in text
    assert "it does NOT fit" in text
    assert "^ free memory ends here: 15.0 GiB" in text
    assert "settings to start from" not in text
    assert "nearest" in text


def test_what_cannot_be_run_yet_is_marked_where_it_is_recommended():
    """With what a saved recipe holds instead."""
    found = found_for(box="8x H100 NVL", data=dataset(tasks=5))

    text = flat(text_of(found))

    assert found.runnable is not None
    assert "recommended sparse upcycling, 8-bit AdamW" in text
    assert f"NOT YET {found.runnable.why}" in text
    assert "saved recipe LoRA rank" in text
    assert "advisor upcycle" not in text  # of no use without what trains it


def test_what_runs_is_not_marked():
    """Nothing to explain."""
    text = text_of(found_for())

    assert "NOT YET" not in text
    assert "saved recipe" not in text


def test_a_method_that_does_not_fit_says_what_would_make_it_fit():
    """Below its batch; whether it fits stands in its first line."""
    found = found_for()
    rows = alternatives.lines(found, 80)

    at = next(i for i, row in enumerate(rows) if row.strip().startswith("last layers only"))

    assert rows[at].split()[4:5] == ["no"]
    assert "recomputed; would fit with 3 more RTX 4090 (fsdp), or " in rows[at + 1]


@pytest.mark.parametrize(
    ("name", "box", "data"),
    [
        ("llama-3.1-8b", "RTX 4090", None),
        ("llama-3.1-8b", "A100 80GB", dataset(rows=80)),
        ("qwen2.5-1.5b", "2x RTX 3090", dataset(rows=80)),
        ("qwen2.5-0.5b", "8x H100", None),
        ("mixtral-8x7b", "4x A100 80GB", None),
    ],
)
def test_what_the_tree_says_of_a_method_s_need_stands_in_its_row(name, box, data):
    """As its least where it fits, else as its peak: one plan behind both."""
    found = found_for(name, box, data=data)
    rows = {row.rung: row for row in found.alternatives}
    asked = [(rung, step) for step in found.path for rung in OF_STEP if OF_STEP[rung] in str(step)]
    assert asked
    for rung, step in asked:
        row = rows[rung]
        need = row.least if row.fits else row.fit
        assert f"needs up to {need.memory.high_bytes / GIB:.1f} GiB of" in step.evidence


def test_no_method_could_do_only_with_more_than_it_takes():
    """Rows one by one are accumulated, and gradients that wait can take more than rows do."""
    rows = found_for(box="ND96isr_MI300X_v5", data=dataset(rows=100_000)).alternatives
    assert any(row.least == row.fit and row.fit.plan.micro_batch > 1 for row in rows)
    assert all(row.least.memory.high_bytes <= row.fit.memory.high_bytes for row in rows)


def test_quantized_weights_are_seen_to_save_memory():
    """Whatever batches the rows have: their least differs by the weights."""
    for box in ("RTX 4090", "A100 80GB"):
        rows = {row.rung: row.least.memory.high_bytes for row in found_for(box=box).alternatives}
        assert rows["lora"] - rows["qlora"] > 8 * GIB  # 16 bits of 8 B weights, less 4 bits


def test_the_next_larger_method_is_explained_in_short():
    """What it needs, and the cheapest way there."""
    said = alternatives.above(found_for(), most=1)

    assert said.startswith("not last layers only (freeze): needs up to ")
    assert said.endswith("would fit with 3 more RTX 4090 (fsdp)")


def test_nothing_is_told_of_a_larger_method_where_the_chosen_one_is_the_largest():
    """Nor an empty line in its place."""
    found = found_for(box="8x H100", answers=Answers(critical=Answer(True, Origin.USER)))

    assert found.rung == steps()[0]
    assert alternatives.above(found) == ""
    assert "why no more" not in text_of(found)


def test_time_and_cost_are_known_with_data_only():
    """They say what is missing."""
    with_data = text_of(found_for(data=dataset()), price=2.0)
    without = text_of(found_for(), price=2.0)

    assert "for 3 epochs of 1 000 rows" in with_data
    assert "at 2 per hour" in with_data
    assert "time         not known without --data" in without


def test_every_moment_that_the_formula_knows_has_words():
    """On the page, and as the head of a column."""
    assert set(explain._HEADS) == set(memory.MOMENTS)
    plans = [
        made(method, seq_len=512, rank=8, targets=ALL_TARGETS, checkpointing=recomputed)
        for method in ("full", "lora", "qlora", "freeze", "prompt_tuning")
        for recomputed in (False, True)
    ]
    names = {m.name for plan in plans for m in estimates.estimate(model(), plan).moments}

    assert names == set(memory.MOMENTS)


def test_recomputed_adapters_and_the_final_norm_have_words():
    """Where the operation's own name would say little."""
    moment = found_for().fit.memory.peak
    said = [
        memory.when_and_where(replace(moment, candidate=moment.candidate._replace(place=place)))
        for place in ("recomputed down_proj.lora_B", "norm.pow", "mul")
    ]

    begins = "in the last layer, where the backward pass begins"
    assert said[0] == f"{begins} (computing the adapter of down_proj again)"
    assert said[1] == f"{begins} (the final norm)"
    assert said[2] == f"{begins} (the product of gate and up)"


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_the_appendix_adds_up(method, recomputed):
    """Terms of each moment, the peak's linear form, and what they are made from."""
    base = model("qwen2.5-0.5b")
    plan = made(
        method,
        seq_len=512,
        micro_batch=2,
        rank=8 if method != "full" else 0,
        targets=ALL_TARGETS if method != "full" else (),
        checkpointing=recomputed,
    )
    found = recommend(base, planned.plan_machine("RTX 4090"), None, Answers())
    fit = replace(found.fit, plan=plan, memory=estimates.estimate(base, plan))

    rows = explain.lines(base, fit, 80, on_gpu=True)

    text = "\n".join(rows)
    assert "level 1: formula" in text
    heads = next(row for row in rows if row.startswith(("  MiB", "  GiB")))
    assert len(heads.split()) == 1 + len(fit.memory.moments)
    sums = next(row for row in rows if row.strip().startswith("sum")).split()[1:]
    assert len(sums) == len(fit.memory.moments)
    assert bytes_text(fit.memory.allocated_bytes) in text
    assert ("4 bits" in text) == (method == "qlora")
    assert ("layers are computed again" in flat(text)) == recomputed
    assert "torch.cuda.max_memory_allocated()" in text


def test_frozen_weights_beside_trained_ones_have_a_type_of_their_own():
    """As the sum of their bytes says."""
    plan = made("freeze", seq_len=512, frozen_layers=24)

    rows = explain._ingredients(model(), plan)

    assert rows[0][:2] == ("weights", bytes_text(weights.base_bytes(model(), plan)))
    assert "in fp32" in rows[0][2]
    assert rows[0][2].endswith("frozen in bf16")


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b"])
def test_the_parts_of_quantized_weights_are_all_of_them(name):
    """Blocks, their scales, and the rest in 16 bits."""
    plan = made("qlora", seq_len=512, rank=8, targets=ALL_TARGETS)

    parts = [text for key, text, _ in explain._ingredients(model(name), plan)[:3]]

    total = sum(float(part.split()[0]) * {"MiB": 1, "GiB": 1024}[part.split()[1]] for part in parts)
    assert total == pytest.approx(weights.base_bytes(model(name), plan) / 2**20, rel=0.01)


def test_every_model_of_the_catalog_has_a_size_in_words():
    """Those that no formula holds for too."""
    from tui.pages import model as model_page

    for name in catalog.ids()[::40]:
        found = find_model.resolve(name)
        assert "parameters" in model_page.size(found)
        assert "none: it can be planned with" in flat("\n".join(model_page.lines(found, 80)))


def test_how_the_machine_s_text_was_read_stands_under_its_name():
    """With what to write for the others; nothing stands there where nothing was open."""
    lines = text_of(found_for(box="RTX 3060")).splitlines()
    told = next(i for i, line in enumerate(lines) if line.startswith("machine "))
    assert lines[told - 1].strip().endswith("8GB")
    assert 'write "RTX' in lines[told]
    assert not any(line.startswith("machine ") for line in text_of(found_for()).splitlines())
