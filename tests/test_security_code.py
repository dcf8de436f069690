"""What our own code must never do, read from its syntax trees: rules S1, S2, S6, S8, S11 and more.

A rule names calls, imports or arguments; the tests walk every module of the four packages. Each
rule is shown to find a sample of what it forbids.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS

ROOT = Path(__file__).parent.parent
PACKAGES = ("profiles", "advisor", "runner", "tui")
TREES = {
    path.relative_to(ROOT): ast.parse(path.read_text())
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
FORBIDDEN_IMPORTS = frozenset(
    {
        *("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"),
        *("yaml", "ruamel", "runpy", "code", "pty", "commands", "xmlrpc", "telnetlib"),
        *("socket", "socketserver", "http", "asyncio.subprocess"),
    }
)
FORBIDDEN_CALLS = frozenset(
    {
        *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile"),
        *("subprocess.getoutput", "subprocess.getstatusoutput"),
        *("asyncio.create_subprocess_shell", "tempfile.mktemp", "torch.load", "numpy.load"),
        *("datasets.load_dataset", "load_dataset", "datasets.load_from_disk", "load_from_disk"),
        *("HfApi", "huggingface_hub.HfApi", "snapshot_download"),
    }
)
FORBIDDEN_METHODS = frozenset({"push_to_hub", "upload_folder", "upload_file", "create_repo"})
MODELS = frozenset({"AutoModelForCausalLM", "AutoModelForSequenceClassification"})
LOADERS = frozenset({"AutoConfig", "AutoTokenizer", *MODELS})
ADAPTERS = frozenset({"PeftConfig", "PeftModel"})
"""They know no code of a stranger, and a pickle is refused before them (test_adapters.py)."""
WIDGETS = frozenset({"Static", "Label", "OptionList", "Log", "RichLog", "Checkbox", "Button"})


def dotted(node):
    """Like "os.path.join" of a name or attribute, "_.eval" of what a call gives; else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value) or '_'}.{node.attr}"
    return ""


def keyword(call, name):
    """The value of a literal keyword argument; `...` if it is not given or not literal."""
    for one in call.keywords:
        if one.arg == name and isinstance(one.value, ast.Constant):
            return one.value.value
    return ...


def calls(tree):
    """Every call with its dotted name."""
    return [(dotted(n.func), n) for n in ast.walk(tree) if isinstance(n, ast.Call)]


def forbidden_imports(tree):
    """Modules that can run code from data, or talk to a network."""
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        yield from (n for n in names if n in FORBIDDEN_IMPORTS or n.split(".")[0] == "yaml")


def forbidden_calls(tree):
    """Shells, evaluation, pickles, loading scripts and uploads."""
    for name, call in calls(tree):
        if name.endswith("import_module") and not _names_its_own(call.args[0]):
            yield name
        if name in FORBIDDEN_CALLS or name.rpartition(".")[2] in FORBIDDEN_METHODS:
            yield name


def _names_its_own(module):
    """A literal, or a module of the package that imports it: f"{__name__}.{...}"."""
    if isinstance(module, ast.Constant):
        return True
    start = [ast.unparse(part) for part in getattr(module, "values", [])[:2]]
    return start in (["f'{__name__}'", "'.'"], ["{__name__}", "'.'"])


def shells(tree):
    """`shell=` in any form, and a command that is one string."""
    for name, call in calls(tree):
        if any(k.arg == "shell" for k in call.keywords):
            yield name
        is_start = name.startswith(("subprocess.", "os.exec", "os.spawn"))
        if is_start and call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr):
            yield name


def trusting_loads(tree):
    """Loads of transformers that do not say `trust_remote_code=False`: None is not False."""
    for name, call in calls(tree):
        parts = name.split(".")
        is_load = parts[-1] in {"from_pretrained", "from_config"} and parts[-2:-1]
        if is_load and parts[-2] in LOADERS and keyword(call, "trust_remote_code") is not False:
            yield name


def loads_of_other_weights(tree):
    """Loads of weights that do not insist on local safetensors."""
    for name, call in calls(tree):
        if name.split(".")[-2:] in [[model, "from_pretrained"] for model in MODELS]:
            asked = (keyword(call, "use_safetensors"), keyword(call, "local_files_only"))
            if asked != (True, True):
                yield name


def reports(tree):
    """Arguments that would send a run somewhere."""
    for name, call in calls(tree):
        for argument, wanted in (("push_to_hub", False), ("report_to", "none")):
            given = [k for k in call.keywords if k.arg == argument]
            if given and keyword(call, argument) != wanted:
                yield f"{name}({argument})"


def shared_temporary_places(tree):
    """A fixed name under /tmp, where others can plant a link."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text.startswith(("/tmp", "/var/tmp")):  # noqa: S108  # a rule
            yield text


def marked_up_widgets(tree):
    """Widgets that would read square brackets in data as markup."""
    for name, call in calls(tree):
        takes_text = bool(call.args or call.keywords)
        if (
            name.rpartition(".")[2] in WIDGETS
            and takes_text
            and keyword(call, "markup") is not False
        ):
            yield name


RULES = {
    forbidden_imports: "import pickle",
    forbidden_calls: "eval(text)",
    shells: "subprocess.run(f'ls {x}', shell=True)",
    trusting_loads: "AutoModelForCausalLM.from_pretrained(x, trust_remote_code=None)",
    loads_of_other_weights: "AutoModelForCausalLM.from_pretrained(x, use_safetensors=None)",
    reports: "SFTConfig(report_to='wandb')",
    shared_temporary_places: "open('/tmp/x', 'w')",
    marked_up_widgets: "Static(name)",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_our_code_keeps_the_rule(rule):
    """No module of the four packages breaks it."""
    assert not [f"{path}: {what}" for path, tree in TREES.items() for what in rule(tree)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_it_forbids(rule):
    """A rule that can find nothing would hold for anything."""
    assert list(rule(ast.parse(RULES[rule])))


def test_every_load_of_transformers_is_one_that_the_rule_knows():
    """A class that is not in `LOADERS` would go unseen."""
    loads = {
        name.split(".")[-2]
        for tree in TREES.values()
        for name, _ in calls(tree)
        if name.endswith(".from_pretrained")
    }

    assert loads == LOADERS | ADAPTERS


def test_a_package_to_import_is_never_named_by_data():
    """The trial import takes a literal, or a name of the registry's own."""
    named = [
        (str(path), call.args[0])
        for path, tree in TREES.items()
        for name, call in calls(tree)
        if name == "imports.fault"
    ]
    others = [path for path, one in named if not isinstance(one, ast.Constant)]
    specs = [spec for registry in (METHODS, OPTIMIZERS, ENGINES, TASKS) for spec in registry]

    assert len(named) > len(others)
    assert [path.rpartition("runner/")[2] for path in others] == ["checks/packages.py"]
    assert all(package.isidentifier() for spec in specs for package in spec.needs)
