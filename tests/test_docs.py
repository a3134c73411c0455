"""The texts: their code runs, their commands parse, what they name exists."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML

import mdprop
from mdprop.attacks import GOALS, Threat
from mdprop.attacks.optimizers import OPTIMIZERS
from mdprop.config import load_params
from mdprop.config.schema import EvaluateSettings
from mdprop.data.stores.adversarial import Attacked, write_adversarial
from mdprop.data.stores.embeddings import write_embeddings
from mdprop.methods import METHODS
from mdprop.models import build_model, export_network, load_model, save_model
from mdprop.robustness.checks import CHECKS
from mdprop.robustness.evaluation import evaluate_run
from mdprop.runs import Run
from tests.helpers import randomize_norms

PROJECT = Path(__file__).parents[1]
TEXTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((PROJECT / "docs").glob("*.md"))),
)
PARAMS = YAML(typ="safe").load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
PIPELINE = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
OTHER_PROGRAMS = {"cd", "git", "grep", "mypy", "pre-commit", "python3", "ruff", "source", "torchrun"}
TESTED_ELSEWHERE = {"docs/deploy.md"}  # its code: tests/deploy/test_export.py
PLACEHOLDER = re.compile(r"[<*…{]")


def read(text: str) -> str:
    return (PROJECT / text).read_text(encoding="utf-8")


def tokens(text: str) -> Iterator[Token]:
    """The Markdown tokens of a text, those inside of lines among them."""
    for token in MarkdownIt("commonmark").enable("table").parse(read(text)):
        yield token
        yield from token.children or []


def fences(text: str, language: str) -> list[str]:
    return [t.content for t in tokens(text) if t.type == "fence" and t.info == language]


def code_spans(text: str) -> list[str]:
    return [t.content for t in tokens(text) if t.type == "code_inline"]


def table(text: str, *heads: str) -> list[list[str]]:
    """The rows of the table with these heads."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in read(text).splitlines()]
    start = rows.index(list(heads)) + 2
    end = next(i for i in range(start, len(rows) + 1) if i == len(rows) or len(rows[i]) != len(heads))
    return rows[start:end]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a text, in blocks and within lines, as lists of words."""
    lines = [line for block in fences(text, "bash") for line in block.splitlines()]
    lines += [code for code in code_spans(text) if re.match(r"(mdprop|dvc|python) -?\w", code)]
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.match(r"[A-Z_]+=", words[0]):  # a variable for this command
            del words[0]
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", "|")), len(words))
            yield words[:end]
            words = words[end + 1 :]


def each(find: Any) -> list[Any]:
    """Test cases: what `find` finds in each text."""
    return [pytest.param(found, id=f"{text}: {found}"[:90]) for text in TEXTS for found in find(text)]


def dvc_arguments(words: list[str]) -> Any:
    from dvc.cli.parser import get_main_parser

    return get_main_parser().parse_args(words[1:])


def parse_typer(app: typer.Typer, words: list[str]) -> None:
    """Raises where the program has no such command, option or number of arguments.

    A command of several that is named alone, such as `mdprop check` in a sentence, need only be there.
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context(words[0], words[1:])
    if hasattr(command, "commands"):
        name, subcommand, rest = command.resolve_command(context, words[1:])
        if rest:
            subcommand.make_context(name, rest, parent=context)


@pytest.mark.parametrize("words", each(commands))
def test_commands_parse(words: list[str]) -> None:
    program, *rest = words
    if program == "dvc":
        arguments = dvc_arguments(words)
        targets = getattr(arguments, "targets", None) or []
        assert {target.split("@")[0] for target in targets} <= set(PIPELINE["stages"])
    elif program == "mdprop":
        from mdprop.cli import app

        parse_typer(app, words)
    elif program == "python":
        assert rest[0] == "-m"
        if rest[1].startswith("stages."):
            if rest[2:] != ["--help"]:
                parse_typer(import_module(rest[1]).app, rest[1:])
        else:
            script = PROJECT / f"{rest[1].replace('.', '/')}.py"
            assert rest[1] in ("mutmut", "pip", "pytest", "sphinx") or script.is_file()
    else:
        assert program in OTHER_PROGRAMS or (PROJECT / program).is_file()


