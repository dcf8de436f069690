"""Whether a recipe's settings go with its model and its machine, where libraries would say it late.

Pure checks over facts; each raises a UserError (exit code 78) with a change that works.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.recipe import Recipe
from advisor.registry.lookup import ENGINES, TASKS, unfit
from advisor.registry.low_rank import INITS, OWN_EXPERTS, ROUTERS, LowRank
from advisor.registry.prompts import Words
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model
from runner.checks import positions, targets

_SHIFTABLE = frozenset({"llama", "mistral", "qwen2", "qwen3", "granite", "olmo2"})
"""Families whose attention is softmax of scaled scores over all tokens before."""
_MASKED_BALANCE = frozenset(
    (
        *("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "granitemoe", "gpt_oss", "phimoe"),
        *("ernie4_5_moe", "minimax_m2"),
    )
)
"""Families in which transformers takes the balance of experts over the tokens that a mask names."""
_BALANCED = _MASKED_BALANCE | {"jetmoe", "qwen3_next", "qwen3_5_moe_text"}
"""Those whose models give a loss that keeps experts in balance."""


def check_model(recipe: Recipe, model: Model) -> None:
    """UserError for a model that the recipe's training would fail on after it has loaded."""
    if model.untrainable:
        raise UserError(
            f"{recipe.model.id} can be planned with, but not trained",
            why=model.untrainable,
            do="choose a model of text alone; `advisor model show` takes every name of the catalog",
            where="model.id",
            code=ExitCode.BAD_RECIPE,
        )
    if reason := unfit(TASKS[recipe.task], model):
        raise UserError(
            f"{recipe.model.id} cannot learn {recipe.task}",
            why=reason,
            do="choose a language model, or a task that this one can learn, with rows for it",
            where="task",
            code=ExitCode.BAD_RECIPE,
        )
    _check_method(recipe, model)
    targets.check(recipe, model)
    _check_tokens(recipe, model)
    positions.check(recipe, model)
    _check_shifted(recipe, model)
    _check_words(recipe)
    check_length(recipe, model)
    check_experts(recipe, model)
    _check_router(recipe, model)
    _check_balance(recipe, model)


def _check_method(recipe: Recipe, model: Model) -> None:
    """A method that finds nothing to train in this model fails once that has loaded."""
    spec = recipe.method.spec
    if why := spec.unsupported(model, recipe.method.settings):
        mend = "add --set method.name=lora"
        if not spec.unsupported(model, spec.settings()):
            mend = f"leave its keys out of [method]: as they are by default it can; or {mend}"
        raise UserError(
            f"{recipe.model.id} cannot be trained with method.name = {recipe.method.name!r}",
            why=why,
            do=mend,
            where="method.name",
            code=ExitCode.BAD_RECIPE,
        )


def _check_tokens(recipe: Recipe, model: Model) -> None:
    """Around a head of which single rows train PEFT leaves its bias out."""
    learns_rows = bool(recipe.model.new_tokens) and not recipe.method.spec.trains_embedding
    if learns_rows and model.head_bias and TASKS[recipe.task].head == "lm":
        raise UserError(
            f"{recipe.model.id} cannot learn new tokens with {recipe.method.spec.title}",
            why="its head has a bias, which PEFT leaves out where single rows of a head train",
            do="add --set method.name=full, or --set 'model.new_tokens=[]'",
            where="model.new_tokens",
            code=ExitCode.BAD_RECIPE,
        )


def _check_shifted(recipe: Recipe, model: Model) -> None:
    """Windows, sinks and caps of scores are no business of groups of a row."""
    why = ""
    if model.model_type not in _SHIFTABLE:
        why = f"known for {', '.join(sorted(_SHIFTABLE))}, and not for {model.model_type}"
    elif model.num_sliding_layers:
        why = f"{model.num_sliding_layers} of its layers attend to windows of their own"
    if recipe.train.shifted_attention and why:
        raise UserError(
            f"{recipe.model.id} cannot train with shifted sparse attention",
            why=why,
            do="add --set train.shifted_attention=false",
            where="train.shifted_attention",
            code=ExitCode.BAD_RECIPE,
        )


def _check_words(recipe: Recipe) -> None:
    """A prompt that is to start as words needs some."""
    settings = recipe.method.settings
    if isinstance(settings, Words) and settings.init_text.isspace():
        raise UserError(
            "method.init_text has no words",
            why="the prompt starts as the tokens of this text, which is blank",
            do="write some, or leave it out: the prompt is then drawn at random",
            where="method.init_text",
            code=ExitCode.BAD_RECIPE,
        )


def _check_router(recipe: Recipe, model: Model) -> None:
    """What a recipe says of a router is for a mixture, and for those whose router PEFT finds."""
    settings = recipe.method.settings
    if not isinstance(settings, LowRank) or settings.router == ROUTERS[0]:
        return
    why = ""
    if model.experts is None:
        why = f"{recipe.model.id} is no mixture of experts, and has no router"
    elif model.model_type in OWN_EXPERTS:
        why = f"the routers of {model.model_type} are modules of their own kind"
    if why:
        raise UserError(
            f"method.router = {settings.router!r} does not fit the model",
            why=why,
            do=f"add --set method.router={ROUTERS[0]}",
            where="method.router",
            code=ExitCode.BAD_RECIPE,
        )


