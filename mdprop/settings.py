"""What the sections of params.yaml have in common; each section's class lives with what it sets."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(gt=0, le=1)]


def _number(value: Any) -> Any:
    """A number written as a fraction, `4/255`; anything else as it is, for the next check."""
    if isinstance(value, str):
        try:
            return float(Fraction(value))
        except (ValueError, ZeroDivisionError):
            raise ValueError("a number or a fraction such as 4/255 is needed") from None
    return value


Radius = Annotated[float, BeforeValidator(_number), Field(ge=0)]
"""In [0, 1] pixels or standard deviations; also written as a fraction, `4/255`."""

Units = Literal["pixel", "normalized"]
"""Of a radius: pixels in [0, 1], or standard deviations of a channel."""


class Section(BaseModel):
    """A frozen, typed part of params.yaml; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
