"""Images of any common kind, read right: greyscale, 16-bit, palette, transparent, CMYK, rotated by EXIF."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from mdprop.errors import DataError, one_line

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LARGEST_FILE = 2**30  # bytes
PHOTOMETRIC = 262  # TIFF's tag
PNG_KEY_SCALE = {"L;2": 85, "L;4": 17}  # Pillow scales these pixels to 8 bits, but not the transparent one
RAW_HEADER = re.compile(rb"P[56]\n(\d{1,9}) (\d{1,9})\n255\n")  # of a PGM or PPM, as Pillow writes it


class ImageError(DataError):
    """An image that cannot be used; `name` says which ("image a.png"), `problem` why."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        super().__init__(f"{name} {problem}: {remedy}")
        self.name, self.problem = name, problem


def open_image(path: str | Path) -> ImageFile.ImageFile:
    """The image in a file, decoded but otherwise as it is there; `to_mode` does the rest.

    Its `format` and `filename` tell where it came from. Of several frames it is the first.
    Raises `ImageError`, which names the path, for what is no regular file or cannot be read, is no
    image, is corrupt or truncated, has more pixels than Pillow takes to be safe, or has colours of 16
    bits a channel that use less than half of their range.
    """
    name = f"image {path}"
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(name, "is no regular file", "remove it")
        if found.st_size > LARGEST_FILE:
            raise ImageError(name, f"is too large ({found.st_size:,} bytes)", "scale it down or remove it")
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(name, f"cannot be read ({error.strerror})", "mend or remove it") from None
    image = _load(data, name)
    image.filename = str(path)
    return image


def decode(data: bytes | pa.Buffer, mode: str) -> Tensor:
    """The pixels of a JPEG, PNG or raw image, of mode "L" or "RGB" as `prepare` stores it: uint8 [C, H, W].

    They are those that Pillow reads. Raises `DataError` for damaged bytes and for another mode.
    """
    # Here, as preparing a data set needs no torch.
    import torch

    encoded, offset = bytearray(data), 0
    try:
        if header := RAW_HEADER.match(encoded):
            width, height, offset = int(header[1]), int(header[2]), header.end()
        else:
            image = _load(encoded, "image")
            if image.mode != mode:
                raise ValueError(f"mode {image.mode}, not {mode}")
            (width, height), encoded = image.size, bytearray(image.tobytes())
        pixels = torch.frombuffer(encoded, dtype=torch.uint8, offset=offset)
        return pixels.view(height, width, len(mode)).permute(2, 0, 1)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"image is corrupt ({one_line(error)}): replace or remove it") from None


def encode(image: Image.Image, kind: str) -> bytes:
    """An "L" or "RGB" image as "JPEG" (quality 95, no chroma subsampling), "PNG" or "PPM" (bare pixels)."""
    encoded = io.BytesIO()
    image.save(encoded, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return encoded.getvalue()


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """The image upright (EXIF) and in mode "L" or "RGB".

    16-bit grey is scaled to 8 bits, transparency is laid over white. Raises `ImageError` for pixels
    without a known range: floats, integers of 32 bits, and 16-bit grey of which no pixel reaches the
    upper half of its range, as of 12 bits in 16.
    """
    if mode not in ("L", "RGB"):
        raise ValueError(f"mode must be L or RGB, not {mode}")
    name = f"image {getattr(image, 'filename', '')}".rstrip()
    turn = UPRIGHT.get(orientation(image))
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale_to_8_bits(image, name)
    try:
        if image.has_transparency_data:
            rgba = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        if image.mode not in ("1", "L", "RGB"):
            image = image.convert("RGB")  # Pillow knows no way from LAB to L
        if image.mode != mode:
            image = image.convert(mode)
    except ValueError as error:
        problem = f"cannot be converted to {mode} ({one_line(error)})"
        raise ImageError(name, problem, "save it in another mode") from None
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """How a decoded image must be turned, in EXIF's numbers; 1, upright, where that cannot be told."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parsers raise many kinds on broken EXIF, which leaves the pixels readable
        return 1


def _load(data: bytes | bytearray, name: str) -> ImageFile.ImageFile:
    try:
        image = Image.open(io.BytesIO(data))
        raw_modes = _raw_modes(image)
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        problem = f"is too large ({one_line(error)})"
        raise ImageError(name, problem, "scale it down or remove it") from None
    except UnidentifiedImageError:
        problem = f"is {'corrupt or of no known format' if data else 'an empty file'}"
        raise ImageError(name, problem, "replace or remove it") from None
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        problem = f"is corrupt or truncated ({one_line(error)})"
        raise ImageError(name, problem, "replace or remove it") from None
    if image.format == "PNG" and image.mode == "L" and isinstance(image.info.get("transparency"), int):
        image.info["transparency"] *= PNG_KEY_SCALE.get(raw_modes.strip(), 1)
    if ";16" in raw_modes and not image.mode.startswith("I"):
        _check_deep_colours(image, name)
    return image


def _raw_modes(image: ImageFile.ImageFile) -> str:
    """How the pixels of an opened, not yet loaded image lie in its file, in Pillow's words."""
    raw = ""
    for codec, _, _, arguments in image.tile:
        first, *others = arguments if isinstance(arguments, tuple) else (arguments,)
        largest = others[0] if codec.startswith("ppm") and others else 255
        raw += f"{first} " if largest <= 255 else f"{first};16 "
    return raw


def _check_deep_colours(image: Image.Image, name: str) -> None:
    """Of 16 bits a channel Pillow keeps the upper 8: refuse what they do not show."""
    if "transparency" in image.info:
        problem = "has 16 bits a channel and a transparent colour, which is lost in 8"
        raise ImageError(name, problem, "save it with 8 bits or an alpha channel")
    bands = [band for band, kind in zip(image.split(), image.getbands(), strict=True) if kind != "A"]
    _check_range(max(int(np.asarray(band).max()) for band in bands) * 257, name)


def _check_range(largest: int, name: str) -> None:
    """Refuse pixels of 16 bits that would come out dark as they hold numbers of fewer bits."""
    if largest < 2**15:
        problem = f"has 16-bit pixels of which none is above {largest:,}, so that their range is not known"
        raise ImageError(name, problem, "scale them to all 16 bits, or save it with 8")


def _scale_to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey as 8-bit grey; the transparent value of a PNG becomes white."""
    pixels = np.asarray(image)
    # Pillow's "I" holds 32-bit and signed integers, and the 16-bit grey of these formats.
    if image.mode == "F" or (image.mode == "I" and getattr(image, "format", None) not in ("PNG", "PPM")):
        problem = f"has pixels beyond 16 bits (mode {image.mode}), whose range is not known"
        raise ImageError(name, problem, "save it with 8 or 16 bits")
    seen = pixels != image.info.get("transparency", -1)
    if seen.any():
        _check_range(int(pixels[seen].max()), name)
    grey = (pixels.astype(np.uint32) * 255 + 32767) // 65535
    if _white_is_zero(image):
        grey = 255 - grey
    return Image.fromarray(np.where(seen, grey, 255).astype(np.uint8))


def _white_is_zero(image: Image.Image) -> bool:
    """Of a TIFF; Pillow inverts those of 8 bits, not those of 16."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(PHOTOMETRIC) == 0)
