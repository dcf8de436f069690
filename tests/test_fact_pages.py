"""What a data set, a machine and a model are, as lines: whole pages, word for word."""

from __future__ import annotations

from dataclasses import replace
from textwrap import dedent

import pytest
from known import HOST, dataset, model

from profiles.data.repeats import Likeness, Repeats
from profiles.facts import GIB, Column, Gpu, GpuProcess, Latent, Origin
from tui.pages import data as data_page
from tui.pages import facts_json
from tui.pages import machine as machine_page
from tui.pages import methods as methods_page
from tui.pages import model as model_page
from tui.pages.recommendation import machine_text


def lines_of(text):
    """The lines of an indented block."""
    return dedent(text).strip("\n").splitlines()


DATA = replace(
    dataset(rows=12_400),
    container="JSON list",
    num_tasks=3,
    num_empty=2,
    num_bad=1,
    sha256="ab" * 32,
    columns=(
        Column(name="prompt", types=(("a text", 9, 1),)),
        Column(name="reply", types=(("a text", 9, 1),)),
        Column(name="id", types=(("a number", 8, 1), ("null", 1, 4))),
    ),
    labels=(("good", 1200), ("bad", 7)),
    scripts=(("Latin", 0.8), ("CJK", 0.19), ("Greek", 0.006), ("Thai", 0.004)),
    warnings=("7 rows repeat another", "look\x1b[2J here"),
)
DATA = replace(DATA, tokens=replace(DATA.tokens, max=9000, longest_line=77))


def test_everything_about_a_data_set():
    """Counts, columns by type, lengths, and what to look at."""
    assert data_page.lines(DATA, 70) == lines_of("""
        data      /data/rows.json
        format    alpaca, JSON list
        rows      12 400 usable, 11.8 MiB
        left out  2 without a reply, 1 faulty
        tasks     3
        columns   prompt, reply: a text; id: a number or null
        labels    good 1 200, bad 7
        counts    3 100 000 tokens, 1 860 000 of them learnt (60 %), by the
                  model's tokenizer
        a row     10 to 9 000 tokens (the longest: line 77), median 200, p95
                  600
        scripts   Latin 80 %, CJK 19 %, Greek 1 %
        sha256    abababababababab
        ! 7 rows repeat another
        ! look here
        """)


def test_what_a_data_set_does_not_have_is_not_told():
    """One task is no fact; lengths that were estimated say so."""
    tokens = replace(DATA.tokens, origin=Origin.PREDICTED, longest_line=0)

    assert data_page.lines(replace(dataset(), tokens=tokens, num_bad=4), 80) == lines_of("""
        data      /data/rows.json
        format    alpaca
        rows      1 000 usable, 976.6 KiB
        left out  4 faulty
        counts    3 100 000 tokens, 1 860 000 of them learnt (60 %), from characters
        a row     10 to 9 000 tokens, median 200, p95 600
        sha256    0000000000000000
        """)
    assert "tokens" not in "\n".join(data_page.lines(replace(dataset(), tokens=None), 80))


@pytest.mark.parametrize(("number", "more"), [(12, ""), (13, " and 1 more"), (30, " and 18 more")])
def test_of_many_columns_twelve_are_named(number, more):
    """The others are counted."""
    columns = tuple(Column(name=f"k{n}", types=(("a text", 1, 1),)) for n in range(number))

    text = "\n".join(data_page.lines(replace(DATA, columns=columns), 400))

    named = ", ".join(f"k{n}" for n in range(12))
    assert f"columns   {named}{more}: a text\n" in text


@pytest.mark.parametrize(("number", "more"), [(6, ""), (7, " and 1 more"), (9, " and 3 more")])
def test_of_many_labels_six_are_named(number, more):
    """The others are counted."""
    labels = tuple((f"l{n}", 1) for n in range(number))

    text = "\n".join(data_page.lines(replace(DATA, labels=labels), 400))

    assert f"labels    l0 1, l1 1, l2 1, l3 1, l4 1, l5 1{more}\n" in text


