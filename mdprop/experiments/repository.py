"""What DVC keeps of an experiment: its parameters and what each query found."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdprop.errors import MDPropError, ParameterError, ResultError, one_line
from mdprop.report.intervals import Results, read_hits
from mdprop.runs import Run, runs_of

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem
    from dvc.repo import Repo

WORKSPACE = "workspace"
"""DVC's name for what is not committed."""

_LOCK = "dvc.lock"
_PREPARED = ("train_fraction", "fraction_of", "mode", "resize", "encoding")
_UNTESTED = ("train", "val")


@dataclass(frozen=True)
class TestImages:
    """What tells the test images of two experiments apart.

    digest: of what was stored, with ids and labels, which count on from the training images.
    first: the id of the first one.
    chosen: what decided which pictures they are; prepared: what changes them, or which images are trained
    on, and leaves them the same pictures.
    """

    __test__ = False  # for pytest

    digest: str
    first: int = 0
    chosen: str = ""
    prepared: str = ""

    def are(self, other: TestImages) -> bool:
        """Whether they are the same pictures, in the same order."""
        if self.digest == other.digest:
            return True
        return self.prepared != other.prepared and self.chosen == other.chosen


@dataclass(frozen=True)
class Experiment:
    """A revision with its results.

    name: the revision as it was asked for. parameters: dotted key -> value, of those that the results
    were made with. results: as `read_hits` has them, but that ids count the test images from 0.
    """

    name: str
    commit: str
    parameters: Mapping[str, Any]
    images: TestImages
    results: Results


def read_experiments(revisions: Sequence[str]) -> Iterator[Experiment | MDPropError]:
    """Each revision of the project that this is, or what is wrong with it, in one line.

    revisions: what git or DVC has a name for, or `workspace`.

    Raises `ParameterError` outside of a DVC project with a git repository.
    """
    from dvc.scm import NoSCM

    with _project() as project:
        if isinstance(project.scm, NoSCM):
            raise ParameterError(f"{Path.cwd()} has no git repository, and so no revisions to compare")
    for revision in revisions:
        try:
            yield _read(revision)
        except MDPropError as error:
            yield error


def experiments_of_head() -> tuple[list[str], list[str]]:
    """The names of the finished experiments that started from HEAD, and a note on each that is not finished.

    Raises `ParameterError` outside of a DVC project with a git repository.
    """
    from dvc.exceptions import DvcException

    with _project() as project:
        try:
            found = project.experiments.ls()
            queue = project.experiments.celery_queue.status()
        except DvcException as error:
            raise ParameterError(
                f"experiments need a git repository with a commit: {one_line(error)}"
            ) from None
    done = [name for of_commit in found.values() for name, _ in of_commit]
    left = [
        f"{entry['name'] or entry['rev'][:7]} is {entry['status'].lower()} in the queue: left out"
        for entry in queue
        if entry["status"] in ("Queued", "Running", "Failed")
    ]
    return done, left


@contextmanager
def _project() -> Iterator[Repo]:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        project = Repo()
    except NotDvcRepoError:
        raise ParameterError(f"{Path.cwd()} is in no DVC project: change to the project's folder") from None
    with project:
        yield project


def _read(revision: str) -> Experiment:
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.scm import RevError

    files = DVCFileSystem(Path.cwd(), rev=None if revision == WORKSPACE else revision)
    try:
        commit = "" if revision == WORKSPACE else files.repo.get_rev()[:7]
        stages = _locked(revision, files)
        made_by = _made_by(revision, stages)
        runs = runs_of([m for family in made_by["methods"].values() for m in family], made_by["seeds"])
        results = _results(revision, files, stages, runs)
        images = _test_images(files, stages, str(made_by["dataset.name"]))
    except RevError:
        raise ParameterError(
            f"unknown revision '{revision}': `dvc exp list` and `git log` name those that there are; "
            f"'{WORKSPACE}' is what is not committed"
        ) from None
    except DvcException as error:
        raise ResultError(f"{revision} cannot be read: {one_line(error)}") from None
    parameters = _used(made_by, {run.method for run in runs})
    return Experiment(revision, commit, parameters, images, _from_0(results, images.first))


