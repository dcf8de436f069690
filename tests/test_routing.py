"""Which experts the tokens of training go to: counted once each, padding and retries left out."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import ranks  # noqa: E402
import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from data_files import write_rows  # noqa: E402
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model  # noqa: E402

from profiles.runs import listing  # noqa: E402
from profiles.runs.journal import read_all  # noqa: E402
from profiles.runs.records.layers import Routed  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402
from runner.training import routing  # noqa: E402
from runner.training.longest import LongestFirst  # noqa: E402
from runner.training.routing import RouterHooks  # noqa: E402
from runner.training.steps import Steps  # noqa: E402

QUICK = ("mixtral", "deepseek_v3", "llama4_text")
"""Softmax, sigmoid in one layer of two, and no indices."""
REST = ("qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss", "phimoe", "glm4_moe")
FAMILIES = pytest.mark.parametrize(
    "family", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in REST)]
)
ATTENTION = 'rank = 4\nalpha = 8\ntargets = "attention"'
IDS = torch.arange(5, 33).reshape(2, 14)
MASK = torch.tensor([[1] * 14, [1] * 9 + [0] * 5])


def made(family="mixtral", **changes):
    """A model in training mode, whose router is drawn as widely as one that has learnt."""
    model = tiny_families.make(family, **changes).train()
    for name, parameter in model.named_parameters():
        if "gate.weight" in name or "router" in name:
            torch.nn.init.normal_(parameter, std=1.0, generator=torch.manual_seed(1))
    return model


def through(model, **inputs):
    """A step of one forward and backward pass."""
    loss = model(use_cache=False, **inputs).logits.float().square().mean()
    loss.backward()


def counted(hooks):
    """What it has counted, by layer."""
    hooks.end_step()
    return {use.layer: use for use in hooks.take()}


@FAMILIES
def test_what_routers_choose_is_counted_without_padding(family):
    """As seen by hooks of this test on what goes into the experts, and by their probabilities."""
    model = made(family)
    seen, hooks = [], RouterHooks(model)
    for name, module in model.named_modules():
        if name.endswith((".gate", ".router")):
            module.register_forward_hook(lambda _, given, found: seen.append((given, found)))

    through(model, input_ids=IDS, attention_mask=MASK)

    uses, real = counted(hooks), MASK.flatten().bool()
    assert len(uses) == len(seen) == hooks.num_layers
    for use, (_, found) in zip(uses.values(), seen, strict=True):
        logits = found[1 if family == "llama4_text" else 0].float()[real]
        picked = logits.argmax(-1) if family == "llama4_text" else found[2][real]
        probabilities = (
            torch.sigmoid(logits) / torch.sigmoid(logits).sum(-1, keepdim=True)
            if family in ("deepseek_v3", "glm4_moe", "llama4_text")
            else torch.softmax(logits, -1)
        )
        entropy = torch.distributions.Categorical(probabilities).entropy().mean()
        assert use.tokens == int(real.sum())
        assert list(use.counts) == torch.bincount(picked.flatten(), minlength=4).tolist()
        assert use.entropy == pytest.approx(float(entropy.detach()), rel=1e-5)
        assert 0 < use.entropy < math.log(4)


def test_the_layers_are_those_that_have_experts():
    """DeepSeek's first one has none."""
    model = made("deepseek_v3")
    hooks = RouterHooks(model)
    through(model, input_ids=IDS)

    assert list(counted(hooks)) == [1]


def test_a_dense_model_has_nothing_to_count():
    """No hook, no record."""
    hooks = RouterHooks(tiny_families.make("llama"))

    assert (hooks.num_layers, hooks.take()) == (0, [])


@pytest.mark.parametrize("known", [True, False])
def test_a_family_that_chooses_twice_in_a_layer_trains_and_is_not_counted(known, monkeypatch):
    """JetMoE's queries are experts too; and its routers begin with an order, which is no choice."""
    if not known:
        monkeypatch.setattr(routing, "OWN_EXPERTS", frozenset())
    model = tiny_families.make("jetmoe").train()
    hooks = RouterHooks(model)

    through(model, input_ids=IDS, attention_mask=MASK)

    assert bool(counted(hooks)) is not known
    assert bool(hooks.num_layers) is not known


def test_scores_that_are_not_by_token_are_not_counted():
    """Of shape (rows, tokens, experts): their first dimension says nothing of padding."""
    model = made()
    hooks = RouterHooks(model)
    router, scores = model.model.layers[0].mlp.gate, torch.randn(2, 14, 4)

    assert hooks._use(0, router, (scores.flatten(0, 1), scores.argmax(-1).reshape(-1, 1)))
    assert hooks._use(0, router, (scores, scores.argmax(-1))) is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_is_computed_again_in_the_backward_pass_is_not_counted_again(reentrant):
    """With either kind of checkpointing."""
    model = made()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    hooks, calls = RouterHooks(model), []
    router = model.model.layers[0].mlp.gate
    router.register_forward_hook(lambda *_: calls.append(None))

    through(model, input_ids=IDS, attention_mask=MASK)

    assert len(calls) == 2
    assert {use.tokens for use in counted(hooks).values()} == {int(MASK.sum())}


