"""`mdprop.evaluate` on ordinary loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mdprop
from mdprop.attacks import Threat
from mdprop.errors import DataError, MDPropError, ModelError, ParameterError
from mdprop.library.loaders import HeldImages
from tests.helpers import small_embedder
from tests.library.pictures import pictures

IMAGES, LABELS = pictures(30)
LOADER = DataLoader(TensorDataset(IMAGES, LABELS), 8, shuffle=True)
WEAK = {"near": Threat(goal="single_target", epsilon=0.05, steps=2)}


def test_plain_results() -> None:
    model = mdprop.fit(small_embedder(), LOADER, epochs=4)
    found = mdprop.evaluate(model, LOADER, queries=12, ks=(1, 4), epsilon=0.1)
    assert list(found.recall) == [1, 4]
    assert list(found.attacked) == ["single_target", "multi_target", "untargeted"]
    assert found.queries == 12
    assert found.worst_case is not None
    assert found.worst_case <= min(found.attacked.values()) <= found.recall[1] <= found.recall[4] <= 1
    lines = str(found).splitlines()
    assert lines[0] == f"Recall@1               {found.recall[1]:7.1%}"
    assert sum("worst case" in line for line in lines) == 1


def test_clean_recall_is_that_of_the_embeddings_whatever_the_order() -> None:
    model = small_embedder().eval()
    with torch.no_grad():
        expected = mdprop.recall_at_k(model(IMAGES), LABELS, [1, 2])
    for loader in (LOADER, [(IMAGES, LABELS)], [(IMAGES, LABELS.tolist())]):
        found = mdprop.evaluate(model, loader, attacks=WEAK, queries=0, ks=(1, 2))
        assert found.recall == pytest.approx(expected)


def test_queries_that_cannot_be_right() -> None:
    model = small_embedder().eval()
    first = [int((label == LABELS).nonzero()[0]) for label in LABELS.unique()]
    one_a_class = [(IMAGES[first], LABELS[first])]
    for loaders in ((one_a_class,), (one_a_class, one_a_class), (one_a_class, [(IMAGES, LABELS + 1000)])):
        with pytest.raises(DataError, match=r"^no query has another image of its class in the gallery"):
            mdprop.evaluate(model, *loaders, attacks=WEAK)
    labels = LABELS.clone()
    labels[0] = 1000
    found = mdprop.evaluate(model, [(IMAGES, labels)], attacks=WEAK, queries=0)
    assert found.warnings[-1].startswith("1 queries have no other image of their class in the gallery")
    assert "have no other image" not in str(mdprop.evaluate(model, LOADER, attacks=WEAK, queries=0))


def test_a_query_does_not_find_its_own_image_in_the_gallery() -> None:
    """An attack of no size: the attacked query is its own image, which must not be what it finds."""
    none = {"nothing": Threat(goal="single_target", epsilon=0.0, steps=1)}
    model = small_embedder().eval()
    queries = [(IMAGES[:10], LABELS[:10])]
    with torch.no_grad():
        points = model(IMAGES)
    ids = torch.arange(30)
    expected = mdprop.recall_at_k(
        points[:10], LABELS[:10], [1], gallery=points, gallery_labels=LABELS, ids=ids[:10], gallery_ids=ids
    )[1]
    assert expected < 1
    found = mdprop.evaluate(model, queries, LOADER, attacks=none, queries=0)
    assert found.recall[1] == pytest.approx(expected)
    assert found.attacked["nothing"] == pytest.approx(expected)


def test_a_gallery_of_its_own() -> None:
    model = small_embedder().eval()
    with torch.no_grad():
        points = model(IMAGES)
    expected = mdprop.recall_at_k(
        points[:10], LABELS[:10], [1], gallery=points[10:], gallery_labels=LABELS[10:], disjoint=True
    )
    gallery = [(IMAGES[10:], LABELS[10:])]
    found = mdprop.evaluate(model, [(IMAGES[:10], LABELS[:10])], gallery, attacks=WEAK, queries=0, ks=[1])
    assert found.recall == pytest.approx(expected)


def test_one_of_ours_is_left_as_it_is() -> None:
    model = small_embedder(("clean", "other")).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = [mdprop.evaluate(model, LOADER, attacks=WEAK, queries=10, branch=b) for b in ("clean", "other")]
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert found[0].metrics["near"] != found[1].metrics["near"]
    assert found[1].metrics.keys() == found[0].metrics.keys()


def test_any_module_and_any_attack() -> None:
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    attacks = {
        "away": Threat(goal="untargeted", epsilon=0.1, steps=2),
        "help": Threat(goal="unadversarial", epsilon=0.1),
    }
    found = mdprop.evaluate(network, LOADER, attacks=attacks, queries=10)
    assert list(found.attacked) == ["away", "help"]
    assert found.worst_case == found.attacked["away"] < found.attacked["help"]
    alone = mdprop.evaluate(network, LOADER, attacks={"help": attacks["help"]}, queries=10)
    assert alone.worst_case is None
    assert "worst case" not in str(alone)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"model": "conv4"}, ModelError, "the model is a str: a torch module"),
        ({"model": small_embedder(channels=3)}, ModelError, "is for 3 channels"),
        ({"model": nn.Identity()}, ModelError, r"returns \[.*, 1, 16, 16\] for images"),
        ({"branch": "other"}, ModelError, "^the network: .*'other'"),
        ({"loader": []}, DataError, "the loader gives no batch"),
        (
            {"loader": [(IMAGES, LABELS), (IMAGES[..., 1:], LABELS)]},
            DataError,
            "1 x 16 x 16 and of 1 x 16 x 15",
        ),
        ({"attacks": {}}, ParameterError, "name at least one set"),
        (
            {"attacks": {"a": Threat(goal="single_target", epsilon=0.1, branch="all")}},
            ParameterError,
            "attacks: a",
        ),
        ({"epsilon": -1}, ParameterError, "^epsilon = -1"),
        ({"queries": 3}, ParameterError, "^queries = 3"),
        ({"ks": (2,)}, ParameterError, "^ks .*must hold 1"),
    ],
)
def test_what_evaluate_refuses(given: dict[str, Any], kind: type[MDPropError], message: str) -> None:
    arguments: dict[str, Any] = {"model": small_embedder(), "loader": LOADER, "attacks": WEAK, **given}
    if "epsilon" in given:
        del arguments["attacks"]
    with pytest.raises(kind, match=message) as caught:
        mdprop.evaluate(arguments.pop("model"), arguments.pop("loader"), **arguments)
    assert "\n" not in str(caught.value)


def test_ids_of_held_images(tmp_path: Path) -> None:
    a, b, c = (torch.full((1, 4, 4), value) for value in (0.1, 0.2, 0.3))
    queries = HeldImages([(torch.stack([a, b, a]), [1, 2, 1])], tmp_path / "queries")
    gallery = HeldImages([(torch.stack([b, c]), [2, 3]), (a[None], [1])], tmp_path / "gallery", queries)
    assert queries.ids.tolist() == [0, 1, 2]
    assert gallery.ids.tolist() == [1, 4, 0]
    assert torch.equal(gallery.image(1), c)
