"""Encoders (BERT and its kin): their weights and memory are known, and they learn to classify."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys

import pytest
import real_runs

torch = pytest.importorskip("torch")

from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from tokenizers.processors import TemplateProcessing  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoTokenizer  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.choice.recommend import recommend  # noqa: E402
from advisor.cost import memory  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from profiles.data.encoding import Encoder  # noqa: E402
from profiles.data.formats.spec import Example  # noqa: E402
from profiles.data.rendering import Renderer  # noqa: E402
from profiles.errors import UserError  # noqa: E402
from profiles.machines import planned  # noqa: E402
from profiles.models.dimensions import from_config  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner.checks import pairing  # noqa: E402
from runner.rehearsal_main import settings_of  # noqa: E402
from runner.rehearse import rehearse  # noqa: E402
from runner.tasks import classify  # noqa: E402
from tui.commands.request import Asked  # noqa: E402

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 512,
    "max_position_embeddings": 130,
    "pad_token_id": 1,
}
FAMILIES = ["bert", "roberta", "distilbert", "deberta-v2"]
MODELLED = FAMILIES[:3]


def config_of(family, **changes):
    """A small one, by the names that the family has."""
    sizes = SIZES | changes
    if family == "distilbert":
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers"}
        names |= {"num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}
        sizes = {names.get(name, name): value for name, value in sizes.items()}
    return {"model_type": family, **sizes}


@pytest.fixture
def folder(tmp_path, tiny_model):
    """Make a random encoder with a tokenizer of other padding, in a folder."""

    def make(family):
        torch.manual_seed(0)
        config = AutoConfig.for_model(**config_of(family))
        assert config.pad_token_id != AutoTokenizer.from_pretrained(tiny_model).pad_token_id
        AutoModel.from_config(config).save_pretrained(tmp_path / family)
        for file in tiny_model.glob("*token*"):
            shutil.copy(file, tmp_path / family)
        return tmp_path / family

    return make


@pytest.mark.parametrize("family", MODELLED)
def test_all_weights_are_counted(family):
    """But for those of the head."""
    config = config_of(family)
    real = AutoModel.from_config(AutoConfig.for_model(**config))
    if family == "roberta":
        real.pooler = None  # a classifier is built without it

    found = from_config(config, name=family, where="test")

    assert found.num_params == sum(p.numel() for p in real.parameters())
    assert found.is_encoder
    assert found.max_positions == (128 if family == "roberta" else 130)


@pytest.mark.parametrize("family", MODELLED)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_memory_is_that_of_the_libraries_code(family, method):
    """Within 1.5 %: what the embedding keeps is left out, a twelfth of a layer's share."""
    config = config_of(family, hidden_size=256, intermediate_size=1024, num_hidden_layers=12)
    config |= {"max_position_embeddings": 514, "vocab_size": 4000}
    plan = Plan.of(method, task="classify", seq_len=512, micro_batch=4)
    told = rehearse(config, settings_of(plan), seq_len=512, micro_batch=4)

    found = memory.estimate(from_config(config, name=family, where="test"), plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.015), told.winner


KINDS = ("lamps", "chairs", "tables")


def labelled(path, num_rows=40):
    """Which of three things a text names again and again."""
    kinds = [KINDS[n % 3] for n in range(num_rows)]
    rows = [{"text": f"{n} " + f"{kind} " * 4, "label": kind} for n, kind in enumerate(kinds)]
    path.write_text(json.dumps(rows))
    return path


LOADED = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification
found = []
for folder, base, method in json.load(sys.stdin):
    config = AutoConfig.from_pretrained(folder)
    assert sorted(config.label2id) == ["chairs", "lamps", "tables"], config.label2id
    if method == "full":
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        found.append(model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.tolist()[0])
print(json.dumps(found))
"""


def classified(base, path, method, monkeypatch):
    """A run that learns to classify, and what its model says at the end."""
    seen, save = [], classify.TRAINER.save_model
    settings = {"adapter": "rank = 8\nalpha = 16", "steps": 30, "micro_batch": 8}
    run = real_runs.new_run(base, labelled(path), method=method, split="8:2:0", **settings)
    text = 'task = "classify"\n' + run.recipe.read_text()
    rate = 2e-2 if method == "lora" else 2e-3
    run.recipe.write_text(text.replace("learning_rate = 5e-3", f"learning_rate = {rate}"))

    def watched(self, *args, **kw):
        with torch.no_grad():
            seen.append(self.model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.tolist())
        save(self, *args, **kw)

    with monkeypatch.context() as patch:
        patch.setattr(classify.TRAINER, "save_model", watched)
        real_runs.attempt(run)
    return run, seen[-1][0]


@pytest.mark.slow
def test_encoders_learn_to_classify_and_come_back(folder, tmp_path, monkeypatch):
    """Better than the commonest class, and loaded by the libraries alone what it was in training.

    The base has no head, and some families draw more than the head at random.
    """
    asked, wanted = [], []
    for family, method in [*((name, "lora") for name in FAMILIES), ("bert", "full")]:
        base = folder(family)
        run, said = classified(base, tmp_path / "rows.json", method, monkeypatch)
        (last,) = real_runs.events(run, "evaluated")[-1:]
        assert last["scores"][0]["gain"][0] > 0, (family, method, last)
        asked.append([str(run.model), str(base), method])
        wanted.append(pytest.approx(said, abs=1e-5))

    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == wanted


def test_an_encoder_learns_no_text(folder):
    """It predicts no next token: said before the start, and by a recommendation."""
    base = from_folder(folder("bert"))
    text = real_runs.RECIPE.format(
        model="m", data="d", packing="false", split="1:0:0", method="lora", adapter="",
        micro_batch=1, accumulation=1, precision="fp32",
    )  # fmt: skip
    made = recipes.parse(text, where="r")
    with pytest.raises(UserError, match="cannot learn sft") as caught:
        pairing.check_model(made, base)
    assert "reward, classify" in caught.value.why
    pairing.check_model(recipes.parse('task = "classify"\n' + text, where="r"), base)

    box = planned.plan_machine("RTX 4090")
    with pytest.raises(UserError, match="cannot learn sft"):
        recommend(base, box, None, Asked().answers())
    assert (
        recommend(base, box, None, Asked(task="classify").answers()).fit.plan.task.head == "score"
    )


def test_a_tokenizer_that_closes_texts_itself_gets_no_second_end(folder):
    """RoBERTa's writes one at the end of every text."""
    tokenizer = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    closed = copy.deepcopy(tokenizer)
    closed.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )

    def ids(one):
        one.add_special_tokens(["<s>", "</s>"])
        return (
            Encoder.of(one, Renderer(lambda _: None, eos="</s>")).encode_one(Example(text="a")).ids
        )

    assert ids(closed) == [0, 2, 1]
    assert ids(tokenizer) == [2, 1]
