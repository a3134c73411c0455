"""A new user's path: photographs, a preset, the pipeline, a network taken away, search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdprop.data.stores.embeddings import read_embeddings
from mdprop.data.stores.images import ImageStore
from mdprop.metrics.neighbours import nearest_neighbours
from mdprop.runs import Run
from tests.deploy.conftest import draw
from tests.deploy.test_export import documented, preprocessed, run
from tests.pipeline.conftest import Project, copy_project, set_params

CLASSES, IMAGES = 8, 10
SMALL = {
    "methods": {"clean": [], "single_target": [], "multi_target": ["mdprop"]},
    "datasets.folder.root": "photos",
    "datasets.folder.resize": 40,
    "datasets.folder.image_size": 32,
    "model.freeze_batchnorm": "none",
    "model.embedding_dim": 16,
    "train.epochs": 12,
    "train.batch_size": 16,
    "train.images_per_class": 4,
    "train.validate_every": 0,
    "attack.targets": 3,
    "adversary.queries": 20,
    "adversary.steps": 2,
    "adversary.sets": {"towards": {"goal": "single_target"}},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which a folder of photographs has gone through the pipeline, a small ResNet trained."""
    project = copy_project(tmp_path_factory.mktemp("user"), {})
    for kind in range(CLASSES):
        folder = project.path / "photos" / f"kind{kind}"
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            draw(number, (60 + number, 50), kind).save(folder / f"{number}.jpg", quality=90)
    assert mdprop(project, "preset", "photographs", "reduced")
    set_params(project.path / "params.yaml", SMALL)
    project.repro()
    return project


def mdprop(project: Project, *arguments: str) -> str:
    done = project.run("python", "-m", "mdprop", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_new_user_gets_from_photographs_to_search(work: Project) -> None:
    assert "<html" in (work.path / "report" / "index.html").read_text()
    assert "mdprop" in json.loads((work.path / "report" / "metrics.json").read_text())
    mdprop(work, "export", "runs/mdprop/0", "model.safetensors")
    assert_torchvision_finds_the_neighbours_of_the_pipeline(work.path)
    assert mdprop(work, "index", "runs/mdprop/0", "photos", "--out", "photos.index").endswith("80 images\n")
    (work.path / "queries").mkdir()
    for kind in (4, 5, 6, 7):  # unseen in training, as are the queries
        draw(99, kind=kind).save(work.path / "queries" / f"kind{kind}.png")
    found = json.loads(mdprop(work, "search", "photos.index", "queries", "-k", "5", "--json"))
    assert len(found["queries"]) == 4
    for query in found["queries"]:
        classes = [Path(near["image"]).parent.name for near in query["neighbours"]]
        assert classes[0] == Path(query["query"]).stem
        assert classes.count(classes[0]) >= 3


def assert_torchvision_finds_the_neighbours_of_the_pipeline(project: Path) -> None:
    exported = project / "model.safetensors"
    store = ImageStore(project / "data/prepared/folder/test.arrow")
    files = [project / "photos" / store.path(row) for row in range(len(store))]
    ids, _, expected = read_embeddings(project / Run("mdprop", 0).embeddings("clean", "clean"))
    assert np.array_equal(ids, store.ids)
    names: dict[str, Any] = {
        "torch": torch,
        "p": json.loads((project / "model.safetensors.preprocessing.json").read_text()),
        "batch": preprocessed(exported, files),
    }
    run(documented("get_model", "network ="), names)
    run(documented("load_file(").replace("model.safetensors", str(exported)), names)
    ours, theirs = (nearest_neighbours(found, 5) for found in (expected, names["embeddings"].numpy()))
    assert np.allclose(names["embeddings"], expected, atol=1e-5)
    assert (ours == theirs).mean() > 0.98
