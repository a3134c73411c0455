"""What a check found."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """text: one line, with key, value and what is needed. stops: whether nothing may begin before."""

    text: str
    stops: bool = True
