from __future__ import annotations

import io
import os
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mdprop.data import images
from mdprop.data.images import ImageError, decode, open_image, orientation, to_mode
from mdprop.errors import DataError

COLOURS = (
    np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [200, 120, 40]]], np.uint8).repeat(8, 0).repeat(8, 1)
)
GREYS = np.array([[0, 60], [130, 255]], np.uint8).repeat(8, 0).repeat(8, 1)
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def read(data: bytes, mode: str) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        image = to_mode(open_image(path), mode)
    assert image.mode == mode
    return image


def pixels(data: bytes, mode: str) -> np.ndarray:
    return np.asarray(read(data, mode)).astype(int)


def luma(colours: np.ndarray) -> np.ndarray:
    return colours @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_colours(kind: str) -> None:
    data = encode(Image.fromarray(COLOURS), kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(pixels(data, "RGB"), COLOURS)
    np.testing.assert_allclose(pixels(data, "L"), luma(COLOURS), atol=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_grey(kind: str) -> None:
    data = encode(Image.fromarray(GREYS), kind)
    np.testing.assert_array_equal(pixels(data, "L"), GREYS)
    np.testing.assert_array_equal(pixels(data, "RGB"), np.stack([GREYS] * 3, -1))


def test_one_bit() -> None:
    data = encode(Image.fromarray(GREYS > 100), "PNG")
    np.testing.assert_array_equal(pixels(data, "L"), (GREYS > 100) * 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled(kind: str) -> None:
    deep = np.array([[0, 128, 129, 257], [32896, 65278, 65406, 65535]], np.uint16)
    np.testing.assert_array_equal(
        pixels(encode(Image.fromarray(deep), kind), "L"), [[0, 0, 1, 1], [128, 254, 254, 255]]
    )


def test_big_endian_16_bits_are_scaled() -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257 * 7, 65535))
    np.testing.assert_array_equal(np.asarray(to_mode(image, "L")), [[7, 255]])


@pytest.mark.parametrize(
    "image", [np.array([[0.5]], np.float32), np.array([[70000]], np.int32), np.array([[-1]], np.int32)]
)
def test_pixels_of_unknown_range_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match="pixels beyond 16 bits"):
        pixels(encode(Image.fromarray(image), "TIFF"), "L")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
@pytest.mark.parametrize("largest", [1, 255, 4095, 65535, 2**31 - 1])
def test_32_bit_integers_are_refused(dtype: Any, largest: int) -> None:
    with pytest.raises(
        DataError, match=r"beyond 16 bits \(mode I\), whose range is not known: save it with 8 or"
    ):
        pixels(encode(Image.fromarray(np.array([[0, largest]], dtype)), "TIFF"), "L")


def test_signed_16_bit_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="whose range is not known"):
        pixels(tiff(np.array([[0, 32767]], "<i2"), {339: 2}), "L")


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_grey_of_fewer_bits_in_16_is_refused(kind: str, bits: int) -> None:
    deep = np.full((32, 32), 2**bits - 1, np.uint16)
    deep[0] = 0
    with pytest.raises(
        DataError, match=f"16-bit pixels of which none is above {2**bits - 1:,}, so that their range"
    ):
        pixels(
            encode(Image.fromarray(deep), kind, **({"irreversible": False} if kind == "JPEG2000" else {})),
            "L",
        )


def test_a_black_image_of_16_bits_is_refused() -> None:
    with pytest.raises(
        DataError, match="of which none is above 0, so that their range is not known: scale them"
    ):
        pixels(encode(Image.fromarray(np.zeros((2, 2), np.uint16)), "PNG"), "L")


def test_a_pgm_says_what_its_range_is() -> None:
    data = b"P5 3 1 4095\n" + struct.pack(">HHH", 0, 2048, 4095)
    np.testing.assert_array_equal(pixels(data, "L"), [[0, 128, 255]])
    np.testing.assert_array_equal(pixels(b"P2 3 1 4095\n0 2048 4095\n", "L"), [[0, 128, 255]])
    colours = b"P6 1 1 4095\n" + struct.pack(">HHH", 0, 2048, 4095)
    np.testing.assert_allclose(pixels(colours, "RGB"), [[[0, 128, 255]]], atol=1)


