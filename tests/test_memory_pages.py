"""What stands behind a number: the terms of the estimate and the rehearsal, as lines."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from known import model
from made_up import estimate, moment, plan
from plans import made as plan_made

from advisor.cost import memory as cost
from advisor.cost import sharding, weights
from advisor.graph.network import network
from advisor.tape import Size
from profiles.data import formats
from profiles.facts import GIB
from profiles.quantities import bytes_text, count_text
from tui.pages import explain, json_keys, memory

MIB = 1 << 20


def lines_of(text):
    """The lines of a block that is indented by eight blanks."""
    return [line[8:] for line in text.strip("\n").splitlines()][:-1]


def test_moments_stand_side_by_side():
    """Components down, moments in the order of a step, the winner marked below."""
    found = estimate(
        moments=(
            moment("optimizer_step", "adam", 11 * GIB, weights=7 * GIB, optimizer=4 * GIB),
            moment("forward", "loss", int(2.5 * GIB), weights=2 * GIB, paged_states=GIB // 2),
        )
    )

    assert explain._moments(found) == lines_of("""
          GiB               forward  opti-
                               ends  mizer
          weights              2.00   7.00
          paged states         0.50      -
          optimizer states        -   4.00
          sum                  2.50  11.00
                                      peak
        """)


def test_every_moment_has_two_lines_of_its_own_in_the_order_of_a_step():
    """Seven columns stand side by side in 80, whatever order they come in."""
    found = [moment(name, "", GIB, weights=GIB) for name in sorted(memory.MOMENTS)]
    rows = explain._moments(estimate(moments=tuple(found)))

    assert [rows[0], rows[1], rows[-1]] == lines_of("""
          GiB      forward     loss      loss   last  first  embed-  opti-
                      ends  forward  backward  layer  layer    ding  mizer
                                                                      peak
        """)


@pytest.mark.parametrize(
    ("allocated", "unit", "number"), [(4 * GIB, "GiB", "2.00"), (4 * GIB - 1, "MiB", "2048")]
)
def test_small_peaks_are_told_in_smaller_units(allocated, unit, number):
    """Below four GiB, numbers in MiB tell more."""
    rows = explain._moments(estimate(allocated_bytes=allocated))

    assert rows[0].split()[0] == unit
    assert rows[2].split()[:2] == ["weights", number]


def peak(*, pairs=0.0, has_tile=True, tile_bytes=3 * MIB):
    """A winning moment as the linear forms of its terms, of 1 000 tokens in rows of 100."""
    shares = {
        "weights": Size(2 * MIB, 0, 0),
        "activations": Size(0, 1234.4, pairs),
        "logits": Size(0, 0.0004, 0),
    }
    candidate = SimpleNamespace(shares=shares, has_tile=has_tile)
    return SimpleNamespace(
        name="forward",
        place="mul",
        tokens=1000,
        row=100,
        tile_bytes=tile_bytes,
        candidate=candidate,
    )


def test_the_peak_is_told_as_the_linear_form_that_it_is():
    """Fixed, and for each token; what is below a byte is nothing."""
    found = estimate(peak=peak())

    assert explain._peak(found, plan()) == lines_of("""
          component                   fixed  each token  together
          weights                   2.0 MiB               2.0 MiB
          activations                           1 234 B   1.2 MiB
          tile of the chunked loss  3.0 MiB               3.0 MiB
        """)
    assert explain._peak_title(found) == (
        "the peak, as the forward pass ends (the product of gate and up): 1 000 tokens"
    )


def test_what_grows_with_the_square_of_a_row_has_a_column():
    """Scores and masks."""
    found = estimate(peak=peak(pairs=48.0))

    rows = explain._peak(found, plan())

    assert rows[0].split() == ["component", "fixed", "each", "token", "each", "pair", "together"]
    assert rows[2].split()[1:6] == ["1", "234", "B", "48", "B"]
    assert rows[3].split()[-4:] == ["3.0", "MiB", "3.0", "MiB"]
    assert explain._peak_title(found).endswith("1 000 tokens, pairs in rows of 100")


@pytest.mark.parametrize("changes", [{"has_tile": False}, {"tile_bytes": 0}])
def test_a_loss_without_a_tile_has_no_row(changes):
    """It is not in this moment, or there is none."""
    assert "tile" not in "\n".join(explain._peak(estimate(peak=peak(**changes)), plan()))


def test_from_the_tensors_to_the_device():
    """What lies outside of torch's own count, and how sure each number is."""
    assert explain._device(estimate(), 90, on_gpu=True) == lines_of("""
          allocated      11.0 GiB  all tensors at the peak
          fragmentation  101 B     up to 3.0 GiB: free blocks that cannot be used again
          GPU context    102 B     of every process that uses the GPU
          NCCL           103 B     its buffers
          expected       12.0 GiB  10.0 GiB to 16.0 GiB: blocks; kernels
          torch counts   11.0 GiB  9.0 GiB to 13.0 GiB: what torch.cuda.max_memory_allocated()
                                   will say
        """)
    assert explain._device(estimate(communication_bytes=0), 90, on_gpu=False) == lines_of("""
          allocated      11.0 GiB  all tensors at the peak
          fragmentation  101 B     up to 3.0 GiB: free blocks that cannot be used again
          process        102 B     libraries, outside the tensors
          expected       12.0 GiB  10.0 GiB to 16.0 GiB: blocks; kernels
        """)


