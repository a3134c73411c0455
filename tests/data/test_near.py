from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mdprop.data.near import near_duplicates
from mdprop.data.prepare import prepare
from mdprop.errors import DataError, ParameterError
from tests.data.readers.blocks import settings

MakeClasses = Callable[..., None]


def photo(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


@pytest.fixture(params=["L", "RGB"])
def prepared(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Classes a to d of three images; b/0 is a/0 as a small JPEG, d/0 is a/1 a little brighter."""
    for number, name in enumerate("abcd"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for index in range(3):
            photo(10 * number + index).save(tmp_path / "raw" / name / f"{index}.png")
    (tmp_path / "raw" / "b" / "0.png").unlink()
    photo(0).resize((40, 30)).save(tmp_path / "raw" / "b" / "0.jpg", quality=60)
    ImageEnhance.Brightness(photo(1)).enhance(1.1).save(tmp_path / "raw" / "d" / "0.png")
    prepare("x", settings("folder", tmp_path / "raw", mode=request.param, resize=30), tmp_path / "out")
    return tmp_path / "out"


def test_what_looks_alike_is_found(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imagehash")
    pairs = near_duplicates(prepared, 4)
    assert [(pair.first, pair.second, pair.is_across) for pair in pairs] == [
        (("train", "a/1.png"), ("test", "d/0.png"), True),
        (("train", "a/0.png"), ("train", "b/0.jpg"), False),
    ]
    assert all(0 <= pair.distance <= 4 for pair in pairs)
    monkeypatch.setattr("mdprop.data.near._ROWS", 1)
    assert near_duplicates(prepared, 4) == pairs


def test_pairs_against_a_plain_search(prepared: Path) -> None:
    imagehash = pytest.importorskip("imagehash")
    from mdprop.data.stores.images import ImageStore

    stores = {split: ImageStore(prepared / f"{split}.arrow") for split in ("train", "val", "test")}
    hashes = {
        (split, store.path(row)): imagehash.phash(
            Image.fromarray(store.image(row).permute(1, 2, 0).numpy().squeeze())
        )
        for split, store in stores.items()
        for row in range(len(store))
    }
    names = list(hashes)
    expected = {
        (one, other, hashes[one] - hashes[other])
        for at, one in enumerate(names)
        for other in names[at + 1 :]
        if hashes[one] - hashes[other] <= 16
    }
    assert set(near_duplicates(prepared, 16)) == expected


@pytest.mark.parametrize("distance", [-1, 17])
def test_a_distance_out_of_range(tmp_path: Path, distance: int) -> None:
    with pytest.raises(ParameterError, match=rf"^distance {distance}: a whole number of bits from 0 to 16"):
        near_duplicates(tmp_path, distance)


def test_another_folder(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError, match=f"^{folder} is no prepared data set: give a folder such as"):
            near_duplicates(folder, 4)


def test_without_the_package(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    with pytest.raises(ParameterError, match=r"^near-duplicates need the package imagehash: pip install"):
        near_duplicates(prepared, 4)
