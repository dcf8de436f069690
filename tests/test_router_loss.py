"""The load-balancing loss of a mixture of experts counts once a step, however it is divided."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch")

import on_disk  # noqa: E402
import real_runs  # noqa: E402
import tiny_families  # noqa: E402
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: E402

from profiles.runs import run as run_facts  # noqa: E402
from profiles.runs.journal import last_record  # noqa: E402
from profiles.runs.records.metrics import Loss  # noqa: E402
from runner.training.longest import LongestFirst  # noqa: E402
from runner.training.steps import Steps  # noqa: E402
from tui import follow, report  # noqa: E402
from tui.commands.runs import watch  # noqa: E402
from tui.feed import Reader  # noqa: E402
from tui.live import LiveRun  # noqa: E402
from tui.screens import panes  # noqa: E402


@pytest.fixture(scope="module")
def mixture(tiny_model, tmp_path_factory):
    """A tiny random mixture of experts that asks for its router's loss, strongly."""
    folder = tmp_path_factory.mktemp("mixture")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3MoeForCausalLM(config).save_pretrained(folder)
    return folder


def one_step(model, data, *, more="", log_every=1, steps=1, **settings):
    """A run of so many steps, and the records of its losses."""
    text = f"log_every = {log_every}\n{more}"
    run = real_runs.new_run(model, data, method="full", steps=steps, more=text, **settings)
    real_runs.attempt(run)
    return run, [r for r in on_disk.read_all(run.metrics) if r["kind"] == "loss"]


def minimised(record):
    """All of what was minimised."""
    return record["loss"] + record.get("router_loss", 0.0)


LOSSES = pytest.mark.parametrize("loss", ["chunked", "full"])


@LOSSES
def test_the_routers_loss_does_not_grow_with_accumulation(mixture, orders, loss):
    """Eight rows at once, or one by one: it would be eight times as strong."""
    more = f'loss = "{loss}"\n'
    _, [at_once] = one_step(mixture, orders, micro_batch=8, accumulation=1, more=more)
    _, [one_by_one] = one_step(mixture, orders, micro_batch=1, accumulation=8, more=more)

    assert one_by_one["router_loss"] == pytest.approx(at_once["router_loss"], rel=0.02)
    assert one_by_one["loss"] == pytest.approx(at_once["loss"], rel=1e-5)


@LOSSES
def test_the_loss_is_the_texts_and_the_routers_stands_beside_it(mixture, orders, loss):
    """As of one that ignores its router, whose text is read by the same weights."""
    more = f'loss = "{loss}"\n'
    config = json.loads((mixture / "config.json").read_text())
    alone = shutil.copytree(mixture, orders.parent / "alone")
    silent = config | {"router_aux_loss_coef": 0.0, "output_router_logits": False}
    (alone / "config.json").write_text(json.dumps(silent))

    _, [with_router] = one_step(mixture, orders, more=more)
    _, [without] = one_step(alone, orders, more=more)

    assert with_router["loss"] == pytest.approx(without["loss"], abs=1e-5)
    assert "router_loss" not in without
    assert 0.9 < with_router["router_loss"] < 4  # 1 for balance, up to as many as experts


@pytest.mark.parametrize("weight", [2.5, pytest.param(0.0, marks=pytest.mark.long)])
def test_the_recipe_weighs_the_routers_loss(mixture, orders, weight):
    """In place of the model's own weight, which is 1; with 0 there is no such loss."""
    _, [record] = one_step(mixture, orders, more=f"router_aux_loss_coef = {weight}\n")
    _, [usual] = one_step(mixture, orders)

    assert record["loss"] == pytest.approx(usual["loss"], rel=1e-5)
    assert record.get("router_loss", 0.0) == pytest.approx(weight * usual["router_loss"], rel=1e-4)


def test_losses_of_several_steps_are_logged_as_their_mean(mixture, orders):
    """Both of them."""
    _, apart = one_step(mixture, orders, steps=4)
    _, together = one_step(mixture, orders, steps=4, log_every=4)

    for name in ("loss", "router_loss"):
        means = sum(record[name] for record in apart) / 4
        assert together[-1][name] == pytest.approx(means, rel=1e-5)


def test_a_divided_micro_batch_has_the_same_losses(mixture, orders, monkeypatch):
    """Out of memory, it is made again in two pieces."""
    _, [whole] = one_step(mixture, orders, micro_batch=4, accumulation=2)
    row_by_row = Steps._one_piece

    def too_large(trainer, model, piece, *args):
        loss = row_by_row(trainer, model, piece, *args)
        if len(piece["input_ids"]) > 2 and not trainer.is_trial:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(Steps, "_one_piece", too_large)
    monkeypatch.setattr(LongestFirst, "try_longest_batch", lambda _: None)
    run, [divided] = one_step(mixture, orders, micro_batch=4, accumulation=2)

    assert real_runs.events(run, "oom")
    assert divided["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert divided["router_loss"] == pytest.approx(whole["router_loss"], rel=0.05)


def test_the_evaluation_is_of_the_text_alone(tmp_path, orders):
    """Of gpt-oss with a strong router: as its logits say, row by row."""
    base = tiny_families.save("gpt_oss", tmp_path / "base", router_aux_loss_coef=0.9)
    run, losses = one_step(base, orders, split="8:2:0")
    before, _ = real_runs.events(run, "evaluated")

    assert losses[0]["router_loss"] > 0.5
    assert before["loss"] == pytest.approx(losses[0]["loss"], abs=0.3)  # untrained: all rows alike
    assert before["loss"] < minimised(losses[0])


def test_everybody_is_told_of_both(mixture, orders, capsys):
    """The state as JSON, a line of text, the live screen and the report."""
    run, records = one_step(mixture, orders, steps=2)
    newest = records[-1]
    capsys.readouterr()
    live = LiveRun(run)
    live.apply(Reader(run).poll())
    facts, _ = run_facts.from_run_dir(run)
    watch(run.id, plain=False, as_json=True)
    now = json.loads(capsys.readouterr().out)

    router = f"router {newest['router_loss']:.4f} beside it"
    assert (now["loss"], now["router_loss"]) == (newest["loss"], newest["router_loss"])
    assert f"loss {newest['loss']:.4f}, {router}" in follow.step_line(live_record(run), 2)
    assert router in panes.loss_caption(live)
    assert facts.router_loss == newest["router_loss"]
    assert facts.last_loss == newest["loss"]
    assert f"{newest['router_loss']:.4f} of its own loss" in report._router(facts)


def live_record(run):
    """The newest loss, as a reader has it."""
    return last_record(run.metrics, Loss)


def test_a_run_without_experts_says_nothing_of_a_router(tiny_model, orders):
    """No line has a word more."""
    run, [record] = one_step(tiny_model, orders)
    live = LiveRun(run)
    live.apply(Reader(run).poll())

    assert "router_loss" not in record
    assert "router" not in panes.loss_caption(live) + follow.step_line(live_record(run), 1)
    assert run_facts.from_run_dir(run)[0].router_loss is None
