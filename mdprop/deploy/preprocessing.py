"""From an image file to what a network meets, as the pipeline does it and as others can."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor
from torchvision.transforms import v2

from mdprop.data.images import decode
from mdprop.data.loading.transforms import test_transform
from mdprop.data.packing import encode_entry
from mdprop.data.readers.entries import Entry


@dataclass(frozen=True)
class Preprocessing:
    """What `prepare` and `test_transform` do to an image of a data set, from its block in params.yaml.

    mode: "L" or "RGB". resize: the short side in pixels; image_size: of the square in its centre.
    encoding: "raw" or "compressed"; with the latter a JPEG that is resized is a JPEG again, of quality 95.
    """

    mode: str
    resize: int
    image_size: int
    encoding: str

    def stored(self, entry: Entry) -> Tensor:
        """The pixels that `prepare` stores, uint8 [C, H, W]. Raises `ImageError` where it would."""
        return decode(encode_entry(entry, self.mode, self.resize, self.encoding).image, self.mode)

    def seen(self, stored: Tensor) -> Tensor:
        """What the network sees of stored pixels: [..., C, H, W] -> [..., C, image_size, image_size]."""
        cut: Tensor = test_transform(self.resize, self.image_size)(stored)
        return cut

    def pixels(self, entry: Entry) -> Tensor:
        """Both at once: uint8 [C, image_size, image_size]."""
        return self.seen(self.stored(entry))

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def in_torchvision(self) -> dict[str, Any]:
        """The same as arguments of torchvision's transforms; docs/deploy.md has the code that takes them."""
        return {
            "mode": self.mode,
            "resize": self.resize,
            "interpolation": v2.InterpolationMode.BICUBIC.value,
            "antialias": True,
            "center_crop": self.image_size,
            "jpeg": {"quality": 95, "subsampling": 0} if self.encoding == "compressed" else None,
        }
