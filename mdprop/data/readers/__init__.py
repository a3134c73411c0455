"""The data sets: of each a module with its settings and `read`, and a line in `READERS`."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, BaseModel, BeforeValidator, SerializeAsAny

from mdprop.data.readers import cars196, cub200, folder, glyphs, grocery, inshop, omniglot, sop
from mdprop.data.readers.entries import Splits
from mdprop.data.readers.settings import ImageSettings
from mdprop.errors import DataError


class Reader(Protocol):
    """A module that reads one data set, or any of one layout."""

    @property
    def Settings(self) -> type[ImageSettings]:
        """Its block under `datasets`, with its name as the only value of `reader`."""

    def read(self, settings: Any, key: str) -> Splits:
        """The classes of "train", "test" and, where the data bring them, "val" and "gallery".

        settings: of the module's `Settings`; key: their place in params.yaml, for messages.
        Raises `DataError`, one line, for what is missing or malformed.
        """


READERS: dict[str, Reader] = {
    "glyphs": glyphs,
    "folder": folder,
    "omniglot": omniglot,
    "cub200": cub200,
    "cars196": cars196,
    "sop": sop,
    "inshop": inshop,
    "grocery": grocery,
}


def read_classes(settings: ImageSettings, key: str) -> Splits:
    """The classes of each split, by the reader that the settings name; see `Reader.read`.

    Raises `DataError`, also for a folder that the system refuses to open.
    """
    try:
        return READERS[settings.reader].read(settings, key)
    except OSError as error:
        what = f"{error.filename or getattr(settings, 'root', key)} cannot be read ({error.strerror})"
        raise DataError(f"{what}: mend its permissions, or change {key}.root") from None


def settings_class(block: dict[str, Any]) -> type[ImageSettings]:
    """The settings that a block of `datasets` is checked against.

    Raises pydantic's `ValidationError` where its `reader` is missing or not in `READERS`.
    """
    return READERS[_Block.model_validate(block).reader].Settings


def _known(reader: str) -> str:
    if reader not in READERS:
        raise ValueError(f"no such reader; known are {', '.join(READERS)}")
    return reader


class _Block(BaseModel):
    reader: Annotated[str, AfterValidator(_known)]


def _checked(block: Any) -> Any:
    return settings_class(block).model_validate(block) if isinstance(block, dict) else block


DatasetSettings = Annotated[SerializeAsAny[ImageSettings], BeforeValidator(_checked)]
"""A block of `datasets` as the settings of its reader."""
