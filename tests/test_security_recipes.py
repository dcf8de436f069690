"""Recipes from strangers: data that names no command, no output and no secret place (S1 to S5)."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pseudo_terminal import at_terminal
from small_model import recipe_text, small_model

from advisor import recipe as recipes
from advisor.path_syntax import sound_path
from profiles import paths
from profiles.errors import ExitCode, UserError
from profiles.runs import durable, rundir
from profiles.runs.state import State, status
from runner.supervision import launch
from tui.main import run as advisor_here

HOSTILE = [
    "x; touch CANARY",
    "$(touch CANARY)",
    "`touch CANARY`",
    "| touch CANARY",
    "&& touch CANARY #",
    "x\ntouch CANARY",
    "x\r\ntouch CANARY",
    "-rf",
    "--help",
    "--config=/etc/passwd",
    "'); open('CANARY', 'w') #",
    "__import__('os').system('touch CANARY')",
    "{{ ''.__class__.__mro__ }}",
    "%(x)s %n {0.__class__}",
    "!!python/object/apply:os.system ['touch CANARY']",
    "\x1b]0;title\x07\x1b[2J",
    "\u202etxt.exe",
    "~root/x",
    "x" * 300,
]
FIELDS = [
    "name",
    "model.id",
    "model.adapter",
    "data.train",
    "data.eval",
    "data.split",
    "method.name",
]
FIELDS += ["train.scheduler", "train.precision", "hardware.strategy", "plan.machine", "shell.run"]
SOUND = tomllib.loads(recipe_text())


def with_value(dotted, value):
    """The text of the sound recipe with one key set, to anything."""
    content = json.loads(json.dumps(SOUND))
    *tables, key = dotted.split(".")
    table = content
    for name in tables:
        table = table.setdefault(name, {})
    table[key] = value
    return tomli_w.dumps(content)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model and data, in which commands run; a canary would appear in it."""
    folder = tmp_path / "shared"
    small_model(folder / "model")
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def dry_run(place):
    """Check a recipe through the command; returns the exit code."""

    def check(text, *options):
        path = place / "r.toml"
        path.write_text(text)
        return advisor_here(["run", str(path), "--dry-run", *options])

    return check


@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_value_runs_nothing_and_is_told(place, dry_run, field):
    """Shell, Python, jinja, YAML and terminal syntax in a key that takes text."""
    before = sorted(p.name for p in place.iterdir())
    for value in HOSTILE:
        text = with_value(field, value)
        code = dry_run(text)
        checked = advisor_here(["recipe", "check", "r.toml"])
        is_remark = field == "plan.machine" and len(value) <= 300

        assert is_remark or code in {65, 66, 77, 78}, (field, value, code)
        assert checked in {0, 78}
    assert sorted(p.name for p in place.iterdir()) == sorted([*before, "r.toml"])


def test_a_hostile_recipe_in_a_run_directory_starts_nothing_but_an_error(tmp_path):
    """Past all checks of the command, the worker itself refuses before it loads anything."""
    text = 'schema = 1\nname = "$(touch CANARY)"\n[hardware]\nstrategy = "ddp; touch CANARY"\n'
    text += 'gpus = "2; touch CANARY"\n'

    run = launch.start(text.encode(), name="x; touch CANARY", base_dir=tmp_path, devices=())
    deadline = time.monotonic() + 30
    while not (found := status(run)).state.is_over and time.monotonic() < deadline:
        time.sleep(0.05)

    assert (found.state, found.exit_code) == (State.FAILED, ExitCode.BAD_RECIPE)
    assert not list(tmp_path.rglob("*CANARY*"))


SCALARS = (
    st.none().map(lambda _: "x")
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", min_size=1), inner),
    max_leaves=5,
)
KEYS = [
    f"{section}.{key}" if section else key
    for section, keys in {
        "": ("schema", "name", "task", "model", "data", "method", "train", "plan", "hardware"),
        "model": ("id", "revision", "trust_remote_code"),
        "data": ("train", "eval", "format", "max_length", "packing", "split", "on_bad"),
        "method": ("name", "rank", "alpha", "dropout", "targets", "bits"),
        "train": ("epochs", "max_steps", "learning_rate", "warmup", "micro_batch", "seed"),
        "plan": ("machine", "peak_bytes", "hours", "path"),
        "hardware": ("gpus", "strategy"),
    }.items()
    for key in keys
]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3))
def test_any_value_under_any_key_is_read_or_refused(changes):
    """Nothing but a recipe or an error in four parts comes out."""
    content = json.loads(json.dumps(SOUND))
    for dotted, value in changes:
        *tables, key = dotted.split(".")
        table = content
        for name in tables:
            table = table.setdefault(name, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict):
            table[key] = value
    _only_user_errors(tomli_w.dumps(content))


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("[]{}=.\"'\n#"), max_size=80)
)
def test_any_text_is_read_or_refused(text):
    """No input makes the reader fail in another way."""
    _only_user_errors(text)


