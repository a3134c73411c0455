"""The embedded data set: characters of many scripts, drawn from the fonts that matplotlib ships.

A class is one character; the splits are disjoint by script. Within a class vary the face (sans,
mono, serif; weight and slant), the affine and elastic distortion, the stroke's width and edge, the
contrast and its sign, and the clutter behind the character.
"""

from __future__ import annotations

import threading
import unicodedata
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from mdprop.data.readers.entries import Entry, Splits, by_class
from mdprop.data.readers.settings import ImageSettings
from mdprop.settings import Seed, number, whole

SCRIPTS = {
    "train": ("LATIN", "CYRILLIC"),
    "val": ("GREEK", "HEBREW"),
    "test": ("GEORGIAN", "ARMENIAN"),
}
FACES = tuple(
    f"{family}{style}.ttf"
    for family, styles in {
        "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
        "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
        "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
    }.items()
    for style in styles
)
MIN_FACES = 4
LOOKALIKE = 0.87  # normalised correlation above which two characters count as one class
FONTS = threading.Lock()  # fonts are not safe to use from several threads
CANVAS = 64  # characters are drawn at this size, then warped into the image

Array = NDArray[np.float64]


class Settings(ImageSettings):
    """`difficulty` scales every distortion and the clutter; 0 draws plain characters in many shades."""

    reader: Literal["glyphs"]
    seed: Seed
    resize: Annotated[int, whole(1, 512)]
    images_per_class: Annotated[int, whole(2, 10_000)]
    difficulty: Annotated[float, number(0, 3)]


def read(settings: Settings, key: str) -> Splits:
    """The characters of each split, `images_per_class` greyscale images of `resize` pixels each.

    Images are drawn when read, each from a generator of (seed, character, index).
    """
    source = partial(_draw_named, seed=settings.seed, difficulty=settings.difficulty, size=settings.resize)
    return {
        split: by_class(
            Entry(class_name, f"{class_name}/{index}", source)
            for script, char in characters()[split]
            for class_name in [f"{script.lower()}/U+{ord(char):04X}"]
            for index in range(settings.images_per_class)
        )
        for split in SCRIPTS
    }


def _draw_named(name: str, *, seed: int, difficulty: float, size: int) -> Image.Image:
    """The image of an entry, such as "greek/U+03B1/7"."""
    _, code, index = name.split("/")
    char = chr(int(code.removeprefix("U+"), 16))
    with FONTS:
        return draw(char, int(index), seed=seed, difficulty=difficulty, size=size)


@cache
def characters() -> dict[str, list[tuple[str, str]]]:
    """(script, character) of each split: letters in `MIN_FACES` faces or more, one of each shape.

    Letters with diacritics are left out. Characters that look alike, such as Latin A and Greek Α
    or c and C, would be label noise: the first of them stays, in the order test, val, train (Latin
    has letters to spare).
    """
    kept: dict[str, list[tuple[str, str]]] = {split: [] for split in SCRIPTS}
    shapes: list[Array] = []
    for split in reversed(SCRIPTS):
        for script in SCRIPTS[split]:
            for char in _letters(script):
                shape = _shape(char)
                if shapes and float(np.max(np.stack(shapes) @ shape)) > LOOKALIKE:
                    continue
                shapes.append(shape)
                kept[split].append((script, char))
    return kept


def draw(char: str, index: int, *, seed: int, difficulty: float, size: int) -> Image.Image:
    """One image [size, size] of a character, mode L; the same for the same arguments."""
    rng = np.random.default_rng([seed, ord(char), index])
    faces = faces_of(char)
    glyph = _render(char, faces[rng.integers(len(faces))])
    ink = _warp(glyph, _grid(rng, size, difficulty))
    edge = 0.5 + difficulty * (rng.uniform(-0.11, 0.11) + 0.11 * _smooth_noise(rng, size, 8))
    ink = 1 / (1 + np.exp((edge - ink) * 9))
    background = rng.uniform(0.15, 0.85)
    contrast = rng.uniform(0.68 - 0.2 * difficulty, 0.8)
    away_from_grey = 1 if background < 0.5 else -1
    sign = rng.choice([-1, 1]) if 0.4 < background < 0.6 else away_from_grey
    field = background + difficulty * _clutter(rng, size)
    image = field * (1 - ink) + (background + sign * contrast) * ink
    image += difficulty * rng.normal(0, 0.025, image.shape)
    return Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))


@cache
def faces_of(char: str) -> tuple[str, ...]:
    """The files of `FACES` that draw the character."""
    return tuple(face for face in FACES if ord(char) in _coverage(face))


