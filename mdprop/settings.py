"""What the sections of params.yaml have in common; each section's class lives with what it sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(gt=0, le=1)]
Units = Literal["pixel", "normalized"]
"""Of a radius: pixels in [0, 1], or standard deviations of a channel."""


class Section(BaseModel):
    """A frozen, typed part of params.yaml; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