def ingredients(base, **changes):
    """What the terms are made from, by name; the first of each."""
    values = {"method": "lora", "seq_len": 512, "rank": 8, "targets": "all"}
    made = plan_made(**(values | changes))
    found = {}
    for name, value, why in explain._ingredients(base, made):
        found.setdefault(name, (value, why))
    return made, found


def test_what_a_lora_plan_is_made_from():
    """Frozen weights in 16 bits, trained ones in 32, their gradients and states."""
    base = model("qwen2.5-0.5b")
    made, found = ingredients(base, checkpointing=True, micro_batch=2)
    trained = weights.trained_params(base, made)
    states, _ = weights.optimizer_bytes(base, made)

    assert found["weights"] == (bytes_text(weights.base_bytes(base, made)), "494 032 768 in bf16")
    assert found["trained"] == (f"{count_text(trained)} weights", "fp32")
    assert found["gradients"] == (bytes_text(4 * trained), "4 B a weight")
    assert found["optimizer"] == (bytes_text(states), "adamw, 8 B a trained weight")
    (layers,) = network(base, made).layers
    pairs = layers.profile.saved.per_pair
    assert found["a layer"] == (
        f"{layers.profile.saved.per_token:,.0f} B".replace(",", " "),
        f"a token leaves in each of 24 layers, {pairs:.0f} B a pair of tokens",
    )
    assert pairs > 0
    assert found["recomputed"] == (
        f"{2 * 896:,} B".replace(",", " "),
        "is kept of a token instead: layers are computed again",
    )
    assert not {"paged states", "on each GPU"} & set(found)
    _, alone = ingredients(base)
    assert alone["a layer"][1] == "a token leaves in each of 24 layers"


def test_what_only_some_plans_have():
    """Paged states, several GPUs, kept activations, half precision."""
    base = model("qwen2.5-0.5b")
    made, found = ingredients(
        base, optimizer="paged_adamw", num_gpus=4, strategy="fsdp", precision="fp16"
    )
    _, paged = weights.optimizer_bytes(base, made)
    shares = sharding.shares_of(made)

    assert found["paged states"] == (bytes_text(paged), "there for the step only")
    assert found["on each GPU"] == (
        "fsdp",
        f"weights by {shares.weights}, gradients by {shares.gradients}, states by {shares.states}",
    )
    assert found["weights"][1] == "494 032 768 in fp16"
    assert "recomputed" not in found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "lora"}, "8 030 261 248 in bf16"),
        ({"method": "lora", "precision": "fp32"}, "7 930 261 248 in fp32, 100 000 000 frozen in"),
        ({"method": "full"}, "7 930 261 248 in fp32, 100 000 000 frozen in bf16"),
        ({"method": "full", "precision": "bf16_pure"}, "8 030 261 248 in bf16"),
    ],
)
def test_towers_that_stay_frozen_are_told_where_the_rest_is_wider(changes, expected):
    """Where all is of one type there is nothing to tell apart."""
    rank = {"rank": 8, "targets": "all"} if changes["method"] == "lora" else {}
    made = plan_made(**({"seq_len": 512} | rank | changes))

    assert explain._wide(model(vision_params=100_000_000), made).startswith(expected)


