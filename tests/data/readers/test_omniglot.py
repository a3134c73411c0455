from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torchvision.datasets

from mdprop.errors import DataError
from tests.data.readers.blocks import splits_of

MakeClasses = Callable[..., None]
PARTS = {
    "images_background": ["Greek/character01", "Greek/character02", "Latin/character01"],
    "images_evaluation": ["Angelic/character01", "Angelic/character02"],
}


class FakeOmniglot:
    """Downloads as torchvision's class does: to root/omniglot-py, one part a call."""

    make: MakeClasses
    fails_on: str = ""
    calls: list[str]

    def __init__(self, root: str | Path, background: bool, download: bool) -> None:
        part = "images_background" if background else "images_evaluation"
        assert download
        self.calls.append(part)
        folder = Path(root) / "omniglot-py"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{part}.zip").write_bytes(b"half of it")
        if part == self.fails_on:
            raise URLError("Name or service not known\n(try later)")
        self.make(folder / part, PARTS[part])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, make_classes: MakeClasses) -> type[FakeOmniglot]:
    monkeypatch.setattr(FakeOmniglot, "make", staticmethod(make_classes), raising=False)
    monkeypatch.setattr(FakeOmniglot, "calls", [], raising=False)
    monkeypatch.setattr(torchvision.datasets, "Omniglot", FakeOmniglot)
    return FakeOmniglot


@pytest.mark.parametrize("below", ["", "omniglot-py"])
def test_the_layout_of_torchvision(tmp_path: Path, make_classes: MakeClasses, below: str) -> None:
    for part, classes in PARTS.items():
        make_classes(tmp_path / below / part, classes)
    splits = splits_of("omniglot", tmp_path)
    assert {split: list(classes) for split, classes in splits.items()} == {
        "train": PARTS["images_background"],
        "test": PARTS["images_evaluation"],
    }
    entry = splits["train"]["Latin/character01"][1]
    assert entry.path == str(Path(below) / "images_background/Latin/character01/1.png")
    assert entry.read().size == (8, 6)


def test_extracted_folders(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "train", ["Bengali_character01", "Bengali_character02", "Bengali_character03"])
    make_classes(tmp_path / "test", ["Tibetan_character01", "Tibetan_character02"])
    splits = splits_of("omniglot", tmp_path)
    assert {split: len(classes) for split, classes in splits.items()} == {"train": 3, "test": 2}


@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_or_empty_root_is_downloaded(
    tmp_path: Path, fake: type[FakeOmniglot], exists: bool
) -> None:
    root = tmp_path / "raw" / "omniglot"
    if exists:
        root.mkdir(parents=True)
        (root / ".gitkeep").touch()
    splits = splits_of("omniglot", root)
    assert {split: len(classes) for split, classes in splits.items()} == {"train": 3, "test": 2}
    assert splits["train"]["Greek/character01"][0].read().size == (8, 6)
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["omniglot"]
    splits_of("omniglot", root)
    assert fake.calls == ["images_background", "images_evaluation"]


@pytest.mark.parametrize("part", list(PARTS))
def test_a_failed_download_leaves_nothing(
    tmp_path: Path, fake: type[FakeOmniglot], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(fake, "fails_on", part)
    with pytest.raises(
        DataError,
        match=r"^datasets\.o\.root = \S+ is missing, and downloading Omniglot failed "
        r"\(.*not known \(try later\).*\): put there images_background/<alphabet>/",
    ):
        splits_of("omniglot", tmp_path / "omniglot", "datasets.o")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_part(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "images_background", PARTS["images_background"])
    with pytest.raises(
        DataError, match=r"images_evaluation is missing or has no alphabets: extract images_eval\S+zip"
    ):
        splits_of("omniglot", tmp_path)


def test_another_layout(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(DataError, match=f"^{tmp_path} is no Omniglot: put there images_background/"):
        splits_of("omniglot", tmp_path)
