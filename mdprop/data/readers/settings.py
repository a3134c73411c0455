"""What every data set's block in params.yaml says about its images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from mdprop.settings import Refused, Section, Text, number, whole

Side = Annotated[int, whole(1, 4096)]


class ImageSettings(Section):
    """How images are stored and how they meet the network; `resize` is the short side in pixels."""

    mode: Literal["L", "RGB"]
    resize: Side
    encoding: Literal["compressed", "raw"]
    image_size: Side
    crop_scale: tuple[Annotated[float, number(0.001, 1)], ...] = Field(strict=False)
    flip: bool
    mean: tuple[Annotated[float, number(0, 1)], ...] = Field(strict=False)
    std: tuple[Annotated[float, number(0.001, 10)], ...] = Field(strict=False)
    reader: Text

    def problems(self) -> Iterator[Refused]:
        for key in ("mean", "std"):
            if len(getattr(self, key)) != self.channels:
                yield Refused(key, f"{self.channels} value(s) are needed for mode {self.mode}")
        if self.image_size > self.resize:
            yield Refused(
                "image_size", f"at most resize, {self.resize}, is needed: lower it, or raise resize"
            )
        if len(self.crop_scale) != 2 or self.crop_scale[0] > self.crop_scale[1]:
            yield Refused("crop_scale", "[smallest, largest] is needed, two shares of the area")

    @property
    def channels(self) -> int:
        return len(self.mode)

    def stored(self) -> dict[str, object]:
        """What decides the stored images: the reader, its own keys, and how each image is stored."""
        own = [key for key in type(self).model_fields if key not in ImageSettings.model_fields]
        return {key: getattr(self, key) for key in ("reader", *own, "mode", "resize", "encoding")}