def test_two_gpus_are_several():
    """What each of them holds is told from the second on."""
    base = model("qwen2.5-0.5b")

    assert "on each GPU" in ingredients(base, num_gpus=2, strategy="fsdp")[1]
    assert "on each GPU" not in ingredients(base, num_gpus=1)[1]


def test_layers_of_each_make_are_told_apart():
    """With experts, with a window."""
    base = model("mixtral-8x7b", sliding_window=4096, num_sliding_layers=8)
    made = plan_made(method="lora", seq_len=8192, rank=8, targets="all")
    told = [why for name, _, why in explain._ingredients(base, made) if name == "a layer"]

    assert len(told) == 2
    assert {why.split(",")[0] for why in told} == {
        "a token leaves in each of 24 layers with experts",
        "a token leaves in each of 8 layers with experts with a window",
    }


def test_quantized_weights_are_told_in_three_parts():
    """Blocks, scales, and what stays wide; experts are among it with 8 bits."""
    base = model("mixtral-8x7b")
    made = plan_made(method="qlora", seq_len=512, rank=8, targets="attention", bits=8)
    blocks, scales, rest = explain._ingredients(base, made)[:3]
    narrow = weights.linear_params(base, made)

    assert blocks == (
        "weights",
        bytes_text(narrow),
        f"{count_text(narrow)} in 8 bits: the layers' linears",
    )
    assert scales == (
        "",
        bytes_text(weights.scale_bytes(base, made)),
        "scales of the quantized blocks",
    )
    assert rest[1] == bytes_text(2 * (base.num_params - narrow))
    assert rest[2] == (
        f"{count_text(base.num_params - narrow)} in bf16: embeddings, head, norms, experts"
    )
    packed = explain._ingredients(base, made.with_settings(bits=4))
    assert packed[0][2].endswith("in 4 bits: the layers' linears, experts")
    for other in (packed, explain._ingredients(model(), made)):
        assert other[2][2].endswith("in bf16: embeddings, head, norms")


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("loss_forward", "loss", "while the loss is computed"),
        ("forward", "mlp", "as the forward pass ends (mlp)"),
        ("forward", "flat_rows", "as the forward pass ends (flat rows)"),
        ("some_other", "recomputed scores", "at the some other (computing attention scores again)"),
        ("optimizer_step", "q_proj.lora_A", "in the optimizer's step (the adapter of q_proj)"),
        ("forward", "norm.weight", "as the forward pass ends (the final norm)"),
    ],
)
def test_when_and_where_the_peak_comes(name, place, expected):
    """The moment in words, and the operation unless the words name it already."""
    assert memory.when_and_where(moment(name, place, 1)) == expected


PLACES = {
    "activation": "the activation function",
    "attention": "attention",
    "cast": "a cast",
    "down": "the experts' down_proj",
    "down_proj": "down_proj",
    "gate_up": "the experts' gate_up_proj",
    "gather": "the experts' copies of tokens",
    "layer_norm": "the norm",
    "mul": "the product of gate and up",
    "o_proj.lora_B": "the adapter of o_proj",
    "pow": "the norm's squares",
    "restore": "experts made whole from 4 bits",
    "router": "the router",
    "scale": "the adapter's scaling",
    "scores": "attention scores",
    "softmax": "the softmax",
    "weigh": "the sum over experts",
}
MOMENTS = {
    "forward": "as the forward pass ends",
    "loss_forward": "while the loss is computed",
    "loss_backward": "in the loss's backward pass",
    "first_layer_backward": "in the last layer, where the backward pass begins",
    "last_layer_backward": "in the first layer, where the backward pass ends",
    "embedding_backward": "while the embedding's gradient is made",
    "optimizer_step": "in the optimizer's step",
}
COMPONENTS = {
    "optimizer": "optimizer states",
    "paged_states": "paged states",
    "context": "GPU context",
    "communication": "gathered, NCCL",
}


