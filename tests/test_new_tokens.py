"""Tokens that a model is to learn: read as one everywhere, begun, trained alone, published."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402
from method_cases import Case  # noqa: E402
from peft import AutoPeftModelForCausalLM  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from small_model import CONFIG, recipe_text, small_model  # noqa: E402
from tokenizers import Tokenizer, models, normalizers  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl.trainer.utils import add_fused_lm_head  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.cost import weights  # noqa: E402
from profiles.data import new_tokens  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner import checkpoints, methods  # noqa: E402
from runner.checks import chat_templates, preflight, vocabulary  # noqa: E402
from runner.methods.new_tokens import make_rows  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from tui.main import run as advisor_here  # noqa: E402

TOKENS = ("<lamp>", "<to>")
TEXT = "count<lamp> 3 <to>"
RELOAD = Path(__file__).parent / "support" / "reload_auto.py"


@pytest.fixture(scope="module")
def bases(tiny_model, tmp_path_factory):
    """Whether embedding and head are one -> a folder, with no row left for another token."""
    found = {}
    for tied in (True, False):
        folder = tmp_path_factory.mktemp("base") / "model"
        shutil.copytree(tiny_model, folder)
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(tiny_model)))
        if not tied:
            model.config.tie_word_embeddings = False
            head = torch.randn_like(model.lm_head.weight) * 0.02
            model.lm_head.weight = torch.nn.Parameter(head)
        model.save_pretrained(folder)
        found[tied] = folder
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """In which one of the tokens is asked and answered."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    text = [{"instruction": f"count<lamp> {n}", "output": f"{n}<lamp><to>{n}"} for n in range(8)]
    path.write_text("\n".join(map(json.dumps, text)))
    return path


