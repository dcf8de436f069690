"""EVA: adapters made from the rows, with ranks that a resume takes from its checkpoint."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from peft import PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from advisor.plan import Plan  # noqa: E402
from advisor.registry.conflicts import conflict  # noqa: E402
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import run as run_facts  # noqa: E402
from runner import methods  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402

IDS = torch.arange(3, 43)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a tiny random Llama."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, **heads, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def plan(**settings):
    """As a recipe has it."""
    return Plan.of("eva", seq_len=16, precision="fp32", **{"rank": 4, **settings})


def batches(number=4):
    """Of random tokens."""
    torch.manual_seed(1)
    drawn = [torch.randint(1, 64, (2, 40)) for _ in range(number)]
    return [{"input_ids": ids, "labels": ids.clone()} for ids in drawn]


def made(base, **settings):
    """A model that was made from them, and what was told of it."""
    model = methods.prepare(plan(**settings), base, 0)
    return model, methods.from_rows(model, plan(**settings), batches())


def by_layer(told):
    """Rank of each adapter."""
    return [rank for one in told.adapters.linears for rank in one.ranks]


def test_ranks_follow_from_the_rows_and_their_sum_stays(base):
    """At most rho times the mean; a linear may have none, and all is told as it is."""
    model, told = made(base, rho=2.0)
    found = by_layer(told)

    assert (len(found), sum(found)) == (14, 14 * 4)
    assert len(set(found)) > 1
    assert max(found) <= 8
    widths = [p.shape[0] for n, p in model.named_parameters() if ".lora_A." in n]
    assert sorted(widths) == sorted(rank for rank in found if rank)


def test_without_a_spread_all_ranks_are_alike(base):
    """And A is not as it was drawn."""
    model, told = made(base, rho=1.0)
    drawn = dict(methods.prepare(plan(rho=1.0), base, 0).named_parameters())

    assert set(by_layer(told)) == {4}
    for name, weight in model.named_parameters():
        if ".lora_A." in name:
            assert not torch.equal(weight, drawn[name])
            assert torch.allclose(weight @ weight.T, torch.eye(4), atol=1e-4)  # directions


def test_the_model_is_the_base_as_it_begins(base):
    """What B adds is nothing yet."""
    model, _ = made(base)
    alone = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    with torch.no_grad():
        assert torch.equal(model.eval()(IDS).logits, alone.eval()(IDS).logits)


def test_a_checkpoint_says_how_wide_each_adapter_is(base, tmp_path):
    """So that a new model takes its weights without looking at rows; others are refused."""
    first, told = made(base)
    folder = tmp_path / "runs" / "checkpoints"
    folder.mkdir(parents=True)
    methods.keep(first, plan(), folder)
    second = methods.prepare(plan(), base, 0)

    for _ in range(2):  # as it begins, and where the best step is taken back
        methods.restore(second, plan(), folder)

    shapes = {n: p.shape for n, p in first.named_parameters() if p.requires_grad}
    assert {n: p.shape for n, p in second.named_parameters() if p.requires_grad} == shapes
    assert second.peft_config["default"].alpha_pattern == first.peft_config["default"].alpha_pattern
    assert methods.ranks(second, plan(), 9).adapters == told.adapters
    other = methods.prepare(plan(targets="attention"), base, 0)
    with pytest.raises(UserError, match="cannot be gone on with here"):
        methods.restore(other, plan(targets="attention"), folder)


def test_what_is_published_loads_with_peft_alone(base, tmp_path):
    """With a rank and a scale for each linear."""
    model, _ = made(base)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path)
    alone = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(alone, tmp_path).eval()

    with torch.no_grad():
        wanted = model.eval()(IDS).logits
        assert (loaded(IDS).logits - wanted).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("given", "words"), [([], "no batch has 16 tokens"), (batches(1), "still turn after 3")]
)
def test_directions_that_cannot_be_found_are_told(base, monkeypatch, given, words):
    """PEFT would look for them without end."""
    monkeypatch.setattr("runner.methods.eva._MOST_PASSES", 3)
    monkeypatch.setattr("peft.EvaConfig.__post_init__", lambda config: vars(config).update(tau=2.0))

    with pytest.raises(UserError) as caught:
        methods.from_rows(methods.prepare(plan(), base, 0), plan(), given)

    assert words in caught.value.why
    assert caught.value.code is ExitCode.BAD_RECIPE


@pytest.mark.parametrize(
    ("engine", "task", "words"),
    [
        ("single", "dpo", "begins with a look at the rows of supervised"),
        ("ddp", "sft", 'take hardware.strategy = "single"'),
        ("single", "sft", ""),
    ],
)
def test_it_is_for_texts_on_one_device(engine, task, words):
    """Others are refused with what can be done."""
    spec = METHODS["eva"]
    told = conflict(spec, spec.settings(), OPTIMIZERS["adamw"], ENGINES[engine], TASKS[task])

    assert words in told
    assert bool(told) == bool(words)


class KilledError(BaseException):
    """As abrupt as a signal."""


@pytest.mark.slow
def test_a_run_counts_its_weights_after_and_goes_on_to_the_same_bits(
    tiny_model, orders, monkeypatch
):
    """The optimizer holds the adapters that there are; a resume does not look at rows again."""
    new = {"method": "eva", "adapter": "rank = 4", "steps": 6, "save_every": 2, "accumulation": 1}
    whole, resumed = (real_runs.new_run(tiny_model, orders, **new) for _ in range(2))
    step = RunSft.training_step

    def dying(trainer, *args, **kw):
        if trainer.state.global_step == 5:
            raise KilledError
        return step(trainer, *args, **kw)

    real_runs.attempt(whole)
    with monkeypatch.context() as patch:
        patch.setattr(RunSft, "training_step", dying)
        with pytest.raises(KilledError):
            real_runs.attempt(resumed)
    with monkeypatch.context() as patch:
        patch.setattr(methods, "from_rows", None)
        real_runs.next_attempt(resumed)

    wanted, found = real_runs.weights(whole), real_runs.weights(resumed)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    assert any(tensor.abs().max() > 0 for name, tensor in found.items() if "lora_B" in name)
    counts = {one["num_trainable"] for one in real_runs.events(resumed, "prepared")}
    assert counts == {sum(tensor.numel() for tensor in found.values())}
    first, published = (one["adapters"] for one in real_runs.events(resumed, "ranks"))
    assert first == published
    facts, _ = run_facts.from_run_dir(resumed)
    assert "variance of a linear's inputs" in facts.ranks.words
