"""The sections of params.yaml as frozen, typed objects; unknown keys and wrong types are refused."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mdprop.methods import GOALS, METHODS, goal_of

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, le=1)]
LearningRate = Annotated[float, Field(ge=0)]
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
    """The block of `datasets` in use, and what is done to its training classes."""

    name: str
    validation_classes: NonNegative
    train_fraction: Fraction
    fraction_of: Literal["images", "classes"]


class ImageSettings(_Section):
    """How images are stored and how they meet the network; `resize` is the short side in pixels."""

    mode: Literal["L", "RGB"]
    resize: Positive
    encoding: Literal["compressed", "raw"]
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
    reader: Literal["folder", "omniglot"]
    root: str


class PublishedSettings(ImageSettings):
    """A benchmark of the field, whose number of classes and images is known."""

    reader: Literal["cub200", "cars196", "sop", "inshop"]
    root: str
    check_counts: bool


Dataset = Annotated[GlyphsSettings | FolderSettings | PublishedSettings, Field(discriminator="reader")]
READERS: dict[str, type[ImageSettings]] = {
    "glyphs": GlyphsSettings,
    **dict.fromkeys(("folder", "omniglot"), FolderSettings),
    **dict.fromkeys(("cub200", "cars196", "sop", "inshop"), PublishedSettings),
}


class ModelSettings(_Section):
    backbone: str
    weights: str | None
    embedding_dim: Positive
    freeze_batchnorm: Literal["none", "clean", "all"]


class LossSettings(_Section):
    name: str
    options: dict[str, Any]
    miner: str | None
    miner_options: dict[str, Any]


class LearningRates(_Section):
    """Of groups of parameters; None: train.learning_rate, 0: the group stays as it is."""

    head: LearningRate | None
    clean_batchnorm: LearningRate | None
    auxiliary_batchnorm: LearningRate | None
    loss: LearningRate | None


class TrainSettings(_Section):
    epochs: Positive
    batch_size: Positive
    images_per_class: Annotated[int, Field(ge=2)]
    class_replacement: bool
    learning_rate: Annotated[float, Field(gt=0)]
    learning_rates: LearningRates
    weight_decay: Annotated[float, Field(ge=0)]
    schedule: Literal["one_cycle", "constant"]
    precision: Literal["float32", "bfloat16"]
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
    """How training makes its examples; a rule that is None is the one of `compatibility`."""

    targets: Positive
    epsilon: Annotated[float, Field(ge=0)]
    steps: Positive
    start_noise: Annotated[float, Field(ge=0)]
    compatibility: Literal["mdprop", "authors"]
    units: Units | None
    clip: Literal["valid", "batch"] | None
    target_kind: Literal["other_class", "any"] | None
    batchnorm_start: Literal["copy", "reset"] | None
    shared_forward: bool

    def rule(self, name: str) -> Any:
        """`units`, `clip`, `target_kind` or `batchnorm_start` in effect."""
        value = getattr(self, name)
        return COMPATIBILITY[self.compatibility][name] if value is None else value


COMPATIBILITY = {
    "mdprop": {"units": "pixel", "clip": "valid", "target_kind": "other_class", "batchnorm_start": "copy"},
    "authors": {"units": "normalized", "clip": "batch", "target_kind": "any", "batchnorm_start": "reset"},
}


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
    exact_limit: Positive

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
    def active_dataset(self) -> GlyphsSettings | FolderSettings | PublishedSettings:
        return self.datasets[self.dataset.name]
