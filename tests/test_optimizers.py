"""Every optimizer that runs: it learns, goes on where it stopped, and has what the recipe says.

On a tiny random model, through a whole run; the libraries are the real ones.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

torch = pytest.importorskip("torch")
import real_runs  # noqa: E402
from lomo_optim import Lomo  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.cost.weights import optimizer_bytes  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from advisor.registry.lookup import OPTIMIZERS, is_ready  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner.training.protocol import ProtocolCallback  # noqa: E402

pytestmark = pytest.mark.slow
STEPS, STOP_AT, DECAY = 12, 5, 0.03
READY = [spec for spec in OPTIMIZERS if is_ready(spec)]
ADAPTABLE = [one for one in READY if not (one.projected_rank or one.steps_in_backward)]
QUICK = ("paged_adamw_8bit", "schedule_free", "muon", "galore", "apollo", "lomo")
"""What goes on in a way of its own: all others are the Trainer's, made and loaded alike."""
RATES = {"lion": 2e-4, "lion_8bit": 2e-4, "sgd": 0.05, "lomo": 0.05}
"""Other than 1e-3."""


def quick(specs):
    """Those of QUICK, and the others as `long`."""
    rest = [spec for spec in specs if spec.name not in QUICK]
    return [
        *(spec for spec in specs if spec.name in QUICK),
        *(pytest.param(spec, marks=pytest.mark.long) for spec in rest),
    ]


@dataclass
class Case:
    """What the library is to have, by the name of an optimizer."""

    kind: str
    """Module and class of the object."""
    options: dict = field(default_factory=dict)
    """Of its first group of matrices."""