def test_passes_that_nothing_is_learnt_from_are_not_counted():
    """Evaluation, answers, a reference; nor what was thrown away."""
    model = made()
    hooks = RouterHooks(model)
    with torch.no_grad():
        model(IDS)
    model.eval()(IDS)
    assert counted(hooks) == {}

    model.train()
    through(model, input_ids=IDS)
    hooks.forget()
    assert counted(hooks) == {}

    through(model, input_ids=IDS)
    with pytest.raises(IndexError):
        model(IDS + 10**6)
    assert {use.tokens for use in counted(hooks).values()} == {IDS.numel()}
    assert hooks.take() == []


def test_routers_are_counted_under_adapters():
    """A router that is trained as a copy or adapted, adapted experts, a soft prompt's tokens."""
    lora = LoraConfig(
        r=2,
        target_modules=["q_proj"],
        target_parameters=["mlp.experts.gate_up_proj"],
        modules_to_save=["gate"],
        task_type=TaskType.CAUSAL_LM,
    )
    prompt = PromptTuningConfig(num_virtual_tokens=3, task_type=TaskType.CAUSAL_LM)
    alone = made()
    hooks = RouterHooks(alone)
    through(alone, input_ids=IDS, attention_mask=MASK)
    wanted = {layer: use.counts for layer, use in counted(hooks).items()}

    adapted = LoraConfig(r=2, target_parameters=["mlp.gate.weight"], task_type=TaskType.CAUSAL_LM)
    for config in (lora, adapted):
        model = get_peft_model(made(), config).train()
        hooks = RouterHooks(model)
        through(model, input_ids=IDS, attention_mask=MASK)
        assert {layer: use.counts for layer, use in counted(hooks).items()} == wanted

    model = get_peft_model(made(), prompt).train()
    hooks = RouterHooks(model)
    through(model, input_ids=IDS, attention_mask=MASK)
    assert {use.tokens for use in counted(hooks).values()} == {int(MASK.sum()) + 2 * 3}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A tiny Mixtral."""
    return tiny_families.save("mixtral", tmp_path_factory.mktemp("mixture") / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Of many lengths."""
    return write_rows(tmp_path_factory.mktemp("rows"), instruction_rows(60, seed=1))


@pytest.fixture
def trained(mixture, rows, tmp_path, monkeypatch):
    """Trains on them; returns the run."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))

    def train(*, more="", **settings):
        more = f"stats_every = 2\n{more}"
        run = real_runs.new_run(mixture, rows, adapter=ATTENTION, more=more, **settings)
        real_runs.attempt(run)
        return run

    return train


def routed(run):
    """The records of layer 0, in order."""
    return [r for r in read_all(run.layers) if isinstance(r, Routed) and not r.use.layer]


def tokens(run, since, step):
    """Real tokens of the steps after one, as the steps' own records have them."""
    found = {r["step"]: r["tokens"] for r in real_runs.steps(run)}
    return sum(n for at, n in found.items() if since < at <= step)


def test_a_run_tells_what_its_steps_read(trained, monkeypatch):
    """Every token once: with pieces after a shortage, checkpointing, evaluations in between."""
    piece = Steps._one_piece
    failed = []

    def too_large(trainer, model, batch, *args):
        loss = piece(trainer, model, batch, *args)
        if not failed and trainer.state.global_step == 3 and not trainer.is_trial:
            failed.append(len(batch["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(Steps, "_one_piece", too_large)
    more = "checkpointing = true\n"
    run = trained(steps=5, save_every=3, eval_every=2, split="8:2:0", more=more)

    assert failed == [2]
    assert real_runs.events(run, "oom")
    found = routed(run)
    assert [(r.since, r.step) for r in found] == [(0, 2), (2, 3), (3, 4), (4, 5)]
    for record in found:
        assert record.use.tokens == tokens(run, record.since, record.step)
        assert sum(record.use.counts) == 2 * record.use.tokens


def test_a_run_that_goes_on_leaves_no_step_out(trained, monkeypatch):
    """Killed after step 6, it goes on from the checkpoint of step 5; what was there is replaced."""
    ends = Steps.get_batch_samples

    def killed(trainer, *args, **kwargs):
        if trainer.state.global_step == 7 and trainer.attempt.run.attempt() == 1:
            raise KeyboardInterrupt
        return ends(trainer, *args, **kwargs)

    monkeypatch.setattr(Steps, "get_batch_samples", killed)
    monkeypatch.setattr(LongestFirst, "try_longest_batch", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        trained(steps=9, save_every=5)
    (run,) = listing.all_runs()
    real_runs.next_attempt(run)

    spans = [(r.attempt, r.since, r.step) for r in routed(run)]
    assert spans[:4] == [(1, 0, 2), (1, 2, 4), (1, 4, 5), (1, 5, 6)]
    assert spans[4:] == [(2, 5, 6), (2, 6, 8), (2, 8, 9)]
    for record in (*routed(run)[:3], *routed(run)[4:]):  # the fourth is of steps that were lost
        assert record.use.tokens == tokens(run, record.since, record.step)


@pytest.mark.long
@pytest.mark.slow
def test_the_tokens_of_all_processes_are_told(mixture, rows, tmp_path, monkeypatch):
    """Of two ranks, as one process tells those of the same steps."""
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    hardware = '[hardware]\nstrategy = "ddp"\ngpus = 2\n'
    more = f"stats_every = 2\n{hardware}"
    run = real_runs.new_run(mixture, rows, adapter=ATTENTION, steps=2, more=more)
    ranks.together([(run, None)], tmp_path)

    (record,) = routed(run)
    assert record.use.tokens == tokens(run, 0, 2) > 0