def added(folder):
    """The tokenizer of a folder with the tokens, as a run has it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = new_tokens.add(tokenizer.backend_tokenizer, TOKENS, add_tokens=tokenizer.add_tokens)
    return tokenizer, texts


def prepared(folder, case, **values):
    """The model of a folder as a method trains it."""
    plan = case.plan(seq_len=32, num_new_tokens=len(TOKENS), **{"precision": "fp32"} | values)
    return methods.prepare(plan, folder, 0, tokens=added(folder)[1].pieces), plan


def rows_of(model):
    """Tables with a row for each token, by name."""
    named = model.named_parameters(remove_duplicate=False)
    return {
        n: p.detach().clone() for n, p in named if n.split(".")[-2] in ("embed_tokens", "lm_head")
    }


# --- The tokenizer --------------------------------------------------------------------------------


def test_a_new_token_is_one_wherever_its_text_stands():
    """Though a normalizer puts a mark before every text, as those of Llama 2 do."""
    words = {"▁": 0, "a": 1, "<": 2, "b": 3, ">": 4, "▁a": 5}
    tokenizer = Tokenizer(models.BPE(words, [("▁", "a")], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )

    found = new_tokens.add(tokenizer, ["<b>", "a", "▁a"])

    assert found.pieces == {6: (0, 2, 3, 4)}
    assert found.known == ("a", "▁a")
    assert [tokenizer.encode(text).ids.count(6) for text in ("a<b>a", "<b>", "a <b> a")] == [1] * 3
    (told,) = found.warnings()
    assert "`a`, `▁a`" in told
    assert "neither added nor trained" in told


def test_what_a_tokenizer_reads_as_nothing_is_refused():
    """There is nothing that it could begin as."""
    tokenizer = Tokenizer(models.BPE({"a": 0}, []))

    with pytest.raises(UserError, match="reads as nothing"):
        new_tokens.add(tokenizer, ["<z>"])


@pytest.mark.parametrize(
    ("tokens", "what"),
    [('[""]', "1 to 100 characters"), ('[" a"]', "white space"), ('["a", "a"]', "'a' twice")],
)
def test_texts_that_can_be_no_tokens_are_refused(tmp_path, capsys, tokens, what):
    """By the check of a recipe, at their key."""
    file = tmp_path / "r.toml"
    file.write_text(recipe_text().replace("[data]", f"new_tokens = {tokens}\n[data]"))

    assert advisor_here(["recipe", "check", str(file)]) == 78
    told = " ".join(capsys.readouterr().err.split())
    assert "model.new_tokens" in told
    assert what in told


def test_checks_and_previews_read_them_as_tokens(bases, rows, capsys):
    """As training will; what is a token already is told."""
    base = from_folder(bases[True])
    tokenizer, _ = added(bases[True])
    encoder = chat_templates.encoder(base, "plain", tokens=TOKENS)

    text = "count<lamp> 3<to>"
    assert encoder.tokenizer.encode(text).ids == tokenizer.encode(text)
    plain = chat_templates.encoder(base, "plain").tokenizer.encode(text)
    assert len(encoder.tokenizer.encode(text)) < len(plain)
    options = ["--model", str(bases[True]), "--new-token", "<lamp>", "--new-token", "</s>"]
    assert advisor_here(["data", "show", str(rows), *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert advisor_here(["data", "show", str(rows), *options[:2]]) == 0
    without = " ".join(capsys.readouterr().out.split())
    assert "`</s>`, a token of this tokenizer already" in shown
    assert int(shown.split(" tokens,")[0].split()[-1]) < int(
        without.split(" tokens,")[0].split()[-1]
    )
    assert advisor_here(["data", "check", str(rows), *options]) == 0
    assert "`</s>`, a token of" in " ".join(capsys.readouterr().out.split())


def test_tokens_of_no_model_are_refused(rows, tmp_path, capsys):
    """By both commands; and where the model has no tokenizer."""
    for command in ("show", "check"):
        assert advisor_here(["data", command, str(rows), "--new-token", "<a>"]) == 2
        assert "--model" in capsys.readouterr().err
    small_model(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer to add tokens to"):
        chat_templates.encoder(from_folder(tmp_path / "m"), tokens=("<a>",))


# --- The rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_row_begins_as_the_mean_of_its_pieces(bases, tied):
    """In the embedding and in a head of its own; all others stay, and free rows are taken first."""
    model = AutoModelForCausalLM.from_pretrained(bases[tied])
    before, size = rows_of(model), model.config.vocab_size

    make_rows(model, {size - 1: (3, 4), size: (5,), size + 1: (6, 7, 8)})

    after = rows_of(model)
    assert model.config.vocab_size == size + 2
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    for name, table in after.items():
        assert torch.equal(table[: size - 1], before[name][:-1])
        wanted = torch.stack([before[name][list(of)].mean(0) for of in ((3, 4), (5,), (6, 7, 8))])
        assert torch.allclose(table[size - 1 :], wanted, atol=1e-7)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_library_is_handed_the_rows_of_the_new_tokens(bases, tied):
    """And of the head, where it is another table; as many weights train as are counted."""
    model, plan = prepared(bases[tied], Case("lora", "rank = 4"))
    ids = list(added(bases[tied])[1].pieces)

    wanted = {"model.embed_tokens": ids} | ({} if tied else {"lm_head": ids})
    assert model.peft_config["default"].trainable_token_indices == wanted
    larger = vocabulary.enlarged(from_folder(bases[tied]), added(bases[tied])[1])
    assert larger.vocab_size == model.config.vocab_size == max(ids) + 1
    assert larger.num_params == sum(p.numel() for p in model.get_base_model().parameters()) - sum(
        p.numel() for n, p in model.named_parameters() if "lora" in n or "delta" in n
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == weights.trained_params(larger, plan)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_head_in_tiles_has_the_gradients_of_whole_logits(bases, tied):
    """TRL's asks a head for the bias that PEFT's wrapper has not."""
    model, _ = prepared(bases[tied], Case("lora", "rank = 4"))
    ids = torch.tensor([[*list(added(bases[tied])[1].pieces) * 3, 7, 8, 9]])
    whole = model(input_ids=ids, labels=ids).loss
    whole.backward()
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    add_fused_lm_head(model.get_base_model())
    tiles = model(input_ids=ids, labels=ids, fused_lm_head=True).loss
    tiles.backward()

    assert float(tiles) == pytest.approx(float(whole), abs=1e-5)
    assert sum("trainable_tokens" in name for name in wanted) == (1 if tied else 2)
    for name, parameter in model.named_parameters():
        if name in wanted:
            assert torch.allclose(parameter.grad, wanted[name], atol=1e-6)
    with torch.no_grad(), model.disable_adapter():  # what a task compares with
        both = [
            float(model(input_ids=ids, labels=ids, **kw).loss)
            for kw in ({}, {"fused_lm_head": True})
        ]
    assert both[0] == pytest.approx(both[1], abs=1e-5)


def test_they_train_in_fp32_beside_adapters_of_16_bits(bases):
    """As a new head does: steps of a small learning rate are lost in 16 bits."""
    model, _ = prepared(bases[True], Case("qlora", "rank = 4"), precision="bf16")

    kinds = {n: p.dtype for n, p in model.named_parameters() if p.requires_grad}
    rows = [kind for name, kind in kinds.items() if "trainable_tokens" in name]
    assert rows == [torch.float32]
    assert {kind for name, kind in kinds.items() if "lora_" in name} == {torch.bfloat16}


# --- Runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(bases, rows, tmp_path_factory):
    """A run of LoRA, and what its model predicted as it was published."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_HOME", str(tmp_path_factory.mktemp("home")))
        run = new_run(bases[False], rows)
        return run, attempt(patch, run)