@pytest.mark.parametrize(
    "bomb",
    ["a = " + "[" * 5000 + "]" * 5000, "a = " + "9" * 5000, "a." * 3000 + "b = 1"],
    ids=["depth", "digits", "dots"],
)
def test_a_recipe_made_to_break_the_reader_is_refused(bomb):
    """Depth and digits beyond what Python parses."""
    _only_user_errors(bomb)


def _only_user_errors(text):
    try:
        recipes.parse(text, where="r.toml")
    except UserError as error:
        parts = (error.what, error.why, error.do, error.where)
    else:
        return
    assert all(parts)
    assert len(parts[1]) < 20_000


@pytest.mark.parametrize(
    "key", ["exec", "model.trust_remote_code", "data.script", "train.callbacks"]
)
def test_an_unknown_key_is_a_mistake(dry_run, key):
    """A recipe is closed: no command, callback or environment has a place in it."""
    assert dry_run(with_value(key, "touch CANARY")) == ExitCode.BAD_RECIPE


@pytest.mark.parametrize(("key", "value"), [("train.epochs", "2"), ("train.micro_batch", True)])
def test_a_value_of_another_type_is_not_converted(key, value):
    """Text is no number, and true is not 1."""
    with pytest.raises(UserError):
        recipes.parse(with_value(key, value), where="r.toml")


def test_a_recipe_names_nothing_that_is_written():
    """All its free texts are a name, inputs and remarks; a run lies where the tool puts it."""
    schema = recipes.schema().model_json_schema()
    free = set()
    for name, section in {"": schema, **schema["$defs"]}.items():
        for key, about in section["properties"].items():
            kinds = [about, *about.get("anyOf", []), about.get("items", {})]
            closed = any("enum" in k or "const" in k or "pattern" in k for k in kinds)
            if not closed and any(k.get("type") == "string" for k in kinds):
                free.add(f"{name}.{key}")

    assert free == {
        *("ModelSection.id", "ModelSection.adapter", "ModelSection.adapters"),
        *("DataSection.train", "DataSection.eval", "MixedFile.file"),
        "ModelSection.new_tokens",  # texts that are learnt
        "DataSection.chat_template",  # an input: a family, or a file that is read
        "DataSection.split_by",  # a column
        "prompt_tuning_method.init_text",  # words that are learnt from
        *("PlanSection.machine", "PlanSection.advisor_version", "PlanSection.path"),
    }


BAD_PATHS = [
    *("a\0b", "\0", "a\nb", "a\rb", "a\tb", "a\x1bb", "a\x7fb", "a\x85b", "a\u2028b", "a\u2029b"),
    *("-", "-rf", "--help", "-/x", "~", "~/x", "~root/x", "~other"),
    *("\u202egnp.txt", "a\u200bb", "\ufeffa", "a\u2066b", "a\u00adb"),
    *("x" * 201, f"a/{'x' * 201}/b", "ü" * 101, f"{'x' * 201}.json"),
]
GOOD_PATHS = [
    *("rows.json", "./rows.json", "../data/rows.json", "/data/rows.json", "a b/c d.json"),
    *("dir-/x", "a/-x", "a~b", "naïve/日本.jsonl", "x" * 200, "..", ".", "a..b", "$HOME/x", "a;b"),
]


@pytest.mark.parametrize("text", BAD_PATHS, ids=ascii)
def test_a_path_that_may_be_mistaken_is_refused(text):
    """Control and invisible characters, options, tildes, names that no disk takes."""
    with pytest.raises(ValueError, match=r"path|~|name"):
        sound_path(text)


@pytest.mark.parametrize("text", GOOD_PATHS, ids=ascii)
def test_a_path_that_people_use_is_taken(text):
    """Where it leads is judged elsewhere."""
    assert sound_path(text) == text


