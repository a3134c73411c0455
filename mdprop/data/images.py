"""Images of any common kind, read right: greyscale, 16-bit, palette, transparent, CMYK, rotated by EXIF."""

from __future__ import annotations

import io
import re
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
RAW_HEADER = re.compile(rb"P[56]\n(\d{1,9}) (\d{1,9})\n255\n")  # of a PGM or PPM, as Pillow writes it


def open_image(path: str | Path) -> ImageFile.ImageFile:
    """The image in a file, decoded but otherwise as it is there; `to_mode` does the rest.

    Its `format` and `filename` tell where it came from. Of several frames it is the first.
    Raises `DataError`, which names the path, for a file that cannot be read, is no image, is
    corrupt or truncated, or has more pixels than Pillow takes to be safe.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"image {path} cannot be read ({error.strerror}): mend or remove it") from None
    image = _load(data, f"image {path}")
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

    16-bit grey is scaled to 8 bits, transparency is laid over white. Raises `DataError` for pixels
    without a known range: floats, integers beyond 16 bits.
    """
    if mode not in ("L", "RGB"):
        raise ValueError(f"mode must be L or RGB, not {mode}")
    name = f"image {getattr(image, 'filename', '')}".rstrip()
    turn = UPRIGHT.get(orientation(image))
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scale_to_8_bits(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")  # Pillow knows no way from LAB to L
    if image.mode != mode:
        image = image.convert(mode)
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
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} is too large ({one_line(error)}): scale it down or remove it") from None
    except UnidentifiedImageError:
        what = "corrupt or of no known format" if data else "an empty file"
        raise DataError(f"{name} is {what}: replace or remove it") from None
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise DataError(f"{name} is corrupt or truncated ({one_line(error)}): replace or remove it") from None
    return image


def _scale_to_8_bits(image: Image.Image, name: str) -> Image.Image:
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"{name} has pixels beyond 16 bits (mode {image.mode}): save it with 8 or 16 bits")
    return Image.fromarray(((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