def test_data_without_tokens_has_no_share_that_is_learnt_from():
    """Nothing is divided by nothing."""
    tokens = replace(DATA.tokens, total=0, edges=())

    assert any(
        "0 tokens, 0 of them learnt (0 %)" in row
        for row in data_page.lines(replace(DATA, tokens=tokens), 90)
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"warnings": ()}, "ready for training"),
        ({}, "ready for training; look at the points marked ! first"),
        ({"problem": "no"}, "not ready for training: no"),
        ({"problem": "no", "num_untrainable": 500}, "not ready for training: no"),
        (
            {"problem": "no", "num_untrainable": 501},
            "not ready for training: no; raise --max-length or shorten the prompts",
        ),
    ],
)
def test_the_verdict_on_data(changes, expected):
    """The length is blamed where it takes the reply of most rows."""
    found = (
        replace(dataset(), warnings=("w",), **changes) if "warnings" not in changes else dataset()
    )

    assert data_page.verdict(found, 200) == [expected]


@pytest.mark.parametrize(
    ("leak", "expected"),
    [
        (Likeness(), ["no row of /data/rows.json is in t.json"]),
        (
            Likeness(exact=Repeats(3, 1, 18), near=Repeats(2, 7, 9)),
            [
                (
                    "! 5 of 1000 rows of /data/rows.json are also in t.json (first: line 1, there "
                    "line 18): their loss says nothing about new questions"
                )
            ],
        ),
        (
            Likeness(near=Repeats(2, 7, 9), prompt=Repeats(4, 5, 6)),
            [
                (
                    "! 2 of 1000 rows of /data/rows.json are also in t.json (first: line 7, there "
                    "line 9): their loss says nothing about new questions"
                ),
                (
                    "! 4 of 1000 rows of /data/rows.json ask what t.json also asks, with another "
                    "reply (first: line 5)"
                ),
            ],
        ),
    ],
)
def test_what_is_held_out_and_also_trained_on(leak, expected):
    """The same rows and the same questions; where the first stands."""
    assert data_page.leak_lines(leak, "t.json", dataset(), 300) == expected


GPU = Gpu(
    index=0,
    name="RTX 4090",
    vendor="nvidia",
    vram_bytes=24 * GIB,
    vram_free_bytes=20 * GIB,
    origin=Origin.MEASURED,
    has_bf16=True,
    bf16_flops=165e12,
    fp16_flops=330e12,
    power_watts=61.6,
    power_limit_watts=450.0,
    temperature_celsius=41,
    utilization_percent=7,
    throttle_reasons=("power cap", "heat"),
    pcie_generation=4,
    pcie_lanes=16,
    num_nvlinks=4,
    holders=(GpuProcess(pid=77, name="python", user="ada", vram_bytes=4 * GIB),),
)
UNKNOWN_GPU = Gpu(
    index=2,
    name="RTX 3090",
    vendor="nvidia",
    vram_bytes=24 * GIB,
    vram_free_bytes=24 * GIB,
    origin=Origin.TABLE,
    has_bf16=False,
    fp16_flops=71e12,
    temperature_celsius=0,
)
BOX = replace(
    HOST,
    host="gpubox",
    backend="cuda",
    gpus=(GPU, UNKNOWN_GPU, replace(GPU, index=1)),
    interconnect="pcie",
    driver="580.65",
    cuda_version="13.0",
    notes=("one fan stands still",),
)


def test_everything_about_a_machine():
    """GPUs of one name are counted together; what is not known is not told, or said."""
    machine = replace(BOX, gpus=(GPU, UNKNOWN_GPU))

    assert machine_page.lines(machine, 70) == lines_of("""
        machine      gpubox
        accelerator  1x RTX 4090 + 1x RTX 3090, joined by pcie
        cpu          cpu, 8 cores
        memory       60.0 GiB free of 64.0 GiB
        disk         1.0 TiB free at /
        driver       580.65, CUDA 13.0

        gpu 0        RTX 4090
          memory     20.0 GiB free of 24.0 GiB
          rate       165 TFLOP/s dense 16-bit
          bf16       yes
          now        7 % busy 62 W of 450 W 41 C
          throttled  power cap, heat
          links      PCIe 4 x16, 4 NVLinks
          held       4.0 GiB by ada (python 77)

        gpu 2     RTX 3090
          memory  24.0 GiB free of 24.0 GiB
          rate    71 TFLOP/s dense 16-bit
          bf16    no
          now     0 C
        ! one fan stands still
        """)


