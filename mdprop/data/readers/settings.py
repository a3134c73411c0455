"""What every data set's block in params.yaml says about its images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mdprop.settings import Positive, Section, Share


class ImageSettings(Section):
    """How images are stored and how they meet the network; `resize` is the short side in pixels."""

    mode: Literal["L", "RGB"]
    resize: Positive
    encoding: Literal["compressed", "raw"]
    image_size: Positive
    crop_scale: tuple[Share, Share] = Field(strict=False)
    flip: bool
    mean: tuple[float, ...] = Field(strict=False)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(strict=False)
    reader: str

    @model_validator(mode="after")
    def _consistent(self) -> ImageSettings:
        channels = self.channels
        for key in ("mean", "std"):
            if len(getattr(self, key)) != channels:
                raise ValueError(f"{key} needs {channels} value(s) for mode {self.mode}")
        if self.image_size > self.resize:
            raise ValueError(f"image_size {self.image_size} must not exceed resize {self.resize}")
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError("crop_scale must be [smallest, largest]")
        return self

    @property
    def channels(self) -> int:
        return len(self.mode)

    def stored(self) -> dict[str, object]:
        """What decides the stored images: the reader, its own keys, and how each image is stored."""
        own = [key for key in type(self).model_fields if key not in ImageSettings.model_fields]
        return {key: getattr(self, key) for key in ("reader", *own, "mode", "resize", "encoding")}
