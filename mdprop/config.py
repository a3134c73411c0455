"""params.yaml as frozen, typed objects: unknown keys, wrong types and missing keys are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mdprop.distributions import GOALS, METHODS, goal_of
from mdprop.errors import ParameterError, one_line

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Units = Literal["pixel", "normalized"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Methods(_Section):
    clean: tuple[str, ...] = Field(strict=False)
    single_target: tuple[str, ...] = Field(strict=False)
    multi_target: tuple[str, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _in_their_family(self) -> Methods:
        for family, names in self:
            for name in names:
                if name not in METHODS:
                    raise ValueError(
                        f"unknown method '{name}' under methods.{family}; known: {', '.join(METHODS)}"
                    )
                method = METHODS[name]
                if method.family != family:
                    raise ValueError(f"'{name}' belongs under methods.{method.family}, not methods.{family}")
            if len(set(names)) != len(names):
                raise ValueError(f"methods.{family} names a method twice")
        if not self.all:
            raise ValueError(f"name at least one method: {', '.join(METHODS)}")
        return self

    @property
    def all(self) -> tuple[str, ...]:
        return self.clean + self.single_target + self.multi_target


class DatasetChoice(_Section):
    name: str


class ImageSettings(_Section):
    """How images are stored and how they meet the network; `resize` is the short side in pixels."""

    mode: Literal["L", "RGB"]
    resize: Positive
    image_size: Positive
    crop_scale: tuple[Fraction, Fraction] = Field(strict=False)
    flip: bool
    mean: tuple[float, ...] = Field(strict=False)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(strict=False)

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


class GlyphsSettings(ImageSettings):
    reader: Literal["glyphs"]
    seed: Seed
    images_per_class: Annotated[int, Field(ge=2)]
    difficulty: Annotated[float, Field(ge=0, le=3)]


class FolderSettings(ImageSettings):
    reader: Literal["folder"]
    root: str
    validation_classes: NonNegative


class OmniglotSettings(ImageSettings):
    reader: Literal["omniglot"]
    root: str
    validation_classes: NonNegative


Dataset = Annotated[GlyphsSettings | FolderSettings | OmniglotSettings, Field(discriminator="reader")]


class ModelSettings(_Section):
    backbone: str
    embedding_dim: Positive


class LossSettings(_Section):
    name: str
    options: dict[str, Any]


class TrainSettings(_Section):
    epochs: Positive
    batch_size: Positive
    images_per_class: Annotated[int, Field(ge=2)]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["one_cycle", "constant"]
    validate_every: NonNegative

    @model_validator(mode="after")
    def _divides(self) -> TrainSettings:
        if self.batch_size % self.images_per_class or self.batch_size < 2 * self.images_per_class:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of images_per_class "
                f"{self.images_per_class} that holds two classes or more"
            )
        return self


class AttackSettings(_Section):
    targets: Positive
    target_kind: Literal["other_class", "any"]
    epsilon: Annotated[float, Field(ge=0)]
    units: Units
    steps: Positive
    start_noise: Annotated[float, Field(ge=0)]


class AdversarySettings(_Section):
    queries: NonNegative
    seed: Seed
    targets: Positive
    steps: Positive
    step_ratio: Fraction
    units: Units
    sets: dict[str, Annotated[float, Field(ge=0)]]

    @field_validator("sets")
    @classmethod
    def _named_by_goal(cls, sets: dict[str, float]) -> dict[str, float]:
        if not sets:
            raise ValueError("name at least one adversarial set, such as single_target_middle: 0.05")
        for name in sets:
            if goal_of(name) is None:
                raise ValueError(f"'{name}' must begin with a goal: {', '.join(GOALS)}")
            if not re.fullmatch(r"\w+", name):
                raise ValueError(f"'{name}' must be made of letters, digits and underscores")
        return sets


class EvaluateSettings(_Section):
    ks: tuple[Positive, ...] = Field(strict=False, min_length=1)
    seed: Seed

    @field_validator("ks")
    @classmethod
    def _holds_one(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in ks:
            raise ValueError("must hold 1: the table is about Recall@1")
        return tuple(sorted(set(ks)))


class Params(_Section):
    """All of params.yaml. `DatasetChoice` names the block of `datasets` in use."""

    seeds: tuple[Seed, ...] = Field(strict=False, min_length=1)
    methods: Methods
    dataset: DatasetChoice
    datasets: dict[str, Dataset]
    model: ModelSettings
    loss: LossSettings
    train: TrainSettings
    attack: AttackSettings
    adversary: AdversarySettings
    evaluate: EvaluateSettings

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("names a seed twice")
        return seeds

    @model_validator(mode="after")
    def _known_dataset(self) -> Params:
        if self.dataset.name not in self.datasets:
            raise ValueError(
                f"dataset.name '{self.dataset.name}' is no block of datasets: {', '.join(self.datasets)}"
            )
        return self

    @model_validator(mode="after")
    def _images_fit_the_backbone(self) -> Params:
        if self.model.backbone == "conv4" and self.active_dataset.image_size < 16:
            raise ValueError(
                f"datasets.{self.dataset.name}.image_size {self.active_dataset.image_size} is too small for "
                "conv4, which halves it four times: 16 or more"
            )
        return self

    @model_validator(mode="after")
    def _slices_hold_two_classes(self) -> Params:
        for name in self.methods.all:
            smallest = min(METHODS[name].slices(self.train.batch_size).values())
            if smallest <= self.train.images_per_class:
                raise ValueError(
                    f"train.batch_size {self.train.batch_size} is too small for {name}: a slice of "
                    f"{smallest} images may hold one class only (images_per_class is "
                    f"{self.train.images_per_class}); raise batch_size"
                )
        return self

    @property
    def active_dataset(self) -> GlyphsSettings | FolderSettings | OmniglotSettings:
        return self.datasets[self.dataset.name]


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    Under DVC (`$DVC_STAGE` is set) the result holds only what the stage's entry in dvc.yaml
    declares, so that a stage which reads more than it declares fails instead of being cached
    wrongly. Raises `ParameterError`, one line that names file, key, value and what is allowed.
    """
    path = Path(path)
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"{path} not found: run from the project's root") from None
    except OSError as error:
        raise ParameterError(f"{path} cannot be read ({error.strerror})") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {one_line(error)}") from None
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParameterError(f"{path}: {_first_problem(error)}") from None
    stage = os.environ.get("DVC_STAGE")
    declared = declared_params(path.with_name("dvc.yaml"), stage, params.dataset.name) if stage else None
    return params if declared is None else _restrict(params, declared)


