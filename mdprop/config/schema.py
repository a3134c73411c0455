"""The sections of params.yaml as frozen, typed objects; unknown keys and wrong types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mdprop.branches import parse_branch
from mdprop.config.attacks import AdversarySettings, AttackSettings
from mdprop.data.readers import DatasetSettings
from mdprop.data.readers.settings import ImageSettings
from mdprop.errors import ParameterError
from mdprop.methods import METHODS, Method, Name, Slice
from mdprop.settings import NonNegative, Positive, Section, Seed, Share

LearningRate = Annotated[float, Field(ge=0)]


class Methods(Section):
    """The methods to run, in families by what they read."""

    clean: tuple[str, ...] = Field(strict=False)
    single_target: tuple[str, ...] = Field(strict=False)
    multi_target: tuple[str, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _each_once(self) -> Methods:
        for family, names in self:
            if len(set(names)) != len(names):
                raise ValueError(f"methods.{family} names a method twice")
        if not self.all:
            raise ValueError(f"name at least one method: {', '.join(METHODS)}")
        return self

    @property
    def all(self) -> tuple[str, ...]:
        return self.clean + self.single_target + self.multi_target


class DatasetChoice(Section):
    """The block of `datasets` in use, and what is done to its training classes."""

    name: str
    validation_classes: NonNegative
    train_fraction: Share
    fraction_of: Literal["images", "classes"]


class ModelSettings(Section):
    backbone: str
    weights: str | None
    embedding_dim: Positive
    freeze_batchnorm: Literal["none", "clean", "all"]


class LossSettings(Section):
    name: str
    options: dict[str, Any]
    miner: str | None
    miner_options: dict[str, Any]


class LearningRates(Section):
    """Of groups of parameters; None: train.learning_rate, 0: the group stays as it is."""

    head: LearningRate | None
    clean_batchnorm: LearningRate | None
    auxiliary_batchnorm: LearningRate | None
    loss: LearningRate | None


class TrainSettings(Section):
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


class EvaluateSettings(Section):
    ks: tuple[Positive, ...] = Field(strict=False, min_length=1)
    seed: Seed
    exact_limit: Positive

    @field_validator("ks")
    @classmethod
    def _holds_one(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in ks:
            raise ValueError("must hold 1: the table is about Recall@1")
        return tuple(sorted(set(ks)))


class Params(Section):
    """All of params.yaml. `DatasetChoice` names the block of `datasets` in use."""

    seeds: tuple[Seed, ...] = Field(strict=False, min_length=1)
    methods: Methods
    recipes: dict[Name, Annotated[tuple[Slice, ...], Field(strict=False)] | None]
    dataset: DatasetChoice
    datasets: dict[str, DatasetSettings]
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
    def _methods_are_possible(self) -> Params:
        for name, slices in self.recipes.items():
            if slices is not None and name in METHODS:
                raise ValueError(f"recipes.{name}: a known method keeps its slices; give yours another name")
        for family, names in self.methods:
            for name in names:
                method = self._find(name, family)
                if method.family != family:
                    raise ValueError(f"'{name}' belongs under methods.{method.family}, not methods.{family}")
                self._check_slices(method)
        return self

    def _find(self, name: str, family: str) -> Method:
        try:
            return self.method(name)
        except ParameterError as error:
            raise ValueError(f"methods.{family}: {error}") from None

    def _check_slices(self, method: Method) -> None:
        smallest = min(method.sizes(self.train.batch_size))
        if smallest <= self.train.images_per_class:
            raise ValueError(
                f"train.batch_size {self.train.batch_size} is too small for {method.name}: a slice of "
                f"{smallest} images may hold one class only (images_per_class is "
                f"{self.train.images_per_class}); raise batch_size"
            )
        for part in method.adversarial:
            try:
                self.attack.threat(part)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"method '{method.name}', slice '{part.name}': {reason}") from None

    @model_validator(mode="after")
    def _branches_are_there(self) -> Params:
        known = {branch for name in self.methods.all for branch in self.method(name).branches}
        for text in self.adversary.branches:
            unknown = [part for part in parse_branch(text).names if part not in known]
            if unknown:
                raise ValueError(
                    f"adversary.branches: no method has a branch '{unknown[0]}'; "
                    f"there are: {', '.join(sorted(known))}"
                )
        return self

    def method(self, name: str) -> Method:
        """The method of that name, a known one or one of `recipes`; `ParameterError` names them all."""
        slices = self.recipes.get(name)
        if slices is not None:
            return Method.of(name, slices)
        if name not in METHODS:
            known = dict.fromkeys((*METHODS, *self.recipes))
            raise ParameterError(f"unknown method '{name}'; known: {', '.join(known)}")
        return METHODS[name]

    def read_by_training(self, method: Method) -> dict[str, Any]:
        """What training of a method reads, as plain values: what dvc.yaml declares for its family."""
        sections: dict[str, Any] = {"dataset": {"name"}, "model": True, "loss": True, "train": True}
        sections["datasets"] = {self.dataset.name}
        if method.adversarial:
            sections["attack"] = set(AttackSettings.model_fields)
            if method.family == "single_target":
                sections["attack"] -= {"targets"}
        if self.recipes.get(method.name) is not None:
            sections["recipes"] = {method.name}
        return self.model_dump(mode="json", include=sections, exclude_unset=True)

    @property
    def active_dataset(self) -> ImageSettings:
        return self.datasets[self.dataset.name]