def _locked(revision: str, files: DVCFileSystem) -> dict[str, Any]:
    """The stages in the dvc.lock of a revision."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lock = YAML(typ="safe").load(files.read_text(f"/{_LOCK}"))
    except FileNotFoundError:
        raise _without_results(revision) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ResultError(f"{revision}: {_LOCK} is no YAML ({one_line(error)})") from None
    stages = lock.get("stages") if isinstance(lock, dict) else None
    if not isinstance(stages, dict) or "report" not in stages:
        raise _without_results(revision)
    return stages


def _without_results(revision: str) -> ResultError:
    remedy = "`dvc repro`" if revision == WORKSPACE else "`dvc exp run`, or `dvc repro` and a commit,"
    return ResultError(
        f"{revision} has no results: its pipeline was not run to the end; {remedy} gives it some"
    )


def _made_by(revision: str, stages: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the whole pipeline as they were when it ran: declared name -> value."""
    made_by: dict[str, Any] = {}
    for stage in ("prepare", "report"):
        made_by |= stages.get(stage, {}).get("params", {}).get("params.yaml", {})
    made_by |= {f"dataset.{key}": value for key, value in made_by.pop("dataset", {}).items()}
    if not {"methods", "seeds", "dataset.name"} <= made_by.keys():
        raise ResultError(f"{revision}: its {_LOCK} is of another version of mdprop: run it again")
    return made_by


def _used(made_by: Mapping[str, Any], methods: set[str]) -> dict[str, Any]:
    """Dotted key -> value, without recipes of other methods; blocks of all data sets are called alike."""
    block = f"datasets.{made_by['dataset.name']}"
    flat = {"datasets.<name>" if key == block else key: value for key, value in made_by.items()}
    flat["recipes"] = {name: value for name, value in flat.get("recipes", {}).items() if name in methods}
    return dict(_flat(flat))


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        elif not isinstance(value, Mapping):
            yield f"{above}{key}", value


def _results(revision: str, files: DVCFileSystem, stages: Mapping[str, Any], runs: Sequence[Run]) -> Results:
    """What the queries of these runs found, from DVC's cache or a remote."""
    outputs = {out["path"] for stage in stages.values() for out in stage.get("outs", ())}
    with tempfile.TemporaryDirectory(prefix="mdprop-") as folder:
        for run in runs:
            path, copy = run.queries.as_posix(), Run(run.method, run.seed, Path(folder)).queries
            if path not in outputs:
                raise ResultError(f"{revision} has no results of {run}: run it again")
            copy.parent.mkdir(parents=True)
            try:
                files.get_file(f"/{path}", str(copy))
            except OSError:
                raise ResultError(
                    f"{revision}: {path} is not in DVC's cache: {_way_back(revision)}"
                ) from None
        try:
            return read_hits(Run(run.method, run.seed, Path(folder)) for run in runs)
        except ResultError as error:
            reason = str(error).replace(f"{folder}/", f"{Run('', 0).root}/").partition(": ")[0]
            raise ResultError(f"{revision}: {reason}: {_way_back(revision)}") from None


def _way_back(revision: str) -> str:
    if revision == WORKSPACE:
        return "`dvc pull`, or `dvc repro`, brings it"
    return "`dvc pull`, or running the experiment again, brings it back"


def _test_images(files: DVCFileSystem, stages: Mapping[str, Any], dataset: str) -> TestImages:
    """By the manifest; where that is not in the cache, by what DVC knows of its folder."""
    try:
        manifest = json.loads(files.read_text(f"/data/prepared/{dataset}/manifest.json"))
        return _described(manifest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        outs = stages.get("prepare", {}).get("outs", ())
        return TestImages(next((str(out.get("md5")) for out in outs), ""))


def _described(manifest: Mapping[str, Any]) -> TestImages:
    splits, settings = manifest["splits"], dict(manifest["settings"])
    names = list(splits)
    tested = [name for name in names if name not in _UNTESTED]
    moving = _PREPARED if settings.get("evaluate") == "validation" else (*_PREPARED, "validation_classes")
    prepared = {key: settings.pop(key, None) for key in moving}
    counts = [(splits[name]["images"], splits[name]["classes"]) for name in tested]
    skipped = [image for image in manifest["skipped"] if image["split"] in tested]
    return TestImages(
        digest=" ".join(splits[name]["sha256"] for name in tested),
        first=sum(splits[name]["images"] for name in names[: names.index("test")]),
        chosen=json.dumps([manifest["name"], settings, counts, skipped], sort_keys=True),
        prepared=json.dumps(prepared, sort_keys=True),
    )


def _from_0(results: Results, first: int) -> Results:
    return {
        row: {
            name: {seed: replace(hits, ids=hits.ids - first) for seed, hits in by_seed.items()}
            for name, by_seed in sets.items()
        }
        for row, sets in results.items()
    }
