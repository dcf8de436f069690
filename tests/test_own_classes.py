"""A model that brings code of its own: where transformers has its class, that is what is trained.

The code never runs, not even in a whole run of training, and what is published does not name it.
"""

from __future__ import annotations

import json
import shutil

import pytest
from small_model import CONFIG, small_model

from advisor.choice.words import IGNORED_CODE
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin
from profiles.models import families, model

NAMES = {
    "AutoConfig": "configuration_x.X",
    "AutoModel": "modeling_x.X",
    "AutoModelForCausalLM": "modeling_x.X",
    "AutoTokenizer": "tokenization_x.X",
}


def with_code(folder, canary, names):
    """Put modules that leave a mark beside the weights, and name them."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    for name in ("configuration_x", "modeling_x", "tokenization_x", "__init__"):
        text = f"open({str(canary)!r}, 'w').close()\nclass X: pass\n"
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.mark.parametrize("where", ["", "stranger/code--"])
def test_the_block_is_ignored_where_transformers_has_a_class(tmp_path, where):
    """In the code's own folder, and where it names another repository, as copies of models do."""
    names = {key: where + value for key, value in NAMES.items()}
    plain = model.from_folder(small_model(tmp_path / "plain"))
    found = model.from_folder(small_model(tmp_path / "m", config=CONFIG | {"auto_map": names}))

    assert found.ignores_code
    assert not plain.ignores_code
    assert found.num_params == plain.num_params


def test_types_with_a_class_are_those_that_transformers_loads():
    """Neither more, for their code would have to run, nor fewer."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    known = {*families.FAMILIES, *families.WRAPPERS}
    encoders = {name for name, family in families.FAMILIES.items() if family.is_encoder}
    there = {*CONFIG_MAPPING_NAMES} & {
        *(encoders & {*MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES}),
        *({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES} - encoders),
    }

    assert {one for one in known if families.has_class(one)} == known & there
    assert {one for one in known if families.untrainable(one)} == (
        known - there
    ) | families.OTHER_OUTPUTS
    assert known - {*CONFIG_MAPPING_NAMES} == families.ELSEWHERE


def test_an_empty_type_inside_is_no_threat(tmp_path):
    """So MPT's configuration is written."""
    config = {
        "model_type": "mpt",
        "d_model": 64,
        "n_heads": 4,
        "n_layers": 2,
        "vocab_size": 500,
        "max_seq_len": 64,
        "attn_config": {"model_type": "", "alibi": True},
    }

    assert model.from_folder(small_model(tmp_path / "m", config=config)).model_type == "mpt"


def test_an_empty_type_of_the_model_is_still_refused(tmp_path):
    """Nothing could be looked up by it."""
    with pytest.raises(UserError) as caught:
        model.from_folder(small_model(tmp_path / "m", config=CONFIG | {"model_type": ""}))

    assert caught.value.code is ExitCode.REFUSED


def test_the_start_is_told_of_it_and_nothing_runs(tmp_path, tiny_model, orders, advisor):
    """In the check before the start, and in a recommendation."""
    canary = tmp_path / "ran"
    folder = with_code(shutil.copytree(tiny_model, tmp_path / "m"), canary, NAMES)
    (tmp_path / "r.toml").write_text(
        f'schema = 1\nname = "r"\n[model]\nid = "{folder}"\n[data]\ntrain = "{orders}"\n'
        '[method]\nname = "lora"\n'
    )

    dry = advisor("run", "r.toml", "--dry-run", COLUMNS="200")
    shown = advisor("model", "show", folder, COLUMNS="200")

    assert dry.returncode == shown.returncode == 0
    assert IGNORED_CODE in dry.stderr
    assert IGNORED_CODE in shown.stdout
    assert not canary.exists()


@pytest.mark.slow
def test_a_run_never_runs_the_code_and_its_result_does_not_name_it(tmp_path, tiny_model, orders):
    """All of the model trained: base, trainer, artefact."""
    torch = pytest.importorskip("torch")
    import real_runs

    canary = tmp_path / "ran"
    folder = with_code(shutil.copytree(tiny_model, tmp_path / "m"), canary, NAMES)
    run = real_runs.new_run(folder, orders, method="full", steps=1)

    assert real_runs.attempt(run) == 0
    assert not canary.exists()
    assert "auto_map" not in json.loads((run.model / "config.json").read_text())
    assert all(torch.isfinite(weight).all() for weight in real_runs.weights(run).values())
    assert model.from_folder(run.model).params_origin is Origin.MEASURED


def test_a_class_that_is_not_transformers_own_is_not_trained(tiny_model, monkeypatch):
    """Should a library ever be led to one."""
    pytest.importorskip("torch")
    from transformers import LlamaForCausalLM

    from runner.methods import base

    class Foreign(LlamaForCausalLM):
        pass

    monkeypatch.setattr(base, "AutoModelForCausalLM", Foreign)

    with pytest.raises(RuntimeError, match="Foreign is not transformers' own class"):
        base.load_base(tiny_model)
