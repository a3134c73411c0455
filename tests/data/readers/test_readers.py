from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from mdprop.data.prepare import prepare
from mdprop.data.readers import READERS, DatasetSettings, read_classes, settings_class
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.stores.images import ImageStore
from mdprop.errors import DataError, ParameterError
from tests.data.readers.blocks import IMAGES, block
from tests.helpers import PROJECT

TOY = '''
from typing import Literal

from PIL import Image

from mdprop.data.readers.entries import Entry, by_class
from mdprop.data.readers.settings import ImageSettings
from mdprop.errors import DataError


class Settings(ImageSettings):
    reader: Literal["shades"]
    levels: int


def read(settings, key):
    """A class a level of grey; two images each."""
    if settings.levels < 4:
        raise DataError(f"{key}.levels = {settings.levels}: 4 or more are needed")
    names = [f"{level:03}" for level in range(settings.levels)]
    train, test = names[: len(names) // 2], names[len(names) // 2 :]
    return {
        split: by_class(Entry(name, f"{name}/{index}", _shade) for name in found for index in (0, 1))
        for split, found in {"train": train, "test": test}.items()
    }


def _shade(name):
    return Image.new("L", (8, 8), int(name.split("/")[0]))
'''


class Blocks(BaseModel):
    datasets: dict[str, DatasetSettings]


def problems(changed: object) -> list[tuple[tuple[int | str, ...], str, str]]:
    with pytest.raises(ValidationError) as caught:
        Blocks.model_validate({"datasets": {"x": changed}})
    return [(error["loc"], error["type"], error["msg"]) for error in caught.value.errors()]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A block of a data set that was not known before."""
    (tmp_path / "shades.py").write_text(TOY)
    spec = importlib.util.spec_from_file_location("shades", tmp_path / "shades.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(READERS, "shades", module)
    return {"reader": "shades", "levels": 6, **IMAGES}


def test_a_new_data_set_is_a_module_and_a_line(tmp_path: Path, toy: dict[str, object]) -> None:
    settings = Blocks.model_validate({"datasets": {"mine": toy}}).datasets["mine"]
    manifest = prepare("mine", settings, tmp_path / "out", validation_classes=1)
    assert manifest["settings"] == {
        "reader": "shades",
        "levels": 6,
        "mode": "L",
        "resize": 6,
        "encoding": "compressed",
        "validation_classes": 1,
        "evaluate": "test",
        "train_fraction": 1.0,
        "fraction_of": "images",
    }
    store = ImageStore(tmp_path / "out" / "test.arrow")
    assert store.class_names == {3: "003", 4: "004", 5: "005"}
    assert np.asarray(store.image(2)).tolist() == np.full((1, 6, 6), 4).tolist()


def test_its_reader_is_given_the_place_of_its_settings(tmp_path: Path, toy: dict[str, object]) -> None:
    settings = Blocks.model_validate({"datasets": {"mine": {**toy, "levels": 3}}}).datasets["mine"]
    with pytest.raises(DataError, match=r"^datasets\.mine\.levels = 3: 4 or more are needed$"):
        prepare("mine", settings, tmp_path / "out")


def test_its_keys_are_checked(toy: dict[str, object]) -> None:
    assert [place[:2] for place in problems({**toy, "levels": "six"})] == [
        (("datasets", "x", "levels"), "int_type")
    ]


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_is_registered_by_its_name(reader: str) -> None:
    settings = READERS[reader].Settings
    assert get_args(settings.model_fields["reader"].annotation) == (reader,)
    assert settings_class({"reader": reader}) is settings


def test_the_blocks_of_params_yaml() -> None:
    plain = YAML(typ="safe").load((PROJECT / "params.yaml").read_text())["datasets"]
    blocks = Blocks.model_validate({"datasets": plain})
    assert {name: type(found) for name, found in blocks.datasets.items()} == {
        name: READERS[found["reader"]].Settings for name, found in plain.items()
    }
    assert {found["reader"] for found in plain.values()} == set(READERS)
    for dumped in (blocks.model_dump(mode="json"), blocks.model_dump(mode="json", exclude_unset=True)):
        assert dumped["datasets"] == plain


def test_settings_stay_as_they_are(tmp_path: Path) -> None:
    made = settings_class({"reader": "folder"}).model_validate(block("folder", tmp_path))
    assert Blocks(datasets={"x": made}).datasets["x"] is made


@pytest.mark.parametrize(
    ("changes", "place", "kind", "message"),
    [
        ({"rooot": "x"}, "rooot", "extra_forbidden", "Extra inputs are not permitted"),
        ({"check_counts": True}, "check_counts", "extra_forbidden", "Extra inputs are not permitted"),
        ({"reader": None}, "reader", "string_type", "Input should be a valid string"),
        (
            {"reader": "zip"},
            "reader",
            "value_error",
            f"Value error, no such reader; known are {', '.join(READERS)}",
        ),
        ({"flip": "yes"}, "flip", "bool_type", "Input should be a valid boolean"),
        (
            {"image_size": 7},
            None,
            "value_error",
            "Value error, image_size: at most resize, 6, is needed: lower it, or raise resize",
        ),
    ],
)
def test_what_is_wrong_with_a_block(
    tmp_path: Path, changes: dict[str, Any], place: str | None, kind: str, message: str
) -> None:
    loc = ("datasets", "x", place) if place else ("datasets", "x")
    assert problems({**block("folder", tmp_path), **changes}) == [(loc, kind, message)]


def test_a_block_without_a_reader(tmp_path: Path) -> None:
    nameless = {key: value for key, value in block("folder", tmp_path).items() if key != "reader"}
    assert problems(nameless) == [(("datasets", "x", "reader"), "missing", "Field required")]
    assert [found[:2] for found in problems("glyphs")] == [(("datasets", "x"), "model_type")]


def test_settings_are_frozen(tmp_path: Path) -> None:
    made: ImageSettings = settings_class({"reader": "folder"}).model_validate(block("folder", tmp_path))
    with pytest.raises(ValidationError, match="frozen"):
        made.resize = 3


def test_loading_parameters_imports_nothing_heavy() -> None:
    heavy = {"torch", "torchvision", "scipy", "matplotlib", "fontTools", "pyarrow"}
    code = f"import sys, mdprop.data.readers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("reader", ["folder", "omniglot", "cub200", "cars196", "sop", "inshop"])
def test_the_home_of_nobody_is_one_line(reader: str) -> None:
    values = {**block(reader, Path("x")), "root": "~nouser/x"}
    settings = settings_class({"reader": reader}).model_validate(values)
    with pytest.raises(
        ParameterError, match=r"^datasets\.x\.root = '~nouser/x': no home of ~nouser is known"
    ):
        read_classes(settings, "datasets.x")


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_class({"reader": "folder"}).model_validate(block("folder", tmp_path))

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(tmp_path / "train"))

    monkeypatch.setattr(READERS["folder"], "read", refuse)
    with pytest.raises(
        DataError, match=r"/train cannot be read \(Permission denied\): mend its permissions, or"
    ):
        read_classes(settings, "datasets.x")