class KilledError(BaseException):
    """As abrupt as a signal."""


def new_run(model, rows, method="lora"):
    """Of six steps, saved after the third."""
    run = real_runs.new_run(model, rows, method=method, steps=6, accumulation=1, save_every=3)
    text = run.recipe.read_text()
    run.recipe.write_text(text.replace("[data]", f"new_tokens = {json.dumps(TOKENS)}\n[data]"))
    return run


def attempt(patch, run, dies_at=None):
    """Train; the logits of what is published."""
    step, save, found = RunSft.training_step, RunSft.save_model, []

    def stepping(trainer, *args, **kw):
        if trainer.state.global_step == dies_at:
            raise KilledError
        return step(trainer, *args, **kw)

    def saving(trainer, folder=None, _internal_call=False):
        if not _internal_call:
            ids = torch.tensor([trainer.processing_class.encode(TEXT)])
            with torch.no_grad():
                found.append(trainer.model.eval()(input_ids=ids).logits.clone())
        save(trainer, folder, _internal_call)

    with patch.context() as inner:
        inner.setattr(RunSft, "training_step", stepping)
        inner.setattr(RunSft, "save_model", saving)
        real_runs.attempt(run)
    return found[0]


@pytest.mark.slow
def test_their_rows_alone_are_learnt_and_published(trained, bases):
    """Plain PEFT puts them beside the base: no other row is another one than the base's."""
    run, logits = trained
    (prepared_,) = real_runs.events(run, "prepared")
    model = AutoPeftModelForCausalLM.from_pretrained(run.model)
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    ids = tokenizer.encode(TEXT)

    assert len(ids) < len(AutoTokenizer.from_pretrained(bases[False]).encode(TEXT))
    with torch.no_grad():
        found = model.eval()(input_ids=torch.tensor([ids])).logits
    assert torch.allclose(found, logits, atol=1e-5)
    assert prepared_["num_trainable"] == sum(t.numel() for t in real_runs.weights(run).values())
    before = rows_of(AutoModelForCausalLM.from_pretrained(bases[False]))
    after, pieces = rows_of(model.merge_and_unload()), added(bases[False])[1].pieces
    for name, table in before.items():
        assert torch.equal(after[name][: len(table)], table)
        for token, read_as in pieces.items():
            begun = table[list(read_as)].mean(0)
            assert (after[name][token] - begun).abs().max() > 1e-3


@pytest.mark.long
@pytest.mark.slow
def test_killed_and_gone_on_with_they_are_the_same_bit_for_bit(trained, bases, rows, monkeypatch):
    """Weights and losses; a checkpoint has no table of all rows."""
    whole, resumed = trained[0], new_run(bases[False], rows)
    with pytest.raises(KilledError):
        attempt(monkeypatch, resumed, dies_at=4)
    real_runs.next_attempt(resumed)
    wanted, found = real_runs.weights(whole), real_runs.weights(resumed)

    assert [e["from_step"] for e in real_runs.events(resumed, "resumed")] == [3]
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert real_runs.losses(resumed) == real_runs.losses(whole)
    saved = load_file(checkpoints.committed(whole)[0].path / "adapter_model.safetensors")
    assert saved.keys() == wanted.keys()


