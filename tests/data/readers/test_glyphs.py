from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from numpy.typing import NDArray

from mdprop.data.readers.entries import entries_of, make_splits
from mdprop.data.readers.glyphs import (
    LOOKALIKE,
    MIN_FACES,
    SCRIPTS,
    Settings,
    _shape,
    characters,
    draw,
    faces_of,
    read,
)
from tests.data.readers.blocks import IMAGES

SPLITS = ("train", "val", "test")
ALL = [char for split in SPLITS for _, char in characters()[split]]


def pixels(
    char: str, index: int, seed: int = 0, difficulty: float = 1.0, size: int = 24
) -> NDArray[np.uint8]:
    return np.asarray(draw(char, index, seed=seed, difficulty=difficulty, size=size))


# --- the characters ---


def test_there_are_enough_classes() -> None:
    sizes = {split: len(characters()[split]) for split in SPLITS}
    assert sum(sizes.values()) >= 200
    assert sizes["train"] >= 80
    assert min(sizes.values()) >= 30
    assert len(set(ALL)) == len(ALL)


def test_the_scripts_of_the_splits_are_disjoint() -> None:
    assert set(SCRIPTS) == set(SPLITS)
    scripts = [script for names in SCRIPTS.values() for script in names]
    assert len(set(scripts)) == len(scripts)
    for split in SPLITS:
        assert {script for script, _ in characters()[split]} == set(SCRIPTS[split])
        for script, char in characters()[split]:
            assert unicodedata.name(char).startswith(f"{script} ")
            assert not unicodedata.decomposition(char)


def test_every_character_comes_in_several_faces() -> None:
    assert all(len(faces_of(char)) >= MIN_FACES for char in ALL)


def test_no_two_characters_look_alike() -> None:
    shapes = np.stack([_shape(char) for char in ALL])
    assert np.allclose(np.linalg.norm(shapes, axis=1), 1)
    alike = shapes @ shapes.T - 2 * np.eye(len(ALL))
    assert alike.max() <= LOOKALIKE + 1e-9


@pytest.mark.parametrize("group", ["AΑА", "oοо0"])
def test_of_characters_with_one_shape_one_is_kept(group: str) -> None:
    assert sum(char in group for char in ALL) <= 1


# --- the entries ---


def test_the_entries_of_each_split() -> None:
    drawing = {"reader": "glyphs", "seed": 0, "images_per_class": 16, "difficulty": 1.0}
    splits = make_splits(read(Settings.model_validate({**IMAGES, "resize": 32, **drawing}), "datasets.g"))
    assert list(splits) == list(SPLITS)
    for split, classes in splits.items():
        assert [len(entries) for entries in classes.values()] == [16] * len(characters()[split])
        entries = list(entries_of(classes))
        assert len({entry.path for entry in entries}) == len(entries)
        scripts = {entry.class_name.split("/")[0].upper() for entry in entries}
        assert scripts == set(SCRIPTS[split])
    entry = list(entries_of(splits["test"]))[17]
    char = chr(int(entry.class_name.split("U+")[1], 16))
    assert entry.path == f"{entry.class_name}/1"
    assert np.array_equal(np.asarray(entry.read()), pixels(char, 1, size=32))


@pytest.mark.parametrize("size", [16, 28, 33, 96])
def test_an_image_is_grey_and_of_the_size_asked_for(size: int) -> None:
    image = draw("ж", 0, seed=0, difficulty=1.0, size=size)
    assert (image.mode, image.size) == ("L", (size, size))


# --- the drawing ---


def test_the_same_arguments_draw_the_same_image() -> None:
    for char in ALL[::20]:
        assert np.array_equal(pixels(char, 3, seed=5), pixels(char, 3, seed=5))


def test_seed_index_and_character_each_draw_another_image() -> None:
    images = [
        pixels(char, index, seed).tobytes() for char in "жλש" for index in range(5) for seed in range(3)
    ]
    assert len(set(images)) == len(images)


def test_another_seed_moves_every_image() -> None:
    for char in ALL[::20]:
        difference = np.abs(pixels(char, 0, seed=0).astype(int) - pixels(char, 0, seed=1))
        assert difference.mean() > 5


def test_every_image_shows_its_character() -> None:
    for char in ALL[::10]:
        for index in range(3):
            assert pixels(char, index).std() > 12


def test_difficulty_zero_draws_plain_characters() -> None:
    for char in ALL[::15]:
        images = np.stack([pixels(char, i, difficulty=0.0, size=32) for i in range(24)])
        corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
        assert (np.ptp(corners, axis=1) <= 1).all()  # an even background: no clutter, no noise
        # Without distortion the shape hangs on the face alone, up to the shades, which may saturate.
        shapes: list[NDArray[np.float64]] = []
        for image in images.reshape(24, -1).astype(float):
            shape = (image - image.mean()) / np.linalg.norm(image - image.mean())
            if all(abs(shape @ other) < 0.97 for other in shapes):
                shapes.append(shape)
        assert 1 <= len(shapes) <= len(faces_of(char))


def test_difficulty_makes_the_images_of_a_class_differ() -> None:
    def spread(difficulty: float) -> float:
        """One minus the mean correlation, in absolute value, of the images of a class."""
        values = []
        for char in ALL[::25]:
            images = np.stack([pixels(char, i, difficulty=difficulty).ravel() for i in range(12)])
            values.append(1 - np.abs(np.corrcoef(images.astype(float))).mean())
        return float(np.mean(values))

    easy, middle, hard = (spread(difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy < middle < hard


def test_images_have_dark_and_light_characters() -> None:
    images = [pixels(ALL[0], i, size=32).astype(float) for i in range(30)]
    darker = [image[8:24, 8:24].mean() < np.concatenate([image[:2], image[-2:]]).mean() for image in images]
    assert 5 < sum(darker) < 25


def test_raw_pixels_do_not_solve_the_validation_split() -> None:
    """Recall@1 of the Euclidean distance between pixels: above chance, far below a trained network."""
    chars = [char for _, char in characters()["val"]]
    per_class = 20
    images = np.stack([pixels(c, i, size=32).ravel() for c in chars for i in range(per_class)]) / 255
    squares = (images**2).sum(1)
    distances = squares[:, None] + squares - 2 * images @ images.T
    np.fill_diagonal(distances, np.inf)
    labels = np.repeat(np.arange(len(chars)), per_class)
    recall = (labels[distances.argmin(1)] == labels).mean()
    assert 3 / len(chars) < recall < 0.45