def _letters(script: str) -> list[str]:
    codes = sorted({code for face in FACES for code in _coverage(face)})
    return [
        char
        for char in map(chr, codes)
        if unicodedata.category(char) in ("Lu", "Ll", "Lo")
        and unicodedata.name(char, "").startswith(f"{script} ")
        and not unicodedata.decomposition(char)
        and len(faces_of(char)) >= MIN_FACES
    ]


def _font_path(face: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face


@cache
def _coverage(face: str) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with TTFont(_font_path(face), lazy=True) as font:
        return frozenset(font.getBestCmap())


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_path(face), 2 * CANVAS // 3)


@cache
def _render(char: str, face: str) -> Array:
    """The character's ink in [0, 1] on [CANVAS, CANVAS], centred, its box scaled to one height."""
    font = _font(face)
    left, top, right, bottom = font.getbbox(char)
    ink = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(ink).text((1 - left, 1 - top), char, fill=255, font=font)
    scale = 0.62 * CANVAS / max(ink.size)
    ink = ink.resize([max(1, round(side * scale)) for side in ink.size], Image.Resampling.BICUBIC)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(ink, ((CANVAS - ink.width) // 2, (CANVAS - ink.height) // 2))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float64) / 255


def _shape(char: str) -> Array:
    """A unit vector to compare shapes by: the upright character, blurred, mean removed."""
    canvas = Image.fromarray((_render(char, faces_of(char)[0]) * 255).astype(np.uint8))
    pixels = np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.5)), dtype=np.float64).ravel()
    pixels = pixels - pixels.mean()
    return pixels / max(float(np.linalg.norm(pixels)), 1e-9)


def _grid(rng: np.random.Generator, size: int, difficulty: float) -> Array:
    """Where each pixel of the image looks in the canvas: [2, size, size], affine plus elastic."""
    angle = difficulty * rng.uniform(-0.125, 0.125)
    shear = difficulty * rng.uniform(-0.15, 0.15)
    zoom = np.exp(difficulty * rng.uniform(-0.11, 0.11, size=2))
    shift = difficulty * rng.uniform(-0.06, 0.06, size=2) * CANVAS
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[1.0, 0.0], [shear, 1.0]]) @ np.diag(zoom)
    axis = (np.arange(size) + 0.5) / size - 0.5
    points = np.stack(np.meshgrid(axis, axis, indexing="ij")) * CANVAS
    elastic = np.stack([_smooth_noise(rng, size, 4) for _ in range(2)])
    moved = np.einsum("ij,jyx->iyx", matrix, points) + difficulty * 1.5 * elastic
    return moved + shift[:, None, None] + (CANVAS - 1) / 2


def _warp(canvas: Array, grid: Array) -> Array:
    """Bilinear look-up of `canvas` at `grid` [2, h, w]; 0 outside."""
    padded = np.pad(canvas, 1)
    y, x = np.clip(grid + 1, 0, np.array(canvas.shape)[:, None, None] + 0.999)
    y0, x0 = y.astype(int), x.astype(int)
    dy, dx = y - y0, x - x0
    y1, x1 = np.minimum(y0 + 1, len(padded) - 1), np.minimum(x0 + 1, padded.shape[1] - 1)
    upper = padded[y0, x0] * (1 - dx) + padded[y0, x1] * dx
    lower = padded[y1, x0] * (1 - dx) + padded[y1, x1] * dx
    return upper * (1 - dy) + lower * dy


def _smooth_noise(rng: np.random.Generator, size: int, knots: int) -> Array:
    """Noise of about unit size that varies over size / knots pixels: [size, size]."""
    at = np.linspace(0, knots - 1, size)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(knots)))
    return weights @ rng.normal(size=(knots, knots)) @ weights.T


def _clutter(rng: np.random.Generator, size: int) -> Array:
    """A background of soft shades and faint strokes: [size, size], around 0."""
    strokes = Image.new("L", (size, size), 128)
    pen = ImageDraw.Draw(strokes)
    for _ in range(rng.integers(2, 6)):
        x0, y0, x1, y1 = rng.uniform(-0.2, 1.2, size=4) * size
        pen.line((x0, y0, x1, y1), fill=int(128 + rng.uniform(-100, 100)), width=int(rng.integers(1, 3)))
    lines = np.asarray(strokes, dtype=np.float64) / 128 - 1
    return 0.05 * _smooth_noise(rng, size, 5) + 0.18 * lines
