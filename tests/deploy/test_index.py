"""An index of a folder, and search in it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from PIL import Image

from mdprop.cli import main
from mdprop.data.images import open_image
from mdprop.data.readers.entries import Entry
from mdprop.deploy import ImageIndex, Trained, build_index, search
from mdprop.deploy import index as index_module
from mdprop.deploy.grid import grid
from mdprop.errors import DataError, DiskError, MDPropError, ModelError, ParameterError, ResultError
from mdprop.models import load_model
from tests.deploy.conftest import draw, draw_folder, save_trained


@pytest.fixture(scope="module")
def made(trained: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageIndex:
    out = tmp_path_factory.mktemp("index") / "photos.index"
    assert build_index(Trained.at(trained), photos, out) == []
    return ImageIndex.read(out)


def copied(made: ImageIndex, folder: Path) -> Path:
    return Path(shutil.copytree(made.folder, folder))


# --- what is written ---


def test_an_index_has_the_names_and_the_embeddings_of_the_pipeline(
    made: ImageIndex, trained: Path, photos: Path
) -> None:
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    assert made.names == files
    vectors = faiss.read_index(str(made.folder / "vectors.faiss")).reconstruct_n(0, len(files))
    assert np.array_equal(made.vectors, vectors)
    model, how = load_model(trained, branch="clean"), Trained.at(trained).preprocessing
    images = torch.stack([how.pixels(Entry("", str(photos / name), open_image)) for name in files])
    with torch.no_grad():
        assert np.allclose(vectors, model(images / 255), atol=1e-6)
    record = json.loads((made.folder / "index.json").read_text())
    assert record["model"]["branch"] == "clean"
    assert record["preprocessing"] == {
        "mode": "RGB",
        "resize": 32,
        "image_size": 28,
        "encoding": "compressed",
    }
    assert sorted(path.name for path in made.folder.iterdir()) == ["index.json", "vectors.faiss"]


def test_images_at_the_top_and_deep_below_are_indexed_and_litter_is_not(
    trained: Path, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    for name in ("b.PNG", "a/b/c.jpg", "é ü.png", ".hidden.png", "@eaDir/x.png", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".txt"):
            (root / name).write_text("no image")
        else:
            draw(len(name)).save(root / name)
    build_index(Trained.at(trained), root, tmp_path / "index")
    assert ImageIndex.read(tmp_path / "index").names == ["a/b/c.jpg", "b.PNG", "é ü.png"]


def test_a_new_index_replaces_the_earlier_one_and_nothing_else(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    build_index(Trained.at(trained), photos, out)
    build_index(Trained.at(trained, "multi_target"), photos / "kind1", out)
    assert ImageIndex.read(out).maker["branch"] == "multi_target"
    assert len(ImageIndex.read(out)) == 4
    (out / "mine.txt").write_text("of value")
    with pytest.raises(DataError, match=rf"^{out} is no index, and would be replaced \(there is mine\.txt\)"):
        build_index(Trained.at(trained), photos, out)
    with pytest.raises(DataError, match=r"would be replaced \(there is mine\.txt\): move it away$"):
        build_index(Trained.at(trained), photos, out / "mine.txt")
    assert (out / "mine.txt").read_text() == "of value"
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_interrupted_index_leaves_the_earlier_one(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "index"
    build_index(Trained.at(trained), photos / "kind0", out)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(index_module, "write_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(Trained.at(trained), photos, out)
    assert len(ImageIndex.read(out)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_place_that_takes_nothing_shows_before_the_work(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "embed_files", lambda *_: pytest.fail("embeds first"))
    (tmp_path / "file").touch()
    with pytest.raises(MDPropError, match=r"file/index cannot be written \(File exists\): move away"):
        build_index(Trained.at(trained), photos, tmp_path / "file" / "index")


def test_a_full_disk_is_said_of_the_index_and_leaves_nothing(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"^\S+/new\.index cannot be written \(No space left on device\)"):
        build_index(Trained.at(trained), photos, tmp_path / "new.index")
    assert not list(tmp_path.iterdir())


def test_images_that_cannot_be_used(trained: Path, tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "photos", classes=1)
    (root / "kind0" / "broken.jpg").write_bytes((root / "kind0" / "0.jpg").read_bytes()[:300])
    (root / "kind0" / "empty.png").write_bytes(b"")
    message = (
        r"^2 of 6 images cannot be used: image .*broken\.jpg is corrupt .*empty\.png is an empty file: mend"
    )
    with pytest.raises(DataError, match=message):
        build_index(Trained.at(trained), root, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    left_out = build_index(Trained.at(trained), root, tmp_path / "index", skip=True)
    assert [re.search(r"\w+\.\w+", Path(text.split()[1]).name)[0] for text in left_out] == [  # type: ignore[index]
        "broken.jpg",
        "empty.png",
    ]
    index = ImageIndex.read(tmp_path / "index")
    assert len(index) == 4
    assert json.loads((index.folder / "index.json").read_text())["skipped"] == left_out
    for number in range(4):
        next((root / "kind0").glob(f"{number}.*")).unlink()
    with pytest.raises(DataError, match=r"^2 of 2 images cannot be used: .*: none is left; mend them$"):
        build_index(Trained.at(trained), root, tmp_path / "other", skip=True)


def test_folders_that_cannot_be_indexed(trained: Path, tmp_path: Path) -> None:
    model = Trained.at(trained)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, problem in (("gone", "does not exist"), ("file", "is no folder"), ("empty", "has no images")):
        with pytest.raises(DataError, match=rf"^{tmp_path / name} {problem}"):
            build_index(model, tmp_path / name, tmp_path / "index")
    (tmp_path / "empty" / "up").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"is a link to .* would be read twice; remove the link$"):
        build_index(model, tmp_path / "empty", tmp_path / "index")


# --- search ---


def test_neighbours_are_the_nearest_by_a_plain_loop(made: ImageIndex, photos: Path) -> None:
    answers = search(made, photos, 4)
    assert [answer.name for answer in answers] == made.names
    for row, answer in enumerate(answers):
        distances = {
            name: float(np.linalg.norm(vector.astype(float) - made.vectors[row]))
            for name, vector in zip(made.names, made.vectors, strict=True)
            if name != answer.name
        }
        nearest = sorted(distances, key=lambda name: distances[name])[:4]
        assert [near.name for near in answer.neighbours] == nearest
        for near in answer.neighbours:
            assert near.distance == pytest.approx(distances[near.name], abs=1e-6)
            assert near.cosine == pytest.approx(1 - near.distance**2 / 2, abs=1e-6)


def test_an_image_from_elsewhere_finds_its_copy_first(made: ImageIndex, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "kind2" / "1.png", tmp_path / "copy.png")
    (answer,) = search(made, tmp_path / "copy.png", len(made))
    assert answer.name == str(tmp_path / "copy.png")
    assert answer.neighbours[0].name == "kind2/1.png"
    assert answer.neighbours[0].distance == pytest.approx(0, abs=1e-6)
    assert len(answer.neighbours) == len(made)
    (own,) = search(made, photos / "kind2" / "1.png", len(made))
    assert {near.name for near in own.neighbours} == set(made.names) - {"kind2/1.png"}


def test_what_made_the_index_answers_alone(
    made: ImageIndex, trained: Path, photos: Path, tmp_path: Path
) -> None:
    query = photos / "kind0" / "0.jpg"
    moved = Path(shutil.copytree(trained, tmp_path / "moved"))
    assert search(made, query, 2, model=moved, branch="clean") == search(made, query, 2)
    with pytest.raises(DataError, match=r"was made with another branch, clean, where .* with multi_target: "):
        search(made, query, 2, branch="multi_target")
    with pytest.raises(
        DataError, match=r"was made with another model, \w{12}, where .*: search with its own, or "
    ):
        search(made, query, 2, model=save_trained(tmp_path / "retrained", seed=1))
    with pytest.raises(DataError, match=r"was made with another resize, 32, where .* would answer with 40: "):
        search(made, query, 2, model=save_trained(tmp_path / "larger", resize=40))
    with pytest.raises(ModelError, match=r"no batch-norm branch 'own'"):
        build_index(Trained.at(trained, "own"), photos, tmp_path / "index")


def test_what_cannot_be_searched(made: ImageIndex, photos: Path, tmp_path: Path) -> None:
    query = photos / "kind0" / "0.jpg"
    with pytest.raises(
        ParameterError, match=rf"^-k 13 is more than the 12 images of {made.folder}: lower it$"
    ):
        search(made, query, 13)
    with pytest.raises(DataError, match=r"gone\.jpg does not exist: give the path of an image$"):
        search(made, tmp_path / "gone.jpg", 2)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(
        DataError, match=r"^1 of 1 images cannot be used: image .*text\.jpg is corrupt or of no"
    ):
        search(made, tmp_path / "text.jpg", 2)
    with pytest.raises(
        DataError, match=rf"^{tmp_path} is no index, it has no index\.json: make one with mdprop"
    ):
        ImageIndex.read(tmp_path)


def test_the_model_of_an_index_that_is_gone(photos: Path, tmp_path: Path) -> None:
    model = save_trained(tmp_path / "run")
    build_index(Trained.at(model), photos, tmp_path / "index")
    shutil.rmtree(model)
    with pytest.raises(DataError, match=rf"{model}, is gone: say where it is now with --model$"):
        search(ImageIndex.read(tmp_path / "index"), photos / "kind0" / "0.jpg", 2)


@pytest.mark.parametrize("name", ["vectors.faiss", "index.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_byte_that_changed_or_is_missing(made: ImageIndex, tmp_path: Path, name: str, share: float) -> None:
    file = copied(made, tmp_path / "index") / name
    content = file.read_bytes()
    place = int(share * len(content))
    for damaged in (content[:place], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]):
        file.write_bytes(damaged)
        with pytest.raises(ResultError, match=rf"{file} .*make it again with mdprop index$") as caught:
            ImageIndex.read(file.parent)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(MDPropError, match=r"with mdprop index$"):
        ImageIndex.read(file.parent)


# --- the page ---


class Pictures(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attributes))
        self.links += [value or "" for key, value in attributes if key in ("src", "href")]


def test_the_grid_needs_no_other_file_and_every_picture_has_a_text(
    trained: Path, photos: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(photos, tmp_path / "photos"))
    odd = root / 'kind0" onerror="alert(1)' / "<b>&.png"
    odd.parent.mkdir()
    draw(5).save(odd)
    build_index(Trained.at(trained), root, tmp_path / "index")
    index = ImageIndex.read(tmp_path / "index")
    answers = search(index, root, 3)
    page = Pictures(grid(index, answers))
    assert len(page.found) == 13 * 4
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert all(set(picture) == {"src", "alt"} and picture["alt"] for picture in page.found)
    texts = [picture["alt"] for picture in page.found[:4]]
    first = answers[0]
    assert texts[0] == f"query {first.name}"
    assert texts[1:] == [
        f"neighbour {rank}: {near.name}, cosine {near.cosine:.3f}"
        for rank, near in enumerate(first.neighbours, 1)
    ]
    odd.unlink()
    assert "no longer there" in grid(index, answers)


# --- the commands ---


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["mdprop", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_the_commands_from_a_folder_to_a_page(
    trained: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run(monkeypatch, "index", trained, photos, "--out", "photos.index", "--branch", "multi_target") == 0
    )
    output = capsys.readouterr()
    assert output.out == "wrote photos.index: 12 images\n"
    assert ": 12 images in " in output.err
    assert run(monkeypatch, "search", "photos.index", photos / "kind1", "-k", "2", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"]["branch"] == "multi_target"
    assert [len(query["neighbours"]) for query in record["queries"]] == [2] * 4
    query = photos / "kind1" / "0.jpg"
    assert run(monkeypatch, "search", "photos.index", query, "-k", "2", "--html", "found/g.html") == 0
    head, columns, *lines = capsys.readouterr().out.splitlines()
    assert head == str(query)
    assert columns.split() == ["image", "cosine", "distance"]
    expected = record["queries"][0]["neighbours"]
    assert [line.split()[:2] for line in lines] == [["1", expected[0]["image"]], ["2", expected[1]["image"]]]
    assert len(Pictures(Path("found/g.html").read_text()).found) == 3
    assert run(monkeypatch, "search", "photos.index", query, "-k", "40") == 2
    assert capsys.readouterr().err == "error: -k 40 is more than the 12 images of photos.index: lower it\n"
    (tmp_path / "mixed").mkdir()
    Image.new("RGB", (40, 40)).save("mixed/a.png")
    Path("mixed/b.png").write_bytes(b"")
    assert run(monkeypatch, "index", trained, "mixed", "--out", "mixed.index", "--skip") == 0
    assert re.search(
        r"^note: left out: image .*b\.png is an empty file$", capsys.readouterr().err, re.MULTILINE
    )