def test_places_moments_and_components_have_words():
    """Two places need none, for the moment names them."""
    for name, words in PLACES.items():
        told = memory.when_and_where(moment("forward", name, 1))
        assert told == f"as the forward pass ends ({words})"
    for name, words in MOMENTS.items():
        for place in ("loss", "embedding"):
            assert memory.when_and_where(moment(name, place, 1)) == words
    for name, words in COMPONENTS.items():
        assert memory.component(name) == words


def test_components_are_called_as_people_call_them():
    """On a GPU, unless it is said that there is none."""
    assert memory.component("context") == "GPU context"
    assert memory.component("context", on_gpu=False) == "process"
    assert memory.component("optimizer", on_gpu=False) == "optimizer states"
    assert memory.component("weights") == "weights"


def test_every_operation_of_a_layer_has_words():
    """None of them is shown with an underscore but the model's own names."""
    for name in ("llama-3.1-8b", "mixtral-8x7b", "gpt2"):
        for recomputed in (False, True):
            made = plan_made(
                method="lora",
                seq_len=512,
                rank=8,
                targets="all",
                checkpointing=recomputed,
                attention="eager" if name == "gpt2" else "sdpa",
            )
            told = [memory.when_and_where(m) for m in cost.estimate(model(name), made).moments]
            assert all("recomputed" not in words for words in told)


DOCUMENTS = (json_keys.RECOMMENDATION, json_keys.COMPARISON, json_keys.UNMODELLED)


def test_the_keys_of_the_json_are_grouped_by_object():
    """A heading for each object, its keys below it with words or none, all three documents."""
    rows = json_keys.lines(100)

    assert rows[0] == "advisor recommend --json"
    assert "  schema      2; within it keys are only added" in rows
    at = rows.index("  recommended.speed")
    assert rows[at + 2] == "    low_tokens_per_second"
    assert rows[at + 3].split(maxsplit=1) == [
        "tokens_per_second",
        "over all devices, rows as long as the longest",
    ]
    *most, last = formats.names()
    assert json_keys.RECOMMENDATION["data.format"] == f"{', '.join(most)} or {last}"
    for start in ("advisor recommend --compare", "advisor recommend --rehearse", "an error: "):
        (index,) = [i for i, row in enumerate(rows) if row.startswith(start)]
        assert rows[index - 1] == ""
    told = " ".join(rows)
    meanings = {meaning for keys in DOCUMENTS for meaning in keys.values() if meaning}
    assert {meaning for meaning in meanings if len(meaning) < len("as text")} == set()
    for keys in DOCUMENTS:
        assert [key for key in keys if key.rpartition(".")[2] not in told] == []


def test_the_heads_of_the_estimate_go_on_further_in():
    """Where the terminal is narrow."""
    base = model("qwen2.5-0.5b")
    made = plan_made(method="lora", seq_len=512, rank=8, targets="all")
    fit = SimpleNamespace(memory=cost.estimate(base, made), plan=made)

    rows = explain.lines(base, fit, 40, on_gpu=True)

    assert rows[:4] == [
        "",
        "the estimate, term by term (level 1: formula)",
        "  From the model's dimensions, operation",
        "  by operation; nothing was run.",
    ]
    (at,) = (number for number, row in enumerate(rows) if row.startswith("the peak, "))
    assert rows[at + 1].startswith("  ")
    assert rows[at + 1].split()[-1] == "tokens"