def test_a_machine_without_gpus():
    """Four lines, and one that says what it is for."""
    assert machine_page.lines(HOST, 70) == lines_of("""
        machine      here
        accelerator  none; training runs on the CPU
        cpu          cpu, 8 cores
        memory       60.0 GiB free of 64.0 GiB
        disk         1.0 TiB free at /
        """)


def test_a_planned_machine_is_called_one():
    """It is not the one that the person sits at."""
    first, *_ = machine_page.lines(replace(HOST, origin=Origin.USER), 70)

    assert first == "planned machine  here"


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (BOX, "2x RTX 4090 + 1x RTX 3090"),
        (HOST, "CPU"),
        (replace(BOX, num_nodes=2, gpus=(GPU,)), "2 nodes of 1x RTX 4090"),
    ],
)
def test_a_machine_in_one_line(machine, expected):
    """Names in the order of the GPUs."""
    assert machine_text(machine) == expected


def test_everything_about_a_mixture_of_experts():
    """Counts, ranks, windows, and why no formula holds."""
    found = model(
        "mixtral-8x7b",
        latent=Latent(query_rank=1536, kv_rank=512, nope_dim=1, rope_dim=1, value_dim=1),
        sliding_window=4096,
        num_sliding_layers=16,
        vision_params=400_000_000,
        gated=True,
        unmodelled="16 of 32 layers use linear attention",
        weight_bytes=93 * GIB,
        tied_embeddings=True,
    )
    found = replace(found, experts=replace(found.experts, shared_width=1408, num_layers=24))

    assert model_page.lines(found, 70) == lines_of("""
        model       mixtral-8x7b
        folder      /models/mixtral-8x7b
        kind        LlamaForCausalLM (mixtral), a mixture of experts
        parameters  46 702 792 704, as the catalog says
          active    21 335 642 112 meet one token
          towers    400 000 000 for images or sound, frozen while text is
                    trained
        weights     93.0 GiB on disk, bfloat16
        shape       32 layers of 4096, 32 heads, 8 key/value heads of 128
          latent    low ranks: 1536 for queries, 512 for keys and values
          window    4 096 tokens in 16 of 32 layers
        experts     8 of 14336, 2 a token, shared ones of 1408; in 24 of 32
                    layers
        vocabulary  32 000, embedding and head tied
        reads       8 192 tokens
        template    yes
        gated       yes: the hub asks you to accept a licence
        caution     16 of 32 layers use linear attention: no formula holds;
                    `advisor recommend --rehearse` counts its memory
        """)


def test_a_dense_model_that_is_not_on_this_disk():
    """What it does not have is not told."""
    found = model(path=None, has_chat_template=None, params_origin=Origin.PREDICTED)

    assert model_page.lines(found, 70) == lines_of("""
        model       llama-3.1-8b
        folder      none: it can be planned with, and trained once downloaded
        kind        LlamaForCausalLM (llama), dense
        parameters  8 030 261 248, counted from its config
        weights     bfloat16
        shape       32 layers of 4096, 32 heads, 8 key/value heads of 128
        mlp         14336
        vocabulary  128 256
        reads       8 192 tokens
        template    not known
        """)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (999_999, "999 999 parameters"),
        (1_000_000, "1 M parameters"),
        (494_032_768, "494 M parameters"),
        (1_000_000_000, "1 B parameters"),
        (8_030_261_248, "8.03 B parameters"),
        (1_000_000_000_000, "1 T parameters"),
    ],
)
def test_the_size_of_a_model_in_words(number, expected):
    """Three figures of the largest unit."""
    assert model_page.size(model(num_params=number)) == expected