def test_a_run_directory_stays_under_the_run_root_whatever_the_name(tmp_path):
    """The name of a run is reduced to letters and digits; nothing else becomes a path."""
    for name in ("../../x", "/etc/x", "..", "-rf", "a\0b", "~root", "x" * 500, "CON", "."):
        made = rundir.create(name)
        assert made.path.resolve().parent == rundir.run_root().resolve()
        assert len(made.id.encode()) <= 200


def test_our_writes_never_go_through_a_symbolic_link(tmp_path):
    """Also where a link is put in place between two writes."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    link = tmp_path / "state"
    for _ in range(20):
        link.symlink_to(victim)
        with pytest.raises(OSError, match=r"symbolic|Too many"):
            durable.overwrite(link, b"gone")
        durable.write_atomic(link, b"new")  # replaces the link, not what it points to
        assert not link.is_symlink()
        link.unlink()

    assert victim.read_text() == "kept"


@pytest.fixture
def elsewhere(tmp_path):
    """A sound data file outside the recipe's folder and the working directory."""
    path = tmp_path / "elsewhere" / "rows.json"
    path.parent.mkdir()
    path.write_text(json.dumps([{"prompt": "p", "completion": "c"}] * 4))
    return path


CLOSED = {
    "/etc/passwd": "/etc belongs to the system",
    "/etc/../etc/passwd": "/etc belongs to the system",
    "/proc/self/environ": "/proc belongs to the system",
    "/sys/kernel/notes": "/sys belongs to the system",
    "../.ssh/id_rsa": ".ssh is a place for keys",
    "../.aws/credentials.json": ".aws is a place for keys",
    "../.config/gcloud/x.json": ".config is a place for keys",
    "link.json": ".ssh is a place for keys",
    ".git/rows.json": ".git is hidden",
    "../.hidden/rows.json": ".hidden is hidden",
    "../elsewhere/passwords.txt": "no data file by its name",
}


@pytest.mark.parametrize("file", CLOSED)
def test_data_in_a_closed_place_is_refused(tmp_path, place, dry_run, capsys, file):
    """By where it lies, links followed: exit code 77, and nobody is asked."""
    (place / "link.json").symlink_to(tmp_path / ".ssh" / "keys.json")

    code = dry_run(recipe_text(train=file))

    said = capsys.readouterr().err
    assert code == ExitCode.REFUSED
    assert CLOSED[file] in " ".join(said.split())
    assert "--allow-outside" in said


@pytest.mark.parametrize("model", ["../.ssh", "/etc", "/proc/self/root/etc"])
def test_a_model_in_a_closed_place_is_refused(dry_run, model):
    """Caches of models are hidden places too, so only the homes of keys and the system's count."""
    assert dry_run(recipe_text(model=model)) == ExitCode.REFUSED


def test_a_model_in_a_cache_is_taken(tmp_path, dry_run):
    """As hf download leaves it."""
    folder = small_model(tmp_path / ".cache" / "huggingface" / "hub" / "model")

    assert dry_run(recipe_text(model=str(folder))) == 0


@pytest.fixture
def cached(tmp_path):
    """A data file as a cache of data sets keeps it: in a hidden folder, without a suffix."""
    path = tmp_path / ".cache" / "huggingface" / "blobs" / "0123abcd"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"prompt": "p", "completion": "c"}] * 4))
    return path


def test_a_link_to_a_cache_is_called_what_the_link_is_called(place, dry_run, cached, capsys):
    """It is asked about as all that lies elsewhere; the cache's own name for it is refused."""
    (place / "train.json").symlink_to(cached)

    assert dry_run(recipe_text(train="train.json")) == ExitCode.REFUSED
    assert "lies outside its own folder" in capsys.readouterr().err
    paths.remember([cached])
    assert dry_run(recipe_text(train="train.json")) == 0


@pytest.mark.parametrize("kind", ["hidden file", "folder", "of another", "link without suffix"])
def test_a_link_opens_nothing_else(place, cached, monkeypatch, kind):
    """Hidden files, which hold keys and habits, folders, and files of other people."""
    hidden = cached.with_name(".netrc")
    hidden.write_text("x")
    if kind == "of another":
        monkeypatch.setattr("os.geteuid", lambda: cached.stat().st_uid + 1)
    link = place / ("train" if kind == "link without suffix" else "train.json")
    link.symlink_to({"hidden file": hidden, "folder": cached.parent}.get(kind, cached))

    with pytest.raises(UserError, match="would train on"):
        paths.refuse_closed([link], place / "model", place)


