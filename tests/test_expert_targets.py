"""Adapters in a mixture of experts go to the same places in every family, and load with PEFT."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

import tiny_families  # noqa: E402
from peft import PeftModel  # noqa: E402

from advisor import recipe as recipes  # noqa: E402
from advisor.cost import memory, weights  # noqa: E402
from advisor.plan import Plan  # noqa: E402
from profiles.errors import ExitCode, UserError  # noqa: E402
from profiles.models.dimensions import from_config  # noqa: E402
from profiles.models.model import from_folder  # noqa: E402
from runner.checks import pairing  # noqa: E402
from runner.methods import low_rank  # noqa: E402
from runner.rehearsal_main import settings_of  # noqa: E402
from runner.rehearse import rehearse  # noqa: E402

QUICK = ("mixtral", "qwen2_moe", "deepseek_v3", "gpt_oss")
"""Experts alone; with a shared one that is weighed; with dense layers; turned round."""
OTHERS = (
    *("qwen3_moe", "olmoe", "granitemoe", "deepseek_v2", "phimoe", "ernie4_5_moe"),
    *("minimax_m2", "glm4_moe", "llama4_text"),
)
EVERY = [*QUICK, *(pytest.param(family, marks=pytest.mark.long) for family in OTHERS)]
IDS = torch.arange(3, 25)[None]
ADAPTER = re.compile(r"base_model\.model\.(.*?)\.(?:base_layer\.)*lora_[AB]\.default\.weight")
MIXTURE = re.compile(r"\.(mlp|block_sparse_moe|feed_forward)\.")


def adapted(family, **settings):
    """A tiny model with its adapters, all of them other than zero."""
    plan = Plan.of("lora", rank=4, seq_len=32, precision="fp32", **settings)
    torch.manual_seed(1)
    model = low_rank.adapt(tiny_families.make(family), plan)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    return model.eval(), plan


def trained(model):
    """Names of the modules that have an adapter or train."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {(ADAPTER.fullmatch(name) or [None, name])[1] for name in names}


def linears(model, family):
    """Names of all linears of the layers but those that weigh experts, and of the experts."""
    weighing = re.compile(r"\.(gate|router|shared_expert_gate)$")
    base = tiny_families.make(family)
    named = [n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)]
    experts = {n.rpartition(".")[0] for n, p in base.named_parameters() if ".experts." in n}
    return experts | {n for n in named if n != "lm_head" and not weighing.search(n)}