BNB = "bitsandbytes.optim"
CASES = {
    "adamw": Case("torch.optim.adamw.AdamW", {"fused": True, "betas": (0.9, 0.999)}),
    "adamw_8bit": Case(f"{BNB}.adamw.AdamW", {"betas": (0.9, 0.999)}),
    "paged_adamw_8bit": Case(f"{BNB}.adamw.AdamW"),
    "paged_adamw": Case(f"{BNB}.adamw.AdamW"),
    "lion": Case(f"{BNB}.lion.Lion", {"betas": (0.9, 0.999)}),
    "lion_8bit": Case(f"{BNB}.lion.Lion"),
    "sgd": Case("torch.optim.sgd.SGD", {"momentum": 0.9}),
    "adafactor": Case("transformers.optimization.Adafactor", {"relative_step": False}),
    "ademamix": Case(f"{BNB}.ademamix.AdEMAMix", {"betas": (0.9, 0.999, 0.9999), "alpha": 5.0}),
    "stable_adamw": Case("optimi.stableadamw.StableAdamW", {"kahan_sum": False}),
    "schedule_free": Case("runner.optimizers.schedule_free.ScheduleFree", {"warmup_steps": 0}),
    "muon": Case(
        "runner.optimizers.muon.MuonAndAdamW",
        {"momentum": 0.95, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"},
    ),
    "apollo": Case(
        "runner.optimizers.apollo.Apollo", {"rank": 256, "scale": 1.0, "tensorwise": False}
    ),
    "apollo_mini": Case(
        "runner.optimizers.apollo.Apollo", {"rank": 1, "scale": 128.0, "tensorwise": True}
    ),
    "lomo": Case("lomo_optim.lomo.Lomo", {"clip_grad_norm": None}),
    "galore": Case("galore_torch.adamw.AdamW", {"rank": 128, "scale": 0.25}),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Twenty orders."""
    from runner.demo_text import instruction_rows

    path = tmp_path_factory.mktemp("rows") / "orders.json"
    path.write_text(json.dumps(instruction_rows(20, seed=1)))
    return path


@dataclass
class Seen:
    """What became of a run."""

    run: object = None
    optimizer: object = None
    state_bytes: int = 0


def train(run, *, stop_at=None, again=False):
    """One attempt, with what it was made of; it stops after a step if that is asked for."""
    seen = Seen(run)
    end = ProtocolCallback.on_step_end

    def ending(callback, args, state, flow, **more):
        end(callback, args, state, flow, **more)
        seen.optimizer = callback.trainer.optimizer.optimizer
        seen.state_bytes = state_bytes(seen.optimizer)
        if state.global_step == stop_at:
            flow.should_training_stop = flow.should_save = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProtocolCallback, "on_step_end", ending)
        code = real_runs.next_attempt(run) if again else real_runs.attempt(run)
    assert code == (ExitCode.STOPPED if stop_at else ExitCode.FINISHED)
    return seen


def state_bytes(optimizer):
    """Of all tensors that it keeps for weights, those inside of its helpers too."""
    found = 0
    for state in optimizer.state.values():
        kept = [*state.values()]
        kept += [vars(one).get("ortho_matrix") for one in kept if hasattr(one, "ortho_matrix")]
        is_table = {"qmap1", "qmap2"}
        names = {id(value) for name, value in state.items() if name in is_table}
        tensors = [one for one in kept if torch.is_tensor(one) and id(one) not in names]
        found += sum(one.nbytes for one in tensors if one.ndim)
    return found


def new_run(model, rows, spec, **settings):
    """Full fine-tuning with an optimizer; evaluated at the end."""
    scheduler = "constant" if spec.own_schedule else "cosine"
    rate, period = RATES.get(spec.name, 1e-3), STEPS
    more = f'optimizer = "{spec.name}"\nscheduler = "{scheduler}"\nweight_decay = {DECAY}\n'
    given = {"method": "full", "steps": STEPS, "accumulation": 1, "save_every": period} | settings
    run = real_runs.new_run(model, rows, more=more, **given)
    run.recipe.write_text(run.recipe.read_text().replace("= 5e-3", f"= {rate}"))
    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the runs of this file are."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("TUNEDECK_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def whole(home, tiny_model, rows):
    """Optimizer -> a run that nobody disturbed, made once."""
    made = {}

    def of(spec):
        if spec not in made:
            made[spec] = train(new_run(tiny_model, rows, spec))
        return made[spec]

    return of


def test_every_optimizer_that_runs_is_in_the_table():
    """With what its library is to have."""
    assert set(CASES) == {spec.name for spec in READY}


@pytest.mark.parametrize("spec", quick(READY), ids=str)
def test_an_optimizer_learns_and_goes_on_where_it_stopped(spec, whole, tiny_model, rows):
    """The loss falls; stopped and resumed, the weights are the same bit for bit."""
    undisturbed = whole(spec).run
    losses = list(real_runs.losses(undisturbed).values())

    stopped = new_run(tiny_model, rows, spec)
    train(stopped, stop_at=STOP_AT)
    train(stopped, again=True)

    assert len(losses) == STEPS
    assert sum(losses[-3:]) < 0.97 * sum(losses[:3]), losses
    assert real_runs.losses(stopped) == real_runs.losses(undisturbed)
    ours, theirs = real_runs.weights(stopped), real_runs.weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("spec", READY, ids=str)
def test_the_library_has_the_values_of_the_recipe(spec, whole):
    """Its class, the rate, the decay of matrices and of nothing else, and what we set ourselves."""
    case, made = CASES[spec.name], whole(spec).optimizer
    groups = made.param_groups
    of_matrices = {p.ndim for g in groups for p in g["params"] if g["weight_decay"] == DECAY}
    of_others = {p.ndim for g in groups for p in g["params"] if g["weight_decay"] == 0}
    has = {**vars(getattr(made, "args", None) or object.__new__(Case)), **groups[0]}

    assert f"{type(made).__module__}.{type(made).__name__}" == case.kind
    assert {group["initial_lr"] for group in groups} == {RATES.get(spec.name, 1e-3)}
    of_all = ({1, 2}, set())  # LOMO knows one decay
    assert (of_matrices, of_others) == (of_all if spec.steps_in_backward else ({2}, {1}))
    assert {name: has[name] for name in case.options} == case.options
    assert getattr(made, "is_paged", False) == spec.paged


@pytest.mark.parametrize("spec", READY, ids=str)
def test_the_estimate_has_the_bytes_that_are_kept(spec, whole, tiny_model):
    """Of the optimizer as it is after its last step."""
    plan = Plan.of("full", optimizer=spec.name, seq_len=64, precision="fp32")
    estimated = sum(optimizer_bytes(from_folder(tiny_model), plan))

    assert whole(spec).state_bytes == pytest.approx(estimated, rel=0.02)


@pytest.mark.parametrize("spec", quick(ADAPTABLE), ids=str)
def test_a_method_that_divides_the_rates_trains_all_of_its_weights(spec, home, tiny_model, rows):
    """LoRA+ puts half of the weights into a group of their own, which no optimizer may forget."""
    run = new_run(tiny_model, rows, spec, method="lora", adapter="rank = 4\nb_rate = 4.0", steps=3)

    made = train(run).optimizer

    stuck = [p.shape for g in made.param_groups for p in g["params"] if not made.state.get(p)]
    zero = [n for n, t in real_runs.weights(run).items() if ".lora_B." in n and not t.any()]
    assert (stuck, zero) == ([], [])
    assert len({group["initial_lr"] for group in made.param_groups}) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("accumulation = 2", "nothing can be added up: write train.accumulation = 1"),
        ('precision = "fp16"', 'write train.precision = "bf16" or "fp32"'),
        ("max_grad_norm = 1.0", "no gradients to clip: leave it out"),
    ],
)
def test_what_a_step_inside_of_backward_cannot_do_is_refused(line, words):
    """Before the start, with what to write."""
    head = 'schema = 1\nname = "a"\n[model]\nid = "m"\n[data]\ntrain = "d.jsonl"\n'
    text = head + '[method]\nname = "full"\n[train]\noptimizer = "lomo"\n'
    assert recipes.parse(text, where="r")

    with pytest.raises(UserError) as caught:
        recipes.parse(text + line, where="r")

    assert words in caught.value.why


def test_a_batch_that_was_trained_in_part_is_not_tried_again(home, tiny_model, rows, monkeypatch):
    """Out of memory in backward ends the attempt where steps are made in it."""
    run = new_run(tiny_model, rows, OPTIMIZERS["lomo"], micro_batch=4)
    backward, calls = Lomo.fused_backward, []

    def failing(self, loss, lr):
        calls.append(lr)
        backward(self, loss, lr)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Lomo, "fused_backward", failing)
    with pytest.raises(UserError) as caught:
        real_runs.attempt(run)

    assert caught.value.code == ExitCode.HOST_OOM
    assert len(calls) == 2


def test_what_averages_publishes_the_average(whole):
    """Of a run without evaluation, too: not the weights that it trained at."""
    seen = whole(OPTIMIZERS["schedule_free"])
    trained_at = [state["trained_at"] for state in seen.optimizer.state.values()]
    published = {tuple(one.flatten()[:4].tolist()) for one in real_runs.weights(seen.run).values()}

    assert not any(group["train_mode"] for group in seen.optimizer.param_groups)
    assert not {tuple(one.flatten()[:4].tolist()) for one in trained_at} & published