def test_the_scratch_places_of_batch_jobs_are_asked_about(place, monkeypatch):
    """Though they lie in the system's places; a variable does not open such a place whole."""
    model = place / "model"
    spool, hidden = Path("/var/spool/slurmd/job7/rows.json"), Path("/var/spool/job7/.x/rows.json")
    paths.refuse_closed([spool], model, place)
    assert paths.unanswered([spool], place) == [spool]

    monkeypatch.setenv("SLURM_TMPDIR", "/var/spool/job7/.x")
    paths.refuse_closed([hidden], model, place)
    for value in ("/var/spool", "/var", "/"):
        monkeypatch.setenv("SLURM_TMPDIR", value)
        with pytest.raises(UserError, match="would train on"):
            paths.refuse_closed([Path("/var/spool/job7/rows.json")], model, place)


def test_data_elsewhere_is_refused_where_nobody_can_be_asked(dry_run, elsewhere, capsys):
    """In batch the flag is the answer, for this once."""
    text = recipe_text(train=str(elsewhere))

    assert dry_run(text) == ExitCode.REFUSED
    assert "lies outside its own folder" in capsys.readouterr().err
    assert dry_run(text, "--allow-outside") == 0
    assert dry_run(text) == ExitCode.REFUSED


def test_data_that_a_person_named_is_not_asked_about(dry_run, elsewhere):
    """`recommend --data` and `--set` are hands of their own; a replay later meets no question."""
    assert dry_run(recipe_text(), "--set", f"data.train={json.dumps(str(elsewhere))}") == 0
    assert dry_run(recipe_text(train=str(elsewhere))) == 0


def test_a_recipe_saved_under_another_home_is_only_asked_about(
    tmp_path, place, elsewhere, monkeypatch, capsys
):
    """Answers are kept in a home; in another one the flag or a person says so again."""
    arguments = ["--model", "model", "--data", str(elsewhere), "--gpu", "1x RTX 4090"]
    assert advisor_here(["recommend", *arguments, "--save", "r.toml"]) == 0
    start = ["run", "r.toml", "--dry-run"]
    assert advisor_here(start) == 0
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "another"))
    capsys.readouterr()

    assert advisor_here(start) == ExitCode.REFUSED
    assert "--allow-outside" in next(
        line for line in capsys.readouterr().err.splitlines() if line.startswith("do:")
    )
    assert advisor_here([*start, "--allow-outside"]) == 0


def test_data_in_the_folder_one_works_in_is_not_asked_about(tmp_path, place, dry_run, monkeypatch):
    """recipes/r.toml beside data/rows.json, started from the project; but not from the home."""
    (place.parent / "project" / "data").mkdir(parents=True)
    rows = place.parent / "project" / "data" / "rows.json"
    rows.write_text((place / "rows.json").read_text())
    monkeypatch.chdir(place.parent / "project")
    inside = dry_run(recipe_text(train=str(rows)))
    monkeypatch.setenv("HOME", str(place.parent / "project"))
    at_home = dry_run(recipe_text(train=str(rows)))

    assert (inside, at_home) == (0, ExitCode.REFUSED)


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 77), (b"\x04", 77)])
def test_a_person_is_asked_once(place, elsewhere, answer, code):
    """Yes is remembered, no and the end of input are not."""
    (place / "r.toml").write_text(recipe_text(train=str(elsewhere)))
    with at_terminal("run", "r.toml", "--dry-run") as terminal:
        terminal.until(b"train on it?")
        terminal.press(answer)
        assert terminal.end(30) == code

    assert bool(paths.unanswered([elsewhere], place)) == (code != 0)


def test_a_damaged_record_of_answers_only_asks_again(place, elsewhere, home):
    """It is read as empty, and written anew."""
    home.mkdir()
    for content in ("", "[]", '{"paths": 3}', '{"paths": [1, null]}', "\0"):
        (home / "inputs.json").write_text(content)
        assert paths.unanswered([elsewhere], place) == [elsewhere]
    paths.remember([elsewhere])

    assert paths.unanswered([elsewhere], place) == []


@pytest.mark.parametrize("secret", [f"hf_{'aB' * 17}", "sk-abcdefghijklmnopQR12", "://u:pass@h/x"])
def test_a_token_in_a_recipe_is_refused(dry_run, secret):
    """It would be copied into the run directory and shared."""
    assert dry_run(recipe_text() + f"# {secret}\n") == ExitCode.REFUSED


def test_a_file_without_end_is_not_read_as_a_recipe():
    """A device is not even opened."""
    assert advisor_here(["recipe", "check", "/dev/zero"]) == ExitCode.NO_INPUT