def overrides(text: str) -> Iterator[list[str]]:
    """The settings of `dvc exp run -S` in a text, and KEY=VALUE within its lines."""
    for words in commands(text):
        if words[:3] == ["dvc", "exp", "run"] and (settings := dvc_arguments(words).set_param):
            yield settings
    for code in code_spans(text):
        key = re.match(r"(?:-S )?'?(\w+)[\w.]*=", code)
        if key and key[1] in PARAMS:
            yield shlex.split(code.removeprefix("-S "))


@pytest.mark.parametrize("settings", each(overrides))
def test_settings_are_parameters_of_the_right_type(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

    monkeypatch.delenv("DVC_STAGE", raising=False)
    path = tmp_path / "params.yaml"
    shutil.copy(PROJECT / "params.yaml", path)
    before = load_params(path)
    changes = []
    for sweep in get_hydra_sweeps({"params.yaml": settings}):
        apply_overrides(path, sweep["params.yaml"])
        changes.append(load_params(path) != before)
        shutil.copy(PROJECT / "params.yaml", path)
    assert any(changes)


def parameters(text: str) -> list[str]:
    pattern = re.compile(rf"({'|'.join(PARAMS)})(\.[a-z_]\w*)+")
    spans = [code for code in code_spans(text) if not code.endswith((".arrow", ".json"))]
    return [code for code in spans if pattern.fullmatch(code)]


@pytest.mark.parametrize("name", each(parameters))
def test_parameters_exist(name: str) -> None:
    section = PARAMS
    for key in name.split("."):
        assert key in section, f"{name}: no {key}"
        section = section[key]


def paths(text: str) -> list[str]:
    """The files and folders of the project that a text names or links to."""
    name = re.compile(r"((mdprop|stages|tests|docs|examples|baselines|\.ci)/.*)|\w+\.(yaml|md|toml|cff)")
    named = [code for code in code_spans(text) if name.fullmatch(code)]
    named += [words[words.index("--baseline") + 1] for words in commands(text) if "--baseline" in words]
    links = [str(t.attrs["href"]) for t in tokens(text) if t.type == "link_open"]
    here = Path(text).parent
    named += [str(here / link.split("#")[0]) for link in links if not re.match(r"https?:|#", link)]
    return sorted({name for name in named if not PLACEHOLDER.search(name)})


@pytest.mark.parametrize("path", each(paths))
def test_paths_exist(path: str) -> None:
    assert (PROJECT / path).exists() or (PROJECT / "docs" / path).exists()


def slugs(text: str) -> set[str]:
    """What links to the headings of a text are called."""
    headings = re.findall(r"^#+ (.+)$", read(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("text", TEXTS)
def test_links_lead_to_a_heading(text: str) -> None:
    links = [str(t.attrs["href"]).split("#") for t in tokens(text) if t.type == "link_open"]
    for path, *heading in links:
        if heading and not path.startswith("http"):
            target = text if not path else str((PROJECT / text).parent.joinpath(path).resolve())
            assert heading[0] in slugs(str(target)), f"{path}#{heading[0]}"


def stages(text: str) -> list[str]:
    """The stages that a text names; `train` alone stands for a family of them."""
    pattern = re.compile(r"(train|attack|embed|evaluate)-[a-z-]+")
    return [found[0] for code in code_spans(text) if (found := pattern.match(code))]


@pytest.mark.parametrize("stage", each(stages))
def test_stages_exist(stage: str) -> None:
    assert stage in PIPELINE["stages"]


def test_the_readme_draws_every_stage() -> None:
    (graph,) = fences("README.md", "mermaid")
    drawn = set(re.findall(r"[a-z][a-z-]+[a-z]", graph)) - {"flowchart"}
    assert drawn == set(PIPELINE["stages"])


def test_the_guide_names_every_output() -> None:
    guide = read("docs/guide.md")
    for stage in PIPELINE["stages"].values():
        for out in [*stage.get("outs", []), *stage.get("metrics", [])]:
            path = out if isinstance(out, str) else next(iter(out))
            named = re.sub(r"\$\{(?:item|dataset)\.(\w+)\}", r"<\1>", path).replace("<name>", "<dataset>")
            assert f"`{named}`" in guide, named


def test_keys_of_data_sets_are_explained() -> None:
    explained = set(code_spans("docs/datasets.md"))
    assert {key for block in PARAMS["datasets"].values() for key in block} <= explained


def test_environment_variables_are_those_of_the_code() -> None:
    variable = re.compile(r"\bMDPROP_[A-Z_]+")  # not _MDPROP_..., which a process sets for those it starts
    used = {name for file in PROJECT.glob("mdprop/**/*.py") for name in variable.findall(file.read_text())}
    for text in ("README.md", "docs/guide.md"):
        assert set(variable.findall(read(text))) == used


def test_methods_are_described_as_they_are() -> None:
    rows = table("docs/method.md", "method", "slices (share)", "branches")
    described = {name.strip("`"): (slices, int(branches)) for name, slices, branches in rows}
    assert described == {
        method.name: (
            ", ".join(["clean", *(f"{d.goal} ({d.share})" for d in method.adversarial)]),
            len(method.branches),
        )
        for method in METHODS.values()
    }


def test_every_goal_optimizer_and_check_is_described() -> None:
    goals = [
        row[0].split()[0]
        for row in table("docs/robustness.md", "goal", "looks at", "makes small", "reported")
    ]
    assert goals == list(GOALS)
    optimizers = [row[0].strip("`") for row in table("docs/robustness.md", "optimizer", "what it does")]
    assert optimizers == list(OPTIMIZERS)
    checks = table("docs/robustness.md", "check", "it needs", "it finds", "usual cause")
    assert [row[0].strip("`") for row in checks] == list(CHECKS)


def test_metrics_are_those_of_the_evaluation(tmp_path: Path) -> None:
    run, rng, ids = Run("mdprop", 0, tmp_path), np.random.default_rng(0), np.arange(12)
    for name in ("clean", "set"):
        points = rng.normal(size=(12, 5)).astype(np.float32)
        write_embeddings(run.embeddings("clean", name), [(ids, ids % 3, points)])
    numbers = (torch.from_numpy(ids / n) for n in (1, 2, 3, 4))
    rows = torch.from_numpy(ids)
    images = torch.zeros(12, 1, 2, 2)
    part = Attacked(rows, rows % 3, images, *numbers, rows[None].roll(1), rows < 0, rows < 0)
    write_adversarial(run.adversarial("clean", "set"), [part], {})
    threats = {"set": Threat(goal="single_target", epsilon=0.1)}
    settings = EvaluateSettings(ks=(1, 2), seed=0, exact_limit=100)
    measured = evaluate_run(run, ["clean"], threats, settings)[0]["set"]
    del measured["recall_at_1"], measured["recall_at_1_all_adversarial"]
    described = [row[0].strip("`") for row in table("docs/method.md", "metric", "definition", "better")]
    assert set(described) == {name.replace("recall_at_2", "recall_at_K") for name in measured}


@pytest.mark.parametrize(
    "code", each(lambda text: [] if text in TESTED_ELSEWHERE else fences(text, "python"))
)
def test_code_loads_the_exported_model(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, channels = ("resnet18", 3) if "torchvision" in code else ("conv4", 1)
    branches = METHODS["mdprop"].branches
    model = build_model(backbone, 8, branches=branches, mean=[0.4] * channels, std=[0.25] * channels)
    randomize_norms(model)
    run = tmp_path / "runs/mdprop/0"
    save_model(model, run, backbone=backbone, embedding_dim=8)
    export_network(run, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    images = torch.rand(2, channels, 32, 32)
    normalised = (images - model.mean) / model.std
    with torch.no_grad():
        loaded = load_model(run)
        taken = torch.nn.functional.normalize(names["network"](normalised))
        torch.testing.assert_close(taken, loaded(images))
        if "embeddings" in names:
            torch.testing.assert_close(names["embeddings"], loaded(names["images"]))


def test_the_version_is_the_same_everywhere() -> None:
    citation = YAML(typ="safe").load(read("CITATION.cff"))
    assert citation["version"] == mdprop.__version__
    assert f"## [{mdprop.__version__}]" in read("CHANGELOG.md")


def test_the_readme_shows_every_command() -> None:
    from mdprop.cli import app

    shown = {words[1] for words in commands("README.md") if words[0] == "mdprop"}
    command: Any = typer.main.get_command(app)
    assert shown == set(command.commands)