@pytest.mark.parametrize("family", EVERY)
def test_all_means_every_linear_and_the_experts_and_no_router(family, tmp_path):
    """As many weights as the estimate counts, in both forms of the router; PEFT loads them."""
    folder = tiny_families.save(family, tmp_path / "base")
    known = from_folder(folder)
    for settings in ({}, {"router": "adapted", "rslora": True}, {"router": "trained"}):
        model, plan = adapted(family, **settings)
        names = trained(model)
        routers = {name for name in names if re.search(r"\.(gate|router)(\.|$)", name)}
        num_layers = known.experts.num_layers

        assert names - routers == linears(model, family)
        assert len({name.split(".modules_to_save")[0] for name in routers}) == (
            num_layers if settings else 0
        )
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert count == weights.trained_params(known, plan)
        model.save_pretrained(tmp_path / "adapter")
        fresh = tiny_families.make(family).eval()
        with torch.no_grad():
            base = fresh(input_ids=IDS).logits
            again = PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
            found, wanted = again(input_ids=IDS).logits, model(input_ids=IDS).logits
        assert (found - wanted).abs().max() < 1e-6
        assert (base - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("rslora", [False, True])
def test_joined_gate_and_up_have_twice_the_rank_and_count_as_much(rslora):
    """As an adapter on each would, of the rank and scaling of all others."""
    model, plan = adapted("mixtral", rslora=rslora)
    modules = {m.parameter_name: m for m in model.modules() if hasattr(m, "parameter_name")}
    usual = model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"]

    assert {name: m.r["default"] for name, m in modules.items()} == {
        "gate_up_proj": 2 * plan.settings.rank,
        "down_proj": plan.settings.rank,
    }
    assert [m.scaling["default"] for m in modules.values()] == pytest.approx([usual] * 2)


def test_names_mean_linears_and_experts_alone_have_a_name_of_their_own():
    """With the three names of an MLP go all that do its work."""
    alone, _ = adapted("qwen2_moe", targets=("experts",))
    with_mlp, _ = adapted("qwen2_moe", targets=("gate_proj", "up_proj", "down_proj"))
    beside, _ = adapted("qwen2_moe", targets="attention")

    assert {name.rpartition(".")[2] for name in trained(alone)} == {"experts"}
    assert len(trained(with_mlp)) == 2 * (1 + 3)
    assert not any(MIXTURE.search(name) for name in trained(beside))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mixtral", {"router": "adapted"}),
        pytest.param("mixtral", {"targets": ("experts",)}, marks=pytest.mark.long),
        pytest.param("qwen2_moe", {"router": "trained"}, marks=pytest.mark.long),
        pytest.param("deepseek_v3", {}, marks=pytest.mark.long),
        pytest.param("qwen3_moe", {"precision": "bf16_pure"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_the_estimate_is_the_rehearsal_s(family, settings, checkpointing):
    """Of the worker's own code: what is added to the experts' weights is a tensor as large."""
    config = {
        **tiny_families.FAMILIES[family],
        "model_type": family,
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "vocab_size": 4000,
        "num_attention_heads": 8,
        "intermediate_size": 704,
        "moe_intermediate_size": 192,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
    }
    config |= {"num_key_value_heads": 8} if "kv_lora_rank" in config else {}
    plan = Plan.of("lora", rank=8, seq_len=512, checkpointing=checkpointing, **settings)

    told = rehearse(config, settings_of(plan), seq_len=512, micro_batch=1)
    found = memory.estimate(from_config(config, name="tiny", where="test"), plan)

    assert found.allocated_bytes == pytest.approx(told.peak_bytes, rel=0.01), (
        f"{told.winner}, against {found.winner} at {found.peak.place}"
    )


RECIPE = """\
schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
[method]
name = "lora"
"""


def refused(folder, settings):
    """What a recipe with these lines of [method] is told of the model; None if it may start."""
    try:
        pairing.check_model(recipes.parse(RECIPE + settings, where="r"), from_folder(folder))
    except UserError as error:
        return error
    return None


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Family -> folder of a tiny model."""
    folder = tmp_path_factory.mktemp("families")
    return {name: tiny_families.save(name, folder / name) for name in ("llama", *ASKED)}


ASKED = ("mixtral", "granitemoe", "jetmoe", "phimoe")
ROUTED = 'router = "adapted"\ntargets = "attention"'


@pytest.mark.parametrize(
    ("family", "settings", "key", "word"),
    [
        ("mixtral", 'targets = ["q_proj", "up_proj"]', "targets", "all linears of its MLPs"),
        ("mixtral", 'targets = ["gate"]', "targets", 'method.router = "adapted"'),
        ("mixtral", 'targets = ["w1"]', "targets", "no linear"),
        ("granitemoe", 'targets = ["layer"]', "targets", "no linear"),
        ("llama", 'targets = ["experts"]', "targets", "no linear"),
        ("llama", 'router = "trained"', "router", "no mixture"),
        ("jetmoe", 'targets = "attention"\nrouter = "adapted"', "router", "their own kind"),
        ("jetmoe", "", "targets", "their own kind"),
        ("mixtral", f"dropout = 0.1\n{ROUTED}", "dropout", "adds to the weights"),
        ("mixtral", f"dora = true\n{ROUTED}", "dora", "adds to the weights"),
        ("mixtral", f'layers = "last 1"\n{ROUTED}', "layers", "adds to the weights"),
        ("mixtral", 'layers = [0]\nrouter = "trained"\ntargets = "attention"', "layers", "routers"),
    ],
)
def test_what_has_no_such_place_is_refused_with_a_change_that_may_start(
    folders, family, settings, key, word
):
    """PEFT would pass over it, or fail after loading."""
    found = refused(folders[family], settings)

    assert (found.code, found.where) == (ExitCode.BAD_RECIPE, f"method.{key}")
    assert word in found.why
    if "--set" not in found.do:
        return
    for way in found.do.split(", or "):
        lines = settings.splitlines()
        for name, value in re.findall(r"--set '?method\.(\w+)=(\[[^']+|[^ ']+)", way):
            lines = [line for line in lines if not line.startswith(name)]
            plain = value.startswith("[") or value in {"0", "false"}
            lines.append(f"{name} = {value}" if plain else f'{name} = "{value}"')
        assert refused(folders[family], "\n".join(lines)) is None


@pytest.mark.parametrize(("family", "is_weighed"), [("mixtral", True), ("llama", False)])
def test_the_loss_of_a_router_is_weighed_where_there_is_one(folders, family, is_weighed):
    """Elsewhere TRL would ask the model for it, and fail."""
    found = refused(folders[family], "[train]\nrouter_aux_loss_coef = 0.05")

    assert (found is None) == is_weighed
    if found:
        assert found.where == "train.router_aux_loss_coef"


def test_what_every_family_takes_may_start(folders):
    """A router that is a linear by its class is no target of "all"."""
    for family in ("mixtral", "granitemoe", "phimoe"):
        for settings in ("", 'router = "trained"', 'targets = ["experts"]\nrouter = "adapted"'):
            assert refused(folders[family], settings) is None