def declared_params(dvc_yaml: Path, stage: str, dataset: str) -> list[str] | None:
    """The parameter paths that a stage of dvc.yaml declares; None where it cannot be told."""
    if not dvc_yaml.exists():
        return None
    stages = YAML(typ="safe").load(dvc_yaml.read_text(encoding="utf-8"))["stages"]
    entry = stages.get(stage.split(":")[-1].split("@")[0])
    if entry is None:
        return None
    return [str(p).replace("${dataset.name}", dataset) for p in entry.get("params", [])]


def _restrict(section: Any, paths: list[str]) -> Any:
    """A copy of a section without the keys that no path leads to; reading one is an AttributeError."""
    if "" in paths or not isinstance(section, (BaseModel, dict)):
        return section
    kept: dict[str, Any] = {}
    for key, value in section.items() if isinstance(section, dict) else section:
        below = [p[len(key) + 1 :] for p in paths if p == key or p.startswith(f"{key}.")]
        if below:
            kept[key] = _restrict(value, below)
    return kept if isinstance(section, dict) else type(section).model_construct(**kept)


def _first_problem(error: ValidationError) -> str:
    """The first of pydantic's findings as one line; a misspelt key before what it leaves missing."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = list(problem["loc"])
    allowed = _allowed_keys(where[:-1]) if problem["type"] == "extra_forbidden" else []
    if where[:1] == ["datasets"] and len(where) > 2:
        del where[2]  # the reader, which pydantic puts into the path
    key = ".".join(str(part) for part in where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; allowed here: {', '.join(allowed)}"
    if problem["type"] == "union_tag_not_found":
        key += ".reader"
    if problem["type"] in ("missing", "union_tag_not_found"):
        return f"key '{key}' is missing: add it"
    message = problem["msg"].removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("valid tuple", "list")
    value = problem["input"]
    shown = "" if isinstance(value, (dict, BaseModel)) else f" = {value!r}"
    return f"{key}{shown}: {message}" if key else message


def _allowed_keys(path: list[int | str]) -> list[str]:
    """The keys of the section at a path of pydantic's, which names the reader of a data set."""
    readers = {"glyphs": GlyphsSettings, "folder": FolderSettings, "omniglot": OmniglotSettings}
    section: Any = Params
    if path[:1] == ["datasets"]:
        section = readers[str(path[2])]
    elif path:
        section = Params.model_fields[str(path[0])].annotation
    return list(section.model_fields)