def tiff(deep: np.ndarray, tags: dict[int, int]) -> bytes:
    """A TIFF of one strip of pixels [H, W] or [H, W, 3], with one sample format for all; others in `tags`."""
    channels = deep.shape[2] if deep.ndim == 3 else 1
    pixels = deep.tobytes()
    entries = {
        256: deep.shape[1],
        257: deep.shape[0],
        258: 8 * deep.itemsize,
        259: 1,
        262: 1 if channels == 1 else 2,
    }
    entries |= {273: 8, 277: channels, 278: deep.shape[0], 279: len(pixels), **tags}
    directory = struct.pack("<H", len(entries))
    end = 8 + len(pixels)
    for tag, value in sorted(entries.items()):
        if tag == 258 and channels == 3:
            directory += struct.pack("<HHII", tag, 3, 3, end + 2 + 12 * len(entries) + 4)
        else:
            directory += struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value)
    return (
        b"II*\0"
        + struct.pack("<I", end)
        + pixels
        + directory
        + bytes(4)
        + struct.pack("<HHH", *[8 * deep.itemsize] * 3)
    )


def png(rows: np.ndarray, bits: int, colour: int, key: bytes = b"") -> bytes:
    """A PNG of rows of bytes, of any depth and colour type, with a transparent colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    width = rows.shape[1] * 8 // bits // channels
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0))]
    chunks += [(b"tRNS", key)] if key else []
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def deep_colours(kind: str, largest: int) -> bytes:
    """Two pixels of 16 bits a channel, black and grey, without transparency or with it all opaque."""
    values = [0, largest]
    if kind == "TIFF":
        return tiff(np.array([[[value] * 3 for value in values]], "<u2"), {})
    if kind == "PPM":
        return b"P6 2 1 65535\n" + struct.pack(">6H", *[0] * 3, *[largest] * 3)
    channels, colour = {"RGB": (3, 2), "grey and alpha": (1, 4), "RGBA": (3, 6)}[kind]
    alpha = [65535] if colour > 2 else []
    row = np.array([[*[value] * channels, *alpha] for value in values], ">u2")
    return png(row.reshape(1, -1).view(np.uint8), 16, colour)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "grey and alpha", "TIFF", "PPM"])
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_colours_of_fewer_bits_in_16_are_refused(kind: str, bits: int) -> None:
    with pytest.raises(DataError, match=r"16-bit pixels of which none is above [\d,]+, so that their range"):
        pixels(deep_colours(kind, 2**bits - 1), "RGB")
    seen = pixels(deep_colours(kind, 65535), "RGB")
    np.testing.assert_array_equal(seen, [[[0] * 3, [255] * 3]])


def test_a_tiff_whose_white_is_zero() -> None:
    deep = np.array([[0, 65535, 257 * 200]], "<u2")
    np.testing.assert_array_equal(pixels(tiff(deep, {262: 0}), "L"), [[255, 0, 55]])
    np.testing.assert_array_equal(pixels(tiff(deep, {262: 1}), "L"), [[0, 255, 200]])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_transparent_value_of_16_bit_grey_becomes_white(mode: str) -> None:
    row = np.array([[0, 1, 40000, 40001, 65535]], ">u2")
    for key, expected in ((0, [255, 0, 156, 156, 255]), (40000, [0, 0, 255, 156, 255])):
        seen = pixels(png(row.view(np.uint8), 16, 0, struct.pack(">H", key)), mode)
        np.testing.assert_array_equal(seen.reshape(5, -1)[:, 0], expected)


def test_a_transparent_value_does_not_tell_the_range() -> None:
    row = np.array([[0, 4095, 65535]], ">u2").view(np.uint8)
    with pytest.raises(DataError, match="none is above 4,095"):
        pixels(png(row, 16, 0, struct.pack(">H", 65535)), "L")
    nothing = np.array([[7, 7]], ">u2").view(np.uint8)
    np.testing.assert_array_equal(pixels(png(nothing, 16, 0, struct.pack(">H", 7)), "L"), [[255, 255]])


@pytest.mark.parametrize(("bits", "packed"), [(1, 0b01000000), (2, 0b00011011), (4, 0x3C)])
def test_the_transparent_value_of_few_bits_becomes_white(bits: int, packed: int) -> None:
    row, most = np.array([[packed]], np.uint8), 2**bits - 1
    plain = pixels(png(row, bits, 0), "L")[0]
    for key in range(most + 1):
        seen = pixels(png(row, bits, 0, struct.pack(">H", key)), "L")[0]
        np.testing.assert_array_equal(seen, np.where(plain == key * 255 // most, 255, plain))


def test_a_transparent_colour_of_16_bits_is_refused() -> None:
    row = np.array([[0, 0, 0, 65535, 1, 2]], ">u2").view(np.uint8)
    with pytest.raises(
        DataError, match="16 bits a channel and a transparent colour, which is lost in 8: save it"
    ):
        pixels(png(row, 16, 2, struct.pack(">HHH", 65535, 1, 2)), "RGB")


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/dev/null", "folder"])
def test_only_regular_files_are_opened(tmp_path: Path, target: str) -> None:
    path = tmp_path / "a.png"
    if target == "pipe":
        os.mkfifo(path)
    elif target == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(ImageError, match=f"^image {path} is no regular file: remove it$") as caught:
        open_image(path)
    assert (caught.value.name, caught.value.problem) == (f"image {path}", "is no regular file")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(
        ImageError, match=rf"^image {path} is too large \(1,099,511,627,776 bytes\): scale it"
    ):
        open_image(path)


def test_lab() -> None:
    lab = Image.merge(
        "LAB", [Image.new("L", (4, 4), value) for value in (138, 166, 174)]
    )  # (200, 100, 50) in RGB
    data = encode(lab, "TIFF")
    np.testing.assert_allclose(pixels(data, "RGB"), np.full((4, 4, 3), [200, 100, 50]), atol=3)
    np.testing.assert_allclose(pixels(data, "L"), 124, atol=3)


def test_pixels_of_unknown_range_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.new("F", (4, 4)).save(path)
    with pytest.raises(
        DataError,
        match=rf"^image {path} has pixels beyond 16 bits \(mode F\), whose range is not known: save",
    ):
        to_mode(open_image(path), "RGB")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette(kind: str) -> None:
    data = encode(Image.fromarray(COLOURS).quantize(4), kind)
    assert Image.open(io.BytesIO(data)).mode == "P"
    np.testing.assert_allclose(pixels(data, "RGB"), COLOURS, atol=2)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    data = encode(image, kind, transparency=0)
    np.testing.assert_array_equal(pixels(data, "RGB"), [[[255, 255, 255], [200, 100, 50]]])
    assert pixels(data, "L")[0, 0] == 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    rgba = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [200, 0, 0, 51]]], np.uint8)
    data = encode(
        Image.fromarray(rgba), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
    )
    np.testing.assert_allclose(pixels(data, "RGB"), [[[255] * 3, [0] * 3, [244, 204, 204]]], atol=1)


def test_grey_with_transparency() -> None:
    grey = np.array([[[0, 0], [0, 255], [100, 51]]], np.uint8)
    np.testing.assert_allclose(
        pixels(encode(Image.fromarray(grey, "LA"), "PNG"), "L"), [[255, 0, 224]], atol=1
    )


@pytest.mark.parametrize(("mode", "key"), [("L", 60), ("RGB", (255, 0, 0))])
def test_a_transparent_colour_key_becomes_white(mode: str, key: Any) -> None:
    source = GREYS if mode == "L" else COLOURS
    seen = pixels(encode(Image.fromarray(source), "PNG", transparency=key), mode)
    matches = np.all(source.reshape(16, 16, -1) == key, axis=-1)
    assert matches.any()
    assert (seen[matches] == 255).all()
    np.testing.assert_array_equal(seen[~matches], source[~matches])


def test_cmyk_jpeg_is_not_inverted() -> None:
    # Pillow writes CMYK as Adobe does: inverted, with Adobe's marker.
    data = encode(Image.fromarray(COLOURS).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    np.testing.assert_allclose(pixels(data, "RGB"), COLOURS, atol=12)


def test_cmyk_tiff() -> None:
    data = encode(Image.fromarray(COLOURS).convert("CMYK"), "TIFF")
    np.testing.assert_array_equal(pixels(data, "RGB"), COLOURS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation(kind: str, turn: int) -> None:
    image = Image.fromarray(COLOURS[:, :24])
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    data = encode(image, kind, exif=exif, **options)
    marked = image.copy()
    marked.getexif()[0x0112] = turn
    upright = ImageOps.exif_transpose(marked)
    seen = pixels(data, "RGB")
    assert seen.shape[1::-1] == upright.size
    np.testing.assert_allclose(seen, np.asarray(upright).astype(int), atol=3 if kind == "JPEG" else 0)


def test_broken_exif_leaves_an_image_readable() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for exif in (
            b"Exif\0\0MM\0*\xff\xff\xff\xff",
            b"Exif\0\0garbage",
            b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01",
        ):
            data = encode(Image.fromarray(GREYS), "JPEG", exif=exif, quality=100)
            assert orientation(Image.open(io.BytesIO(data))) == 1
            np.testing.assert_allclose(pixels(data, "L"), GREYS, atol=2)


def test_an_image_that_fits_is_returned_as_it_is() -> None:
    image = Image.fromarray(GREYS)
    assert to_mode(image, "L") is image


def test_other_modes_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="mode must be L or RGB, not CMYK"):
        to_mode(Image.fromarray(GREYS), "CMYK")


def test_open_image_keeps_format_and_file_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).save(path)
    image = open_image(path)
    assert (image.format, image.mode, image.filename) == ("PNG", "L", str(path))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_named(tmp_path: Path, kind: str, share: float) -> None:
    data = encode(Image.fromarray(PHOTO), kind)
    path = tmp_path / "half.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"^image {path} is .*: replace or remove it$") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is an empty file: replace or remove it"),
        (b"<svg/>", "is corrupt or of no known format: replace or remove it"),
        (encode(Image.fromarray(PHOTO), "PNG").replace(b"IDAT", b"IDXT"), "is corrupt or of no known format"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"^image {path} {message}"):
        open_image(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"^image {tmp_path}/gone.png cannot be read \(No such file or directory\)"
    ):
        open_image(tmp_path / "gone.png")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("L", (50, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=rf"^image {path} is too large .*: scale it down or remove it$"):
        open_image(path)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM", "WEBP"]), st.data())
def test_damaged_bytes_are_an_image_or_a_data_error(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(encode(Image.fromarray(PHOTO[:8, :8]), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(bytes(damaged), "RGB")
        except DataError as error:
            assert "\n" not in str(error)


def as_shown(image: Image.Image) -> np.ndarray:
    """[C, H, W]"""
    return np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


def noise(width: int, height: int, mode: str) -> Image.Image:
    values = np.random.default_rng(width * height).integers(
        0, 256, (height, width, len(mode)), dtype=np.uint8
    )
    return Image.fromarray(values[..., 0] if mode == "L" else values)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB"]), st.sampled_from(["PNG", "PPM"]))
def test_what_is_encoded_without_loss_is_decoded(width: int, height: int, mode: str, kind: str) -> None:
    image = noise(width, height, mode)
    decoded = decode(images.encode(image, kind), mode)
    assert decoded.dtype == torch.uint8
    np.testing.assert_array_equal(decoded.numpy(), as_shown(image))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0},
        {"quality": 75, "subsampling": 2},
        {"quality": 85, "progressive": True},
    ],
)
def test_a_jpeg_is_decoded_as_pillow_does(mode: str, options: dict[str, Any]) -> None:
    data = encode(Image.fromarray(PHOTO).resize((61, 43)).convert(mode), "JPEG", **options)
    expected = as_shown(Image.open(io.BytesIO(data))).astype(int)
    np.testing.assert_allclose(decode(data, mode).numpy().astype(int), expected, atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_encoded_jpeg_is_close_to_its_image(mode: str) -> None:
    image = Image.fromarray(PHOTO[:5, :6]).resize((60, 50), Image.Resampling.BICUBIC).convert(mode)
    decoded = decode(images.encode(image, "JPEG"), mode).numpy().astype(int)
    np.testing.assert_allclose(decoded, as_shown(image).astype(int), atol=12)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM"])
@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.1, 0.5, 0.99])
def test_truncated_bytes_are_not_decoded(mode: str, kind: str, share: float) -> None:
    data = images.encode(noise(60, 40, mode), kind)
    with pytest.raises(DataError, match=r"^image is .*: replace or remove it$"):
        decode(data[: int(len(data) * share)], mode)


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n3 2\n255\n1234567",  # a byte too many
        b"P5\n3 2\n255\n12345",  # one too few
        b"P5\n3 2\n255\n",
        b"P5\n3 -2\n255\n123456",
        b"P5\n999999999 999999999\n255\n123456",
        b"P6\n3 2\n255\n" + bytes(18),  # colours where grey is asked for
        b"P5\n3 2\n65535\n123456123456",
        b"P4\n3 2\n123456",
    ],
)
def test_other_raw_bytes_are_not_decoded(data: bytes) -> None:
    assert decode(b"P5\n3 2\n255\n123456", "L").tolist() == [[[49, 50, 51], [52, 53, 54]]]
    with pytest.raises(DataError, match=r"^image is corrupt .*: replace or remove it$"):
        decode(data, "L")


@pytest.mark.parametrize(("mode", "other"), [("L", "RGB"), ("RGB", "L")])
def test_another_mode_is_not_decoded(mode: str, other: str) -> None:
    with pytest.raises(
        DataError, match=rf"^image is corrupt \(mode {other}, not {mode}\): replace or remove it$"
    ):
        decode(images.encode(noise(6, 5, other), "PNG"), mode)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "PPM"]), st.data())
def test_damaged_bytes_are_decoded_or_a_data_error(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(images.encode(Image.fromarray(PHOTO[:8, :8]), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(damaged), "RGB")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.shape[0] == 3