def test_the_facts_for_scripts_are_those_of_the_page():
    """Each key holds its own fact."""
    found = model("mixtral-8x7b", gated=False, weight_bytes=93)

    assert facts_json.model(found) == {
        "id": "mixtral-8x7b",
        "path": "/models/mixtral-8x7b",
        "architecture": "LlamaForCausalLM",
        "model_type": "mixtral",
        "num_params": 46_702_792_704,
        "active_params": 12_879_925_248,
        "origin": "table",
        "num_layers": 32,
        "hidden_size": 4096,
        "vocab_size": 32000,
        "max_positions": 8192,
        "num_experts": 8,
        "weight_bytes": 93,
        "gated": False,
    }
    assert facts_json.model(model())["num_experts"] is None
    assert facts_json.machine(replace(BOX, gpus=(GPU,), num_nodes=3)) == {
        "name": "1x RTX 4090",
        "origin": "measured",
        "backend": "cuda",
        "gpus": [
            {
                "name": "RTX 4090",
                "vram_bytes": 24 * GIB,
                "vram_free_bytes": 20 * GIB,
                "origin": "measured",
            }
        ],
        "num_nodes": 3,
        "interconnect": "pcie",
        "assumed": [],
        "ram_free_bytes": 60 * GIB,
        "ram_origin": "measured",
        "disk_free_bytes": 1024 * GIB,
        "disk_origin": "measured",
    }
    assert facts_json.data(DATA) == {
        "path": "/data/rows.json",
        "format": "alpaca",
        "num_rows": 12_400,
        "num_tasks": 3,
        "mean_tokens": 250.0,
        "max_tokens": 9000,
        "origin": "measured",
    }
    unread = facts_json.data(replace(DATA, tokens=None))
    assert (unread["mean_tokens"], unread["max_tokens"], unread["origin"]) == (None, None, None)


def test_what_to_look_at_goes_on_under_itself():
    """Of data, of a machine, and of what can be chosen by name."""
    long = "this is more than a row of forty cells can hold"
    folded = ["! this is more than a row of forty cells", "  can hold"]

    assert data_page.lines(replace(DATA, warnings=(long,)), 40)[-2:] == folded
    assert machine_page.lines(replace(HOST, notes=(long,)), 40)[-2:] == folded
    rows = methods_page.lines(40)
    at = rows.index("  alpaca    Alpaca's headings in plain")
    assert rows[at + 1] == "            text: ### Instruction, ###"


def test_what_can_be_chosen_by_name_for_scripts():
    """Lists by their plural; which tasks learn from which data."""
    found = methods_page.document()

    assert found["schema"] == 1
    assert {name: set(one[0]) for name, one in found.items() if isinstance(one, list) and one} == {
        "methods": {
            *("name", "title", "runs", "learning_rate", "keys", "family", "needs"),
            *("hands_to", "quoted", "reference", "conflicts"),
        },
        "presets": {"name", "title", "method", "runs"},
        "optimizers": {"name", "title", "runs"},
        "schedules": {"name", "title", "runs"},
        "strategies": {"name", "title", "runs"},
        "tasks": {"name", "title", "runs"},
        "uses": {"name", "title", "words"},
        "data_formats": {"name", "tasks"},
        "chat_templates": {"name", "title"},
        "personal_data": {"name", "title", "mark"},
    }
    assert (found["metrics"], found["exports"]) == ([], [])
    assert {"name": "alpaca", "tasks": ["sft"]} in found["data_formats"]


def test_everything_that_can_be_chosen_by_name_stands_under_its_key():
    """Two blanks in, with what runs by now; keys of a method wrap under themselves."""
    rows = methods_page.lines(70)
    blocks = [block.split("\n") for block in "\n".join(rows).split("\n\n")]
    heads = [block[0] for block in blocks]

    assert heads == [
        *("method.name", "what each trains and takes", heads[2], "train.optimizer"),
        *("train.scheduler", "hardware.strategy", "task"),
        *("data.format", "data.chat_template", "data.mask", "recommend --for"),
        "not yet: this version estimates it and cannot start it",
    ]
    note = blocks.pop(2)
    assert note[0].startswith("computed for meta-llama/Llama-3.1-8B")
    assert all(row[:2] == "  " for block in blocks for row in block[1:])
    assert max(map(len, rows)) <= 70
    words = [row.split() for row in rows]
    assert ["sft", "supervised", "fine-tuning", "runs"] in words
    assert ["lit_llama_adapter", "lit-gpt's", "LLaMA-Adapter", "not"] in [row[:4] for row in words]
    assert "  alpaca             sft" in rows
    assert "  preference         dpo, orpo, reward" in rows
    assert [row.split()[:6] for row in rows if row.startswith("  lora ")] == [
        ["lora", "LoRA", "runs", "rank,", "alpha,", "dropout,"],
        ["lora", "41.9", "M", "0.52", "160.0", "MiB"],
    ]
