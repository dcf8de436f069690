"""Label smoothing: torch's own, told apart from the loss, the same however a step is divided."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

import on_disk  # noqa: E402
import real_runs  # noqa: E402
from method_cases import CASES  # noqa: E402
from small_model import recipe_text  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from advisor.cost import memory  # noqa: E402
from profiles.models.dimensions import from_config  # noqa: E402
from profiles.runs import run as run_facts  # noqa: E402
from profiles.runs.journal import last_record  # noqa: E402
from profiles.runs.records.metrics import Loss  # noqa: E402
from runner.demo_text import instruction_rows  # noqa: E402
from runner.rehearsal_main import settings_of  # noqa: E402
from runner.rehearse import rehearse  # noqa: E402
from runner.training.batches import IGNORED_LABEL  # noqa: E402
from runner.training.longest import LongestFirst  # noqa: E402
from runner.training.smoothing import sums  # noqa: E402
from runner.training.steps import Steps  # noqa: E402
from tui import follow, report  # noqa: E402
from tui.feed import Reader  # noqa: E402
from tui.live import LiveRun  # noqa: E402
from tui.main import run as advisor_here  # noqa: E402
from tui.screens import panes  # noqa: E402


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_the_gradients_are_those_of_torch_s_cross_entropy(share):
    """Over the labels that count alone."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 11, requires_grad=True)
    labels = torch.randint(0, 11, (2, 5))
    labels[0, :3] = IGNORED_LABEL
    num_counted = int((labels != IGNORED_LABEL).sum())
    wanted = cross_entropy(logits.transpose(1, 2), labels, label_smoothing=share)
    (gradient,) = torch.autograd.grad(wanted, logits)

    found = sums(logits, labels)
    (ours,) = torch.autograd.grad(found.smoothed(share) / num_counted, logits)

    assert found.smoothed(share).item() / num_counted == pytest.approx(wanted.item(), rel=1e-6)
    assert torch.allclose(ours, gradient, atol=1e-7)
    plain = cross_entropy(logits.transpose(1, 2), labels)
    assert found.plain.item() / num_counted == pytest.approx(plain.item(), rel=1e-6)


def one_step(model, data, smoothing="", *, method="full", adapter="", **settings):
    """A run of one step, and what was logged of it."""
    more = 'loss = "full"\n' + (
        f"[objective]\nlabel_smoothing = {smoothing}\n" if smoothing else ""
    )
    run = real_runs.new_run(
        model, data, method=method, adapter=adapter, steps=1, more=more, **settings
    )
    real_runs.attempt(run)
    (record,) = [r for r in on_disk.read_all(run.metrics) if r["kind"] == "loss"]
    return run, record


@pytest.fixture(scope="module")
def both(tiny_model, tmp_path_factory):
    """The same step without and with smoothing."""
    folder = tmp_path_factory.mktemp("smoothing")
    data = folder / "orders.json"
    data.write_text(json.dumps(instruction_rows(40, seed=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_HOME", str(folder / "home"))
        plain = one_step(tiny_model, data, micro_batch=4, accumulation=2)
        return data, plain, one_step(tiny_model, data, 0.2, micro_batch=4, accumulation=2)


@pytest.mark.slow
def test_the_loss_is_told_without_smoothing_and_what_it_adds_beside(both):
    """So that runs with and without can be compared; other weights come of it."""
    _, (plain, without), (run, record) = both
    newest = last_record(run.metrics, Loss)

    assert record["loss"] == pytest.approx(without["loss"], rel=1e-5)
    assert "smoothing_loss" not in without
    assert abs(record["smoothing_loss"]) > 1e-3
    assert record["grad_norm"] != pytest.approx(without["grad_norm"], rel=1e-3)
    assert plain.id != run.id
    words = f"smoothing {record['smoothing_loss']:.4f} beside it"
    assert words in follow.step_line(newest, 1)
    live = LiveRun(run)
    live.apply(Reader(run).poll())
    assert words in panes.loss_caption(live)
    facts, _ = run_facts.from_run_dir(run)
    assert f"{record['smoothing_loss']:.4f} to the loss" in report._smoothing(facts)


@pytest.mark.slow
def test_a_divided_micro_batch_makes_the_same_step(both, tiny_model, monkeypatch):
    """Out of memory, it is made again in two pieces."""
    data, _, (whole_run, whole) = both
    piece_by_piece = Steps._one_piece

    def too_large(trainer, model, piece, *args):
        loss = piece_by_piece(trainer, model, piece, *args)
        if len(piece["input_ids"]) > 2 and not trainer.is_trial:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(Steps, "_one_piece", too_large)
    monkeypatch.setattr(LongestFirst, "try_longest_batch", lambda _: None)
    run, divided = one_step(tiny_model, data, 0.2, micro_batch=4, accumulation=2)

    assert real_runs.events(run, "oom")
    for name in ("loss", "smoothing_loss", "grad_norm"):
        assert divided[name] == pytest.approx(whole[name], rel=1e-4)
    ours, theirs = real_runs.weights(run), real_runs.weights(whole_run)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


@pytest.mark.long
@pytest.mark.slow
def test_a_soft_prompt_shifts_no_label(both, tiny_model):
    """It stands before the row, whose logits come last."""
    data, *_ = both
    told = {"method": "prompt_tuning", "adapter": "virtual_tokens = 8"}
    _, without = one_step(tiny_model, data, **told)
    _, record = one_step(tiny_model, data, 0.2, **told)

    assert record["loss"] == pytest.approx(without["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("task", "loss", "what"),
    [
        ("sft", "chunked", 'take train.loss = "full"'),
        ("dpo", "full", "dpo has no such setting; sft, pretrain have it: leave it out"),
    ],
)
def test_what_it_does_not_go_with_is_refused(tmp_path, capsys, task, loss, what):
    """With what goes instead."""
    file, text = tmp_path / "r.toml", recipe_text(extra="[objective]\nlabel_smoothing = 0.1\n")
    text += '[train]\nloss = "full"\n'
    file.write_text(f'task = "{task}"\n' + text.replace('"full"', f'"{loss}"'))

    assert advisor_here(["recipe", "check", str(file)]) == 78
    assert what in " ".join(capsys.readouterr().err.split())
    file.write_text(text)
    assert advisor_here(["recipe", "check", str(file)]) == 0


@pytest.mark.parametrize(
    ("method", "values"),
    [("lora", {}), pytest.param("full", {"micro_batch": 2}, marks=pytest.mark.long)],
)
def test_what_it_takes_beside_whole_logits_is_counted(method, values):
    """A gradient of each part and their sum, each as large as the logits in fp32."""
    config = {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 20_000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
    }
    plan = CASES[method].plan(**{"seq_len": 256, "loss": "full", "label_smoothing": 0.1} | values)

    told = rehearse(config, settings_of(plan), seq_len=256, micro_batch=plan.micro_batch)
    found = memory.estimate(from_config(config, name="tiny", where="test"), plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01)
