from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.data.readers import published
from mdprop.data.readers.cars196 import CARS196
from mdprop.data.readers.cub200 import CUB200
from mdprop.data.readers.download import Archive
from mdprop.data.readers.grocery import GROCERY
from mdprop.data.readers.inshop import INSHOP
from mdprop.data.readers.published import Published
from mdprop.data.readers.sop import SOP
from mdprop.errors import DataError
from tests.data.readers.blocks import splits_of
from tests.data.readers.trees import cub200


@pytest.mark.parametrize(
    ("reader", "known"),
    [("cub200", CUB200), ("cars196", CARS196), ("sop", SOP), ("inshop", INSHOP), ("grocery", GROCERY)],
)
@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_root_says_where_to_get_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, known: Published, exists: bool
) -> None:
    def obtain(archive: Archive, into: Path) -> None:
        raise DataError(f"{archive.url} did not answer: try later")

    monkeypatch.setattr(published, "obtain", obtain)
    if exists:
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / ".gitkeep").touch()
    with pytest.raises(DataError) as caught:
        splits_of(reader, tmp_path / "raw", "datasets.d")
    text = str(caught.value)
    assert text.startswith(f"datasets.d.root = {tmp_path}/raw is missing or empty")
    assert f"get it {known.source}, and put there {known.layout}" in text
    assert ("did not answer" in text) == (known.archive is not None)


def test_what_is_served_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def obtain(archive: Archive, into: Path) -> None:
        calls.append((archive, into))
        cub200(into / "CUB_200_2011", [2, 2, 2, 2])

    monkeypatch.setattr(published, "obtain", obtain)
    root = tmp_path / "raw" / "birds"
    for _ in range(2):
        splits = splits_of("cub200", root)
        assert [len(splits[split]) for split in ("train", "test")] == [2, 2]
    assert calls == [(CUB200.archive, root)]


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"^datasets\.d\.root = \S+ is no folder: put images there as CUB_200"
    ):
        splits_of("cub200", tmp_path / "file", "datasets.d")


def test_other_counts(tmp_path: Path) -> None:
    cub200(tmp_path, [2, 3, 2, 2])
    with pytest.raises(
        DataError,
        match=rf"^CUB-200-2011 at {tmp_path} has 5 images of 2 classes for train, published are 5,864 of "
        r"100; it was probably not extracted completely: complete it, or .* datasets\.d\.check_counts=false$",
    ):
        splits_of("cub200", tmp_path, "datasets.d", check_counts=True)
    assert len(splits_of("cub200", tmp_path, check_counts=False)["train"]) == 2
