from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from mdprop.config import Params, load_params
from mdprop.data.images import encode
from mdprop.data.stores.images import Row, write_store
from mdprop.errors import ParameterError
from mdprop.losses import build_loss
from mdprop.models import build_model
from mdprop.preflight import network as network_checks
from mdprop.preflight import preflight

PARAMS = Path(__file__).parents[2] / "params.yaml"
GREY = encode(Image.new("L", (32, 32), 100), "PPM")


@pytest.fixture(scope="module")
def defaults() -> Params:
    return load_params(PARAMS)


def changed(params: Params, **values: Any) -> Params:
    """The parameters with other values, as they would be loaded."""
    sections: dict[str, Any] = params.model_dump(exclude_unset=True)
    for key, value in values.items():
        section, _, name = key.partition("__")
        sections[section][name] = value
    return Params.model_validate(sections)


def prepared(folder: Path, train: list[int], test: list[int]) -> Path:
    """Stores with so many images of each class."""
    for split, sizes in (("train", train), ("test", test)):
        labels = [label for label, size in enumerate(sizes) for _ in range(size)]
        rows = [Row(GREY, label, str(label), f"{i}", i) for i, label in enumerate(labels)]
        write_store(folder / f"{split}.arrow", rows, "L")
    return folder


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("prepared"), [4] * 40, [20] * 40)


def test_the_default_passes(defaults: Params, usual: Path) -> None:
    assert all("alone in their class" in note for note in preflight(defaults, usual))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train__batch_size": 128}, "train.batch_size = 128 with train.images_per_class = 2 needs 64 classes"),
    (
        {"train__batch_size": 64, "train__images_per_class": 8},
        "train.images_per_class = 8: 40 of 40 training classes have fewer images; from 2 to 4 is needed",
    ),
    (
        {"adversary__sets": {"many": {"goal": "multi_target", "epsilon": 0.1, "targets": 781}}},
        "adversary.sets.many.targets = 781: the test data offer 780 images of other classes; from 1 to 780",
    ),
    ({"model__backbone": "conv5"}, "model.backbone: unknown backbone 'conv5'"),
    ({"model__weights": "none.pth"}, "model.weights: no file"),
    ({"model__weights": "~nouser/x.pth"}, "model.weights = '~nouser/x.pth': no home of ~nouser is known"),
    ({"loss__name": "triplett"}, "loss.name: unknown loss 'triplett'"),
    ({"loss__options": {"margn": 1}}, "loss.options: multi_similarity has no option 'margn'"),
    (
        {"model__backbone": "timm:visformer_tiny"},
        "model.backbone = 'timm:visformer_tiny': cannot embed image_size 28 (Input height (14) doesn't match "
        "model (112).); choose another backbone, or another image_size; it was made for 224",
    ),
    (
        {"model__backbone": "timm:levit_128s"},
        "model.backbone = 'timm:levit_128s': cannot embed image_size 28",
    ),
    ({"model__backbone": "timm:vit_tiny_patch16_224"}, "has no batch norm to convert; choose one with batch"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[f"{v}" for v, _ in REFUSED])
def test_what_cannot_work_is_refused(
    defaults: Params, usual: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=rf"^params\.yaml: .*{re.escape(message)}") as caught:
        preflight(changed(defaults, **values), usual)
    assert "\n" not in str(caught.value)


def test_all_problems_at_once(defaults: Params, usual: Path) -> None:
    values = {"train__batch_size": 128, "model__backbone": "conv5"}
    with pytest.raises(ParameterError, match=r"^params\.yaml has 2 problems:\ntrain\.batch_size.*\nmodel\.b"):
        preflight(changed(defaults, **values), usual)


def test_a_few_small_classes_are_said_and_none_where_repeating_is_the_rule(
    defaults: Params, tmp_path: Path
) -> None:
    data = prepared(tmp_path, [2] * 10 + [4] * 30, [20] * 40)
    params = changed(defaults, train__images_per_class=4)
    (note,) = [note for note in preflight(params, data) if "train." in note]
    assert note == (
        "train.images_per_class = 4: 10 of 40 training classes have fewer images, and repeat some in a batch"
    )
    params = changed(defaults, train__images_per_class=4, train__class_replacement=True)
    assert not [note for note in preflight(params, data) if "train." in note]


def test_queries_without_a_partner_are_said_and_refused_where_classes_are_asked_for(
    defaults: Params, tmp_path: Path
) -> None:
    data = prepared(tmp_path, [4] * 40, [3] * 400)
    params = changed(defaults, adversary__queries=10)
    (note,) = preflight(params, data)
    assert note.startswith("adversary.queries = 10: fewer than two classes have two images among them, so")
    assert preflight(changed(defaults, adversary__queries=10, adversary__draw="classes"), data) == []
    (tmp_path / "other").mkdir()
    alone = prepared(tmp_path / "other", [4] * 40, [30, 30])
    with pytest.raises(ParameterError, match=r"as adversary\.draw = classes asks for; raise queries"):
        preflight(changed(defaults, adversary__queries=10, adversary__draw="classes"), alone)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(defaults: Params, usual: Path, tmp_path: Path, value: float) -> None:
    state = build_model("conv4", 128, mean=(0.5,), std=(0.25,)).network.state_dict()
    state["blocks.1.conv.weight"][0, 0, 0] = value
    torch.save(state, tmp_path / "broken.pth")
    params = changed(defaults, model__weights=str(tmp_path / "broken.pth"))
    with pytest.raises(ParameterError, match=r"broken\.pth.*finite"):
        preflight(params, usual)


class Odd(nn.Module):
    """A network with a fault of choice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.scale = how, nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> Any:
        y = (self.scale * x).flatten(1)[:, :128]
        if self.how == "tuple":
            return y, y
        if self.how == "shape":
            return y[:, :5]
        if self.how == "train" and self.training:
            raise RuntimeError("not in\ntrain mode")
        if self.how == "nan":
            return y / 0 * 0
        return y


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("tuple", "'tuple' object has no attribute"),
        ("shape", r"4 images become \[4, 5\]"),
        ("train", "not in train mode"),
        ("nan", "embeddings are not finite"),
    ],
)
def test_other_faults_of_a_network(
    defaults: Params, usual: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    embedder = build_model("conv4", 128, mean=(0.5,), std=(0.25,))
    fc = embedder.network.fc
    embedder.network = Odd(how)
    embedder.network.fc = fc
    monkeypatch.setattr(network_checks, "chosen_network", lambda *_: embedder)
    params = changed(defaults, methods__single_target=[], methods__multi_target=[])
    with pytest.raises(ParameterError, match=rf"^params\.yaml: model\.backbone = 'conv4': .*\({message}"):
        preflight(params, usual)


def test_a_batch_that_the_machine_cannot_hold(
    defaults: Params, usual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_checks, "machine_memory", lambda: 2**24)
    with pytest.raises(
        ParameterError, match=r"train\.batch_size = 64: a step keeps 0 GiB and there are 0; less"
    ):
        preflight(defaults, usual)


def test_what_a_step_keeps_is_counted_once(defaults: Params) -> None:
    embedder = build_model("conv4", 128, mean=(0.5,), std=(0.25,))
    loss = build_loss("contrastive", embedding_dim=128, num_classes=2, feature_dim=128)
    kept = [
        network_checks._try_step(embedder, loss, torch.rand(rows, 1, 28, 28), ("clean",), defaults.train)
        for rows in (4, 4)
    ]
    first_maps = 4 * 4 * (32 * 28**2 + 64 * 14**2)  # float32, what two of the batch norms take
    assert kept[0] == kept[1] > first_maps
