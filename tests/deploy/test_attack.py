"""One image towards another: the numbers are of the file that was saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdprop.cli import main
from mdprop.data.images import open_image
from mdprop.data.readers.entries import Entry
from mdprop.deploy import Trained, attack_image
from mdprop.errors import DataError, ParameterError
from mdprop.models import load_model
from tests.deploy.conftest import draw, save_trained


def embedding(folder: Path, pixels: Any) -> torch.Tensor:
    with torch.no_grad():
        (found,) = load_model(folder, branch="clean")(pixels[None] / 255)
    return found


def pixels(folder: Path, file: Path) -> torch.Tensor:
    return Trained.at(folder).preprocessing.pixels(Entry("", str(file), open_image))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    files = tmp_path / "image.jpg", tmp_path / "target.png"
    draw(1, (61, 43), 1).save(files[0], quality=92)
    draw(2, (37, 50), 2).save(files[1])
    return files


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("encoding", ["raw", "compressed"])
@pytest.mark.parametrize(("epsilon", "reach"), [("4/255", 4), (8 / 255, 8), ("0.03", 7), ("1/255", 1)])
def test_the_numbers_are_those_of_the_file_read_again(
    tmp_path: Path, pair: tuple[Path, Path], mode: str, encoding: str, epsilon: Any, reach: int
) -> None:
    folder = save_trained(tmp_path / "run", mode=mode, encoding=encoding)
    image, target = pair
    out = tmp_path / "new" / "attacked.png"
    moved = attack_image(Trained.at(folder), image, target, out, epsilon=epsilon, steps=10)
    saved = Image.open(out)
    assert (saved.format, saved.mode, min(saved.size)) == ("PNG", mode, 32)
    assert moved.size == saved.size[::-1]
    attacked, clean, aim = (pixels(folder, file) for file in (out, image, target))
    assert moved.levels == (attacked.int() - clean.int()).abs().max() == reach
    aim_embedding = embedding(folder, aim)
    for found, distance, cosine in (
        (clean, moved.distance_before, moved.cosine_before),
        (attacked, moved.distance_saved, moved.cosine_saved),
    ):
        assert (embedding(folder, found) - aim_embedding).norm() == pytest.approx(distance, abs=1e-5)
        assert (embedding(folder, found) @ aim_embedding) == pytest.approx(cosine, abs=1e-5)
    assert moved.distance_saved < moved.distance_before
    assert moved.distance_unrounded < moved.distance_before
    assert 0 < moved.changed <= 1


def test_around_the_centre_the_image_stays_as_it_is_prepared(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    folder, out = save_trained(tmp_path / "run"), tmp_path / "out.png"
    attack_image(Trained.at(folder), *pair, out, epsilon="8/255", steps=3)
    stored = Trained.at(folder).preprocessing.stored(Entry("", str(pair[0]), open_image))
    moved = np.asarray(Image.open(out)).transpose(2, 0, 1) != stored.numpy()
    rows, columns = (np.flatnonzero(moved.any(axis=(0, axis))) for axis in (2, 1))
    width = stored.shape[2]
    assert rows.min() >= 2 and rows.max() < 30
    assert columns.min() >= round((width - 28) / 2) and columns.max() < round((width - 28) / 2) + 28
    assert len(rows) == 28 and len(columns) == 28


def test_more_epsilon_and_more_steps_come_nearer(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    trained = Trained.at(save_trained(tmp_path / "run"))

    def reached(epsilon: str, steps: int) -> float:
        return attack_image(trained, *pair, tmp_path / "out.png", epsilon=epsilon, steps=steps).distance_saved

    assert reached("16/255", 20) < reached("4/255", 20) < reached("1/255", 20)
    assert reached("8/255", 30) < reached("8/255", 1)


def test_the_branch_that_answers_is_attacked(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    folder = save_trained(tmp_path / "run")
    found = [
        attack_image(Trained.at(folder, branch), *pair, tmp_path / "out.png", epsilon="4/255", steps=2)
        for branch in ("clean", "multi_target", "clean+50%multi_target")
    ]
    assert len({moved.distance_before for moved in found}) == 3


@pytest.mark.parametrize(
    ("epsilon", "steps", "message"),
    [
        ("foo", 5, r"^--epsilon foo: a number from 0 to 10000, such as 4/255, is needed$"),
        ("-1", 5, r"^--epsilon -1: a number from 0"),
        ("0.003", 5, r"^--epsilon 0\.003: 1/255 or more is needed, as a PNG has no finer levels$"),
        ("0", 5, r"^--epsilon 0: 1/255 or more is needed"),
        ("2", 5, r"^--epsilon 2: a number from 0 to 1 is needed, in pixels"),
        ("4/255", 0, r"^--steps 0: a whole number from 1 to 10000 is needed$"),
    ],
)
def test_numbers_that_are_not_allowed(
    trained: Path, tmp_path: Path, pair: tuple[Path, Path], epsilon: str, steps: int, message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        attack_image(Trained.at(trained), *pair, tmp_path / "out.png", epsilon=epsilon, steps=steps)
    assert not (tmp_path / "out.png").exists()


def test_files_that_are_not_allowed(trained: Path, tmp_path: Path, pair: tuple[Path, Path]) -> None:
    image, target = pair
    model = Trained.at(trained)
    with pytest.raises(
        ParameterError, match=r"^--out .*out\.jpg: a \.png file is needed, which keeps every pixel$"
    ):
        attack_image(model, image, target, tmp_path / "out.jpg", epsilon="4/255", steps=2)
    before = target.read_bytes()
    with pytest.raises(ParameterError, match=r"target\.png is an image that is read: give another name$"):
        attack_image(model, image, target, target, epsilon="4/255", steps=2)
    assert target.read_bytes() == before
    with pytest.raises(DataError, match=r"^image .*gone\.jpg does not exist: give the path of an image$"):
        attack_image(model, tmp_path / "gone.jpg", target, tmp_path / "out.png", epsilon="4/255", steps=2)
    (tmp_path / "broken.jpg").write_bytes(image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.jpg is corrupt or truncated"):
        attack_image(model, image, tmp_path / "broken.jpg", tmp_path / "out.png", epsilon="4/255", steps=2)


def test_the_command_says_how_far_the_image_came(
    trained: Path,
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "attack",
        str(trained),
        *map(str, pair),
        "--epsilon",
        "4/255",
        "--steps",
        "5",
        "--out",
        "out.png",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mdprop", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    moved = attack_image(Trained.at(trained), *pair, tmp_path / "again.png", epsilon="4/255", steps=5)
    assert capsys.readouterr().out == f"{moved}\nwrote out.png\n"
    assert f"{moved.distance_before:.4f} before, {moved.distance_saved:.4f} after" in str(moved)
    assert "0.01569 = 4/255 (allowed 0.01569 = 4/255)" in str(moved)
    assert Path("out.png").read_bytes() == Path("again.png").read_bytes()