@pytest.mark.long
@pytest.mark.slow
def test_a_whole_model_is_published_with_its_larger_table(bases, rows):
    """It loads by itself, and its tokenizer knows the tokens."""
    run = new_run(bases[True], rows, method="full")
    with pytest.MonkeyPatch.context() as patch:
        logits = attempt(patch, run)

    tokenizer = AutoTokenizer.from_pretrained(run.model)
    model = AutoModelForCausalLM.from_pretrained(run.model).eval()
    with torch.no_grad():
        found = model(input_ids=torch.tensor([tokenizer.encode(TEXT)])).logits
    assert model.config.vocab_size == max(added(bases[True])[1].pieces) + 1
    assert torch.allclose(found, logits, atol=1e-5)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_another_process_loads_them_with_peft_alone(bases, rows, tmp_path, method):
    """The adapter's folder has all that is not in the base."""
    run = new_run(bases[True], rows, method)
    if method == "adalora":
        text = run.recipe.read_text().replace(real_runs.ADAPTER, "").replace("= 6", "= 12")
        run.recipe.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        logits = attempt(patch, run)

    answer = tmp_path / "logits.pt"
    subprocess.run([sys.executable, "-I", RELOAD, run.model, TEXT, answer], check=True, timeout=300)

    assert (torch.load(answer) - logits).abs().max() < 1e-4


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (["method.name=ia3"], "trains no row of the embedding"),
        (["method.name=freeze"], "trains no row of the embedding"),
        (["hardware.strategy=fsdp", "hardware.gpus=2"], "divides the embedding"),
    ],
)
def test_what_would_leave_them_as_they_begin_is_refused(tmp_path, capsys, changes, what):
    """With what goes instead."""
    file = tmp_path / "r.toml"
    file.write_text(recipe_text().replace("[data]", 'new_tokens = ["<a>"]\n[data]'))
    options = [part for change in changes for part in ("--set", change)]

    assert advisor_here(["recipe", "check", str(file), *options]) == 78
    assert what in " ".join(capsys.readouterr().err.split())
    more = ["--set", "method.name=full"]
    assert advisor_here(["recipe", "check", str(file), *options, *more]) == 0


def test_a_head_with_a_bias_is_refused(tmp_path, capsys):
    """PEFT would leave it out, in silence."""
    phi = CONFIG | {"model_type": "phi", "architectures": ["PhiForCausalLM"]}
    small_model(tmp_path / "model", config=phi)
    file = tmp_path / "r.toml"
    file.write_text(recipe_text().replace("[data]", 'new_tokens = ["<a>"]\n[data]'))

    assert advisor_here(["recipe", "check", str(file)]) == 78
    assert "its head has a bias" in " ".join(capsys.readouterr().err.split())
    assert advisor_here(["recipe", "check", str(file), "--set", "method.name=full"]) == 0


def test_what_is_a_token_already_is_told_before_the_start(bases, rows, tmp_path, capsys):
    """By the recipe's check and by the run's, which counts rows as they will be trained on."""
    file = tmp_path / "r.toml"
    text = recipe_text(model=str(bases[True]), train=str(rows))
    tokens = json.dumps([*TOKENS, "</s>"])
    file.write_text(text.replace("[data]", f"new_tokens = {tokens}\n[data]\nmax_length = 64\n"))

    assert advisor_here(["recipe", "check", str(file)]) == 0
    assert "`</s>`, a token of this tokenizer already" in " ".join(capsys.readouterr().err.split())
    recipe = recipes.parse(file.read_text(), where="r")
    ready = preflight.check(recipe, tmp_path)
    assert any("`</s>`" in warning for warning in ready.warnings)
    assert ready.model.vocab_size == from_folder(bases[True]).vocab_size + len(TOKENS)
    few = recipes.with_changes(file.read_text(), {"model.new_tokens": "[]"}, where="r")
    plain = preflight.check(few, tmp_path)
    assert ready.dataset.tokens.total < plain.dataset.tokens.total
