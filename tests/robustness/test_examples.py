"""The examples of a run: the same queries in every run, what they find, pictures, and a plane."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mdprop.attacks.threat import Threat
from mdprop.config.schema import EvaluateSettings
from mdprop.data.loading.transforms import test_transform as crop
from mdprop.data.stores.adversarial import Attacked, read_pictures, write_adversarial
from mdprop.data.stores.embeddings import write_embeddings
from mdprop.data.stores.examples import Examples, read_examples
from mdprop.data.stores.images import ImageStore, Row, write_store
from mdprop.robustness.examples import (
    CLASSES,
    QUERIES,
    amplification,
    drawn,
    shown_attack,
    write_run_examples,
)
from mdprop.robustness.results import write_results
from mdprop.runs import Run

COUNT = 60  # images, five of each class
THREATS = {
    "targeted": Threat(goal="single_target", epsilon=0.1),
    "nothing": Threat(goal="untargeted", epsilon=0.0),
    "control": Threat(goal="untargeted", epsilon=0.1, optimizer="noise"),
    "elsewhere": Threat(goal="untargeted", epsilon=0.1, source="at/0"),
    "helpful": Threat(goal="unadversarial", epsilon=0.1),
    "worst": Threat(goal="untargeted", epsilon=0.1),
    "later": Threat(goal="untargeted", epsilon=0.1, steps=50),
}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def make_run(root: Path, method: str, mode: str = "L", side: int = 8) -> tuple[Run, dict[str, ImageStore]]:
    """Clean images, an attack of 0.1 on all of them, embeddings, and what the evaluation makes of them."""
    rng = np.random.default_rng(0)
    shape = (side, side) if mode == "L" else (side, side, 3)
    rows = [
        Row(png(rng.integers(64, 192, shape, dtype=np.uint8)), i // 5, f"class {i // 5}", f"{i}.png", 7 * i)
        for i in range(COUNT)
    ]
    if not (root / "test.arrow").exists():
        write_store(root / "test.arrow", rows, mode)
    store, run = ImageStore(root / "test.arrow"), Run(method, 0, root / "runs")
    centres = np.random.default_rng(len(method)).normal(size=(COUNT // 5, 8)).repeat(5, axis=0)
    clean = (centres + 0.3 * rng.normal(size=centres.shape)).astype(np.float32)
    attacked = (clean + rng.normal(size=clean.shape)).astype(np.float32)
    images = torch.stack([store.image(i) for i in range(COUNT)]).float() / 255
    ids, labels, none = torch.from_numpy(store.ids), torch.from_numpy(store.labels), torch.zeros(COUNT)
    part = Attacked(ids, labels, images + 0.1, none, none, none, none, ids[None], none > 0, none > 0)
    write_adversarial(run.adversarial("clean", "worst"), [part], {})
    for name, values in (("clean", clean), ("alone", clean[:2]), ("worst", attacked)):
        count = len(values)
        write_embeddings(run.embeddings("clean", name), [(store.ids[:count], store.labels[:count], values)])
    write_results(
        run, ["clean"], {"worst": THREATS["worst"]}, EvaluateSettings(ks=(1,), seed=0, exact_limit=10**6)
    )
    return run, {"clean": store}


def examples_of(run: Run, stores: dict[str, ImageStore], side: int = 8, seed: int = 0) -> Examples:
    threats = {"worst": THREATS["worst"]}
    write_run_examples(run, "clean", threats, stores, crop(side, side), seed)
    return read_examples(run.examples)


def test_the_attack_that_is_shown_is_an_untargeted_search_of_ones_own_network() -> None:
    assert shown_attack(THREATS, "clean") == "worst"
    assert (
        shown_attack({name: THREATS[name] for name in ("nothing", "targeted", "control")}, "clean")
        == "targeted"
    )
    through = {"far": Threat(goal="untargeted", epsilon=0.1, branch="far"), "targeted": THREATS["targeted"]}
    assert shown_attack(through, "clean") == "targeted"
    assert shown_attack(through, "far") == "far"
    assert (
        shown_attack({name: THREATS[name] for name in ("helpful", "elsewhere", "nothing")}, "clean") is None
    )


def test_the_same_queries_are_drawn_for_every_run(tmp_path: Path) -> None:
    found = [examples_of(*make_run(tmp_path, method)) for method in ("at", "mdprop")]
    ours, theirs = ([query.id for query in examples.queries] for examples in found)
    assert ours == theirs == drawn(7 * np.arange(COUNT), 0).tolist()
    assert len(ours) == QUERIES
    assert [move.id for move in found[0].plane.moves] == [move.id for move in found[1].plane.moves]  # type: ignore[union-attr]
    assert found[0] != found[1]


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run, stores = make_run(tmp_path, "at")
    examples_of(run, stores)
    first = run.examples.read_bytes()
    assert first == (examples_of(run, stores), run.examples.read_bytes())[1]
    examples_of(run, stores, seed=1)
    assert first != run.examples.read_bytes()


def test_it_shows_what_the_evaluation_measured(tmp_path: Path) -> None:
    """Ranks and neighbours agree, pictures are those of the images, and the change is amplified."""
    run, stores = make_run(tmp_path, "at")
    examples = examples_of(run, stores)
    assert (examples.input_set, examples.kind, examples.amplified) == ("worst", "png", 5)
    assert set(examples.classes.values()) == {f"class {i}" for i in range(COUNT // 5)}
    assert any(query.attack and query.attack.found.rank != 1 for query in examples.queries)
    for query in examples.queries:
        assert query.attack is not None
        for found in (query.clean, query.attack.found):
            labels = [neighbour.label for neighbour in found.neighbours]
            distances = [neighbour.distance for neighbour in found.neighbours]
            assert len(labels) == 5 and distances == sorted(distances)
            assert query.id not in [neighbour.id for neighbour in found.neighbours]
            first = labels.index(query.label) + 1 if query.label in labels else 0
            assert first == found.rank if first else found.rank == 0 or found.rank > 5
        clean = pixels(examples.pictures[query.id])
        assert np.array_equal(clean, stores["clean"].image(query.id // 7)[0].numpy())
        assert np.abs(pixels(query.attack.picture) - clean - 25.5).max() <= 1
        assert set(pixels(query.attack.perturbation).ravel()) == {255}  # 0.5 + 5 · 0.1


def pixels(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).astype(np.int64)


def test_the_plane_is_of_the_classes_with_the_most_queries(tmp_path: Path) -> None:
    run, stores = make_run(tmp_path, "at")
    plane = examples_of(run, stores).plane
    assert plane is not None
    assert {label for label, _, _ in plane.points} == set(range(CLASSES))
    assert len(plane.moves) == 5 * CLASSES
    x, y = np.array([point[1:] for point in plane.points]).T
    assert abs(x.mean()) < 1e-3 and abs(y.mean()) < 1e-3 and x.var() > y.var()
    assert 1 > plane.explained[0] >= plane.explained[1] > 0
    at = {(round(a, 4), round(b, 4)) for _, a, b in plane.points}
    assert all(move.before in at for move in plane.moves)


def test_large_photographs_become_small_pictures(tmp_path: Path) -> None:
    run, stores = make_run(tmp_path, "at", mode="RGB", side=120)
    examples = examples_of(run, stores, side=120)
    assert examples.kind == "jpeg"
    picture = Image.open(io.BytesIO(base64.b64decode(examples.queries[0].attack.picture)))  # type: ignore[union-attr]
    assert (picture.format, picture.size) == ("JPEG", (80, 80))
    assert run.examples.stat().st_size < 2 * 2**20


def test_a_run_without_an_attack_to_show_has_clean_examples(tmp_path: Path) -> None:
    run, stores = make_run(tmp_path, "at")
    write_run_examples(run, "clean", {}, stores, crop(8, 8), 0)
    examples = read_examples(run.examples)
    assert examples.input_set is None and examples.plane is None
    assert len(examples.queries) == QUERIES
    assert all(query.attack is None and query.clean.neighbours for query in examples.queries)


@pytest.mark.parametrize(
    ("largest", "factor"), [(0.05, 10), (0.1, 5), (12.75 / 255, 10), (0.6, 1), (0.0, 1000)]
)
def test_changes_are_amplified_as_far_as_they_fit(largest: float, factor: int) -> None:
    assert amplification(np.array([0.0, -largest], dtype=np.float32)) == factor


def test_pictures_of_a_set_come_in_the_order_asked_for(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, "at")
    images = read_pictures(run.adversarial("clean", "worst"), np.array([14, 0]))
    assert images.shape == (2, 1, 8, 8)
    swapped = read_pictures(run.adversarial("clean", "worst"), np.array([0, 14]))
    assert np.array_equal(images, swapped[::-1])