def _check_balance(recipe: Recipe, model: Model) -> None:
    """The mask that PEFT makes has the prefix before a row, which no router sees.

    Of a model that gives no loss for its router none can be weighed.
    """
    if recipe.train.router_aux_loss_coef is not None and (
        model.experts is None or model.model_type not in _BALANCED
    ):
        kind = "no mixture of experts" if model.experts is None else f"a {model.model_type}"
        raise UserError(
            f"{recipe.model.id} has no loss of a router to be weighed",
            why=f"it is {kind}, and transformers keeps the experts of other families in balance",
            do="leave train.router_aux_loss_coef out",
            where="train.router_aux_loss_coef",
            code=ExitCode.BAD_RECIPE,
        )
    if recipe.method.settings.num_prefix_keys and model.model_type in _MASKED_BALANCE:
        raise UserError(
            f"{recipe.model.id} takes no prefix",
            why=f"the balance of the experts of {model.model_type} is taken over as many tokens as "
            "PEFT's mask has, and that is longer than a row by the prefix",
            do="add --set method.name=lora",
            where="method.name",
            code=ExitCode.BAD_RECIPE,
        )


def check_length(recipe: Recipe, model: Model) -> None:
    """A table of positions ends: a longer row would be an index past it."""
    settings = recipe.method.settings
    prompt = settings.num_virtual_tokens + settings.num_prefix_keys
    if model.is_bounded and recipe.data.max_length + prompt > model.max_positions:
        before = f", {prompt} of which the prompt takes" if prompt else ""
        raise UserError(
            f"data.max_length = {recipe.data.max_length} is longer than {recipe.model.id} can read",
            why=f"its positions are rows of a table, and that has {model.max_positions}{before}",
            do=f"add --set data.max_length={model.max_positions - prompt}",
            where="data.max_length",
            code=ExitCode.BAD_RECIPE,
        )


def check_experts(recipe: Recipe, model: Model) -> None:
    """What is added to weights has no input to drop out of, and no layers to be left out of."""
    settings = recipe.method.settings
    if not isinstance(settings, LowRank) or model.experts is None:
        return
    reached = recipe.method.spec.expert_rank(replace(settings, exclude=())) > 0
    if reached and model.model_type in OWN_EXPERTS:
        raise UserError(
            f"{recipe.model.id} takes no adapters on its experts",
            why=f"the experts of {model.model_type} are modules of their own kind, which PEFT does "
            "not adapt",
            do="add --set method.targets=attention",
            where="method.targets",
            code=ExitCode.BAD_RECIPE,
        )
    added = reached or settings.router == "adapted"
    for key, is_set, what, plain in (
        ("dropout", added and settings.dropout, "have dropout", "0"),
        ("init", added and settings.changes_base, "start from their weights", INITS[0]),
        ("dora", added and settings.dora, "train magnitudes", "false"),
        ("exclude", reached and settings.exclude, "be left out by their names", "[]"),
        ("ranks", reached and settings.ranks, "have widths by their names", "{}"),
        ("layers", settings.layers != "all", "be left out by layer", "all"),
    ):
        if is_set and (added or settings.router != ROUTERS[0]):
            raise _not_on_experts(recipe, settings, (key, what, plain), reached=reached)


def _not_on_experts(
    recipe: Recipe, settings: LowRank, refused: tuple[str, str, str], *, reached: bool
) -> UserError:
    """`refused`: the key, what it would mean, and its value that goes with experts and routers."""
    key, what, plain = refused
    others = {
        "targets": ("attention", reached),
        "router": (ROUTERS[0], settings.router != "frozen"),
    }
    there = [f"method.{name}={value}" for name, (value, is_set) in others.items() if is_set]
    on = "adapters on the experts of a mixture" if reached else "the routers of a mixture"
    given = str(getattr(settings, key)).lower()
    return UserError(
        f"{on} cannot {what}",
        why=f"method.{key} = {given}, and the recipe reaches the "
        f"{'experts' if reached else 'routers'} of {recipe.model.id}, whose weights lie in one "
        "tensor: PEFT adds to the weights there",
        do=f"add --set method.{key}={plain}, or --set {' --set '.join(there)}",
        where=f"method.{key}",
        code=ExitCode.BAD_RECIPE,
    )


def check_engine(recipe: Recipe, here: Machine) -> None:
    """Accelerate divides a model on GPUs only, and takes DDP on CPUs without a word.

    Nor does it say that fp16 has neither autocast nor a scaler of the loss there.
    """
    if recipe.train.precision == "fp16" and here.backend == "cpu" and not here.gpus:
        raise UserError(
            "fp16 needs a GPU, and this machine trains on its CPU",
            why="on CPUs Accelerate leaves autocast and the scaled loss out of fp16",
            do="add --set train.precision=bf16, or train on a machine with GPUs",
            where="train.precision",
            code=ExitCode.BAD_RECIPE,
        )
    engine = ENGINES[recipe.hardware.strategy]
    if engine.needs_gpu and not here.gpus:
        others = [e.name for e in ENGINES if e.builder and e.several and not e.needs_gpu]
        raise UserError(
            f"{engine.title} needs GPUs, and this machine has none",
            why="on CPUs Accelerate leaves the whole model with every process",
            do=f"add --set hardware.strategy={others[0]}, or train on a machine with GPUs",
            where="hardware.strategy",
            code=ExitCode.BAD_RECIPE,
        )
