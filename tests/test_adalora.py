"""AdaLoRA as it is trained: when ranks fall, what is gone on with, published and told."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

import on_disk  # noqa: E402
import real_runs  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from advisor.plan import Plan  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.runs import run as run_facts  # noqa: E402
from profiles.runs.journal import last_record  # noqa: E402
from profiles.runs.records.ranks import Ranks  # noqa: E402
from runner import methods  # noqa: E402
from runner.engines import loading  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from tui import follow, report  # noqa: E402

SETTINGS = "init_rank = 6\ntarget_rank = 2\ntinit = 3\ntfinal = 4\ndelta_t = 2"
STEPS, END = 12, 8
SMALL = {"init_rank": 6, "target_rank": 2, "tinit": 0, "tfinal": 1}
IDS = torch.arange(3, 19)[None]


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
    usual = {"init_rank": 6, "target_rank": 2, "tinit": 3, "tfinal": 4, "delta_t": 2}
    return Plan.of("adalora", seq_len=16, precision="fp32", **usual | settings)


class Training:
    """Steps of AdaLoRA without a trainer."""

    def __init__(self, base, *, num_steps=STEPS, **settings):
        self.plan, self.made, self.told = plan(**settings), 0, []
        self.model = methods.prepare(self.plan, base, 0)
        self.begin(num_steps)

    def begin(self, num_steps):
        """As an attempt does."""
        methods.begin(self.model, self.plan, num_steps)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=2e-2)

    def steps(self, number):
        """So many of them."""
        for _ in range(number):
            self.model(input_ids=IDS, labels=IDS).loss.backward()
            self.optimizer.step()
            self.after()
        return self

    def after(self, *, was_skipped=False):
        """What follows an optimizer step."""
        self.made += 1
        told = methods.after_step(self.model, self.plan, self.made, was_skipped=was_skipped)
        self.told += [told] if told else []
        self.optimizer.zero_grad()

    def ranks(self):
        """Directions that are not zero, of each adapter."""
        named = self.model.named_parameters()
        return [int(p.count_nonzero()) for name, p in named if ".lora_E." in name]

    @torch.no_grad()
    def logits(self):
        """What the model predicts."""
        return self.model.eval()(input_ids=IDS).logits


def save(training, folder):
    """A checkpoint, as far as the method has a say in it."""
    folder.mkdir(parents=True)
    methods.before_saving(training.model, training.plan)
    training.model.save_pretrained(folder)
    methods.keep(training.model, training.plan, folder)
    loading.keep_trained(training.model, folder)


def load(training, folder):
    """Take it back."""
    methods.restore(training.model, training.plan, folder)
    loading.load_trained(training.model, folder)


def test_ranks_fall_between_the_two_steps_that_the_recipe_names(base):
    """All directions at first, the mean that is asked for in the end, and then no other ones."""
    training, modules = Training(base), 14
    assert sum(training.steps(3).ranks()) == 6 * modules
    at_four = sum(training.steps(1).ranks())
    assert 2 * modules < at_four < 6 * modules

    final = training.steps(END - 4).ranks()
    assert sum(final) == 2 * modules
    assert len(set(final)) > 1  # it was chosen among all of them
    assert training.steps(STEPS - END).ranks() == final


def test_the_library_is_told_when_ranks_fall(base):
    """In steps of the run; whole numbers are steps."""
    config = Training(base, num_steps=40, tinit=0.25, tfinal=8).model.peft_config["default"]

    assert (config.total_step, config.tinit, config.tfinal, config.deltaT) == (40, 10, 8, 2)


def test_the_final_ranks_are_told_once_with_what_they_rest_on(base):
    """Linear by linear, as they are in the model."""
    training = Training(base).steps(STEPS)

    (told,) = training.told
    ranks = {one.name: one.ranks for one in told.adapters.linears}
    weights = dict(training.model.base_model.model.named_parameters())
    assert (told.step, told.adapters.full, len(ranks)) == (END, 6, 7)
    for name, by_layer in ranks.items():
        for layer, rank in enumerate(by_layer):
            assert weights[f"model.layers.{layer}.{name}.lora_E.default"].count_nonzero() == rank
    assert told.adapters.rests_on.endswith(f"smoothed over the steps up to {END}")


def test_ranks_before_they_are_final_say_so(base):
    """Of a run whose best step was an early one."""
    told = methods.ranks(Training(base).steps(5).model, plan(), 5)

    assert "they were to fall from step 3 to 8, and are those of step 5" in told.words


@pytest.mark.parametrize("saved", [2, 5, 7, END, 10])
def test_it_goes_on_from_any_step_to_the_same_bits(base, tmp_path, saved):
    """Before, while and after ranks fall; the optimizer goes on as it was."""
    whole = Training(base).steps(STEPS)
    first = Training(base).steps(saved)
    save(first, tmp_path / "runs" / "checkpoints")
    second = Training(base)
    load(second, tmp_path / "runs" / "checkpoints")
    second.made = saved
    second.optimizer.load_state_dict(first.optimizer.state_dict())

    second.steps(STEPS - saved)

    assert second.ranks() == whole.ranks()
    assert torch.equal(second.logits(), whole.logits())


@pytest.mark.parametrize("step", [3, 4, 5, END, STEPS])
def test_what_is_published_is_what_was_trained(base, tmp_path, step):
    """Whole, pruned, grown again between two prunings, final: by PEFT alone."""
    training = Training(base).steps(step)
    save(training, tmp_path / "model")

    alone = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(alone, tmp_path / "model").eval()

    with torch.no_grad():
        assert (loaded(input_ids=IDS).logits - training.logits()).abs().max() < 1e-5
    saved = load_file(tmp_path / "model" / "adapter_model.safetensors")
    kept = [len(values) for name, values in saved.items() if name.endswith(".lora_E")]
    assert (len(kept), sum(kept)) == (14, sum(training.ranks()))


def test_the_penalty_is_peft_s(base):
    """What PEFT adds to a loss of its own, at the weight that it is told."""
    training = Training(base, orthogonality=0.3).steps(2)
    ours = methods.penalty(training.model, training.plan).detach()
    with torch.no_grad():
        plain = training.model(input_ids=IDS, labels=IDS).loss
        training.model.peft_config["default"].orth_reg_weight = 0.3
        theirs = training.model(input_ids=IDS, labels=IDS).loss - plain

    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    assert float(ours) > 0.1


def test_without_a_weight_there_is_no_penalty(base):
    """And nothing to be shown of it."""
    assert methods.penalty(Training(base, orthogonality=0.0).model, plan(orthogonality=0.0)) is None


def test_gradients_of_a_step_that_was_skipped_spoil_no_importance(base):
    """As a scaler of fp16 finds them; ranks are chosen all the same."""
    training = Training(base).steps(2)
    for parameter in training.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, torch.nan)
    training.after(was_skipped=True)

    training.steps(STEPS - 3)

    assert sum(training.ranks()) == 2 * 14
    assert all(torch.isfinite(t).all() for t in training.model.parameters())


@pytest.mark.parametrize(("made", "steps"), [(5, 7), (2, 4), (10, 30)])
def test_another_number_of_steps_ends_at_the_target_too(base, made, steps):
    """A run that was made shorter than its pruning, or longer after it."""
    training = Training(base, tinit=0.2, tfinal=0.4).steps(made)
    training.begin(steps)

    training.steps(steps - made)

    assert sum(training.ranks()) == 2 * 14
    assert training.told[-1].step <= steps


def test_a_run_that_is_too_short_is_refused_as_it_begins(base):
    """Where the recipe names epochs, nobody could know it before."""
    with pytest.raises(UserError, match="too short for AdaLoRA") as caught:
        Training(base, num_steps=7)

    assert caught.value.code is ExitCode.BAD_RECIPE


def test_importance_of_other_adapters_is_refused(base, tmp_path):
    """It would be of weights that are not here."""
    first = Training(base, targets="attention").steps(2)
    everywhere = Training(base).steps(2)
    folder = tmp_path / "runs" / "checkpoints"
    save(everywhere, folder)

    with pytest.raises(UserError, match="cannot be gone on with here"):
        methods.restore(first.model, first.plan, folder)


def test_a_new_head_is_trained_beside_it_and_kept(base, tmp_path):
    """Ranks fall among the adapters alone; the head is in checkpoints and in what is published."""
    scored = Plan.of("adalora", task="reward", seq_len=16, precision="fp32", **SMALL)
    models = [methods.prepare(scored, base, 0, num_labels=1) for _ in range(2)]
    model, folder = models[0], tmp_path / "runs" / "checkpoints"
    for one in models:
        methods.begin(one, scored, 3)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for step in range(1, 4):
        model(input_ids=IDS).logits.sum().backward()
        optimizer.step()
        methods.after_step(model, scored, step, was_skipped=False)
        optimizer.zero_grad()
    folder.mkdir(parents=True)
    methods.keep(model, scored, folder)
    loading.keep_trained(model, folder)
    methods.restore(models[1], scored, folder)
    loading.load_trained(models[1], folder)
    methods.before_saving(model, scored)
    model.save_pretrained(tmp_path / "model")

    (head,) = (p for n, p in model.named_parameters() if "score" in n and p.requires_grad)
    (again,) = (p for n, p in models[1].named_parameters() if "score" in n and p.requires_grad)
    saved = load_file(tmp_path / "model" / "adapter_model.safetensors")
    assert torch.equal(head, again)
    assert any(torch.equal(tensor, head) for tensor in saved.values())
    assert methods.ranks(model, scored, 3).adapters == methods.ranks(models[1], scored, 3).adapters


class KilledError(BaseException):
    """As abrupt as a signal."""


def new_run(tiny_model, orders, **settings):
    """Twelve steps of two rows."""
    usual = {"micro_batch": 2, "accumulation": 1, "steps": STEPS, "save_every": 5}
    return real_runs.new_run(
        tiny_model, orders, method="adalora", adapter=SETTINGS, **usual | settings
    )


@pytest.mark.slow
def test_a_run_tells_its_ranks_and_its_penalty(tiny_model, orders, monkeypatch):
    """While it goes on and in its report; killed on the way, it ends with the same ones."""
    run, step = new_run(tiny_model, orders), RunSft.training_step

    def dying(trainer, *args, **kw):
        if trainer.state.global_step == 9:
            raise KilledError
        return step(trainer, *args, **kw)

    with monkeypatch.context() as patch:
        patch.setattr(RunSft, "training_step", dying)
        with pytest.raises(KilledError):
            real_runs.attempt(run)
    real_runs.next_attempt(run)

    first, again, published = (one["adapters"] for one in real_runs.events(run, "ranks"))
    assert first == again
    assert published["linears"] == first["linears"]
    saved = {n: t for n, t in real_runs.weights(run).items() if ".lora_E" in n}
    assert sum(map(len, saved.values())) == sum(sum(one["ranks"]) for one in first["linears"])
    facts, _ = run_facts.from_run_dir(run)
    losses = [r for r in on_disk.read_all(run.metrics) if r["kind"] == "loss"]
    assert facts.penalty_loss == losses[-1]["penalty_loss"] > 0
    told = json.dumps(report._summary(facts, 100))
    assert f"{facts.penalty_loss:.4f} on the trained weights was minimised" in told
    assert facts.ranks.words in follow.describe(last_record(run.worker_events, Ranks))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["chunked", "full"])
def test_the_penalty_counts_once_in_a_step_and_stands_apart(tiny_model, orders, loss):
    """Four rows at once or one by one: the same losses, and gradients of the same length."""
    found = []
    for micro_batch in (4, 1):
        more = f'loss = "{loss}"\nscheduler = "constant"\nwarmup = 0.0\n'
        sizes = {"micro_batch": micro_batch, "accumulation": 4 // micro_batch}
        run = new_run(tiny_model, orders, steps=2, more=more, **sizes)
        text = run.recipe.read_text()
        run.recipe.write_text(text.replace("tinit = 3\ntfinal = 4", "tinit = 0\ntfinal = 0"))
        real_runs.attempt(run)
        found.append(next(r for r in on_disk.read_all(run.metrics) if r["kind"] == "loss"))

    at_once, one_by_one = found
    for name in ("loss", "penalty_loss", "grad_norm"):
        assert one_by_one[name] == pytest.approx(at_once[name], rel=1e-3), name
    assert at_once["penalty_loss"] > 0.1
