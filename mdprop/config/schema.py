"""The sections of params.yaml as frozen, typed objects; unknown keys and wrong types are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mdprop.config.attacks import AdversarySettings, AttackSettings
from mdprop.config.together import refusals
from mdprop.corruptions import CorruptionSettings
from mdprop.data.audit import Duplicates, OnError
from mdprop.data.readers import DatasetSettings
from mdprop.data.readers.entries import Evaluated
from mdprop.data.readers.settings import ImageSettings
from mdprop.errors import ParameterError
from mdprop.methods import METHODS, Method, Slice
from mdprop.settings import FilePath, Name, Refused, Section, Seed, Share, Text, alike, number, whole

GroupRate = Annotated[float, number(0, 1000)]


class Methods(Section):
    """The methods to run, in families by what they read."""

    clean: tuple[Name, ...] = Field(strict=False)
    single_target: tuple[Name, ...] = Field(strict=False)
    multi_target: tuple[Name, ...] = Field(strict=False)

    def problems(self) -> Iterator[Refused]:
        for family, names in self:
            if len(set(names)) != len(names):
                yield Refused(family, "names a method twice: name it once")
        for name in alike(self.all):
            yield Refused("", f"'{name}' differs from another method by case only: rename one")
        if not self.all:
            yield Refused("", f"name at least one method: {', '.join(METHODS)}")

    @property
    def all(self) -> tuple[str, ...]:
        return self.clean + self.single_target + self.multi_target


class DatasetChoice(Section):
    """The block of `datasets` in use, and what is done to its training classes."""

    name: Name
    validation_classes: Annotated[int, whole(0, 10_000_000)]
    evaluate: Evaluated
    train_fraction: Share
    fraction_of: Literal["images", "classes"]
    on_error: OnError
    duplicates: Duplicates


class ModelSettings(Section):
    """embedding_dim: 3 at least: the decay of the spectrum leaves out two singular values.

    auxiliary_momentum: of the running statistics of all branches but the clean one; None: as the clean one.
    """

    backbone: Text
    weights: FilePath | None
    embedding_dim: Annotated[int, whole(3, 65_536)]
    freeze_batchnorm: Literal["none", "clean", "statistics", "all"]
    auxiliary_momentum: Share | None


class LossSettings(Section):
    name: Text
    options: dict[str, Any]
    miner: Text | None
    miner_options: dict[str, Any]


class LearningRates(Section):
    """Of groups of parameters; None: train.learning_rate, 0: the group stays as it is."""

    head: GroupRate | None
    clean_batchnorm: GroupRate | None
    auxiliary_batchnorm: GroupRate | None
    loss: GroupRate | None


class TrainSettings(Section):
    """epochs: 0 measures the network as it starts. head_epochs: how many of them train the head alone."""

    epochs: Annotated[int, whole(0, 100_000)]
    head_epochs: Annotated[int, whole(0, 100_000)]
    batch_size: Annotated[int, whole(4, 65_536)]
    images_per_class: Annotated[int, whole(2, 4096)]
    class_replacement: bool
    learning_rate: Annotated[float, number(1e-12, 1000)]
    learning_rates: LearningRates
    weight_decay: Annotated[float, number(0, 1000)]
    schedule: Literal["one_cycle", "constant"]
    precision: Literal["float32", "bfloat16"]
    validate_every: Annotated[int, whole(0, 100_000)]

    def problems(self) -> Iterator[Refused]:
        if self.batch_size % self.images_per_class or self.batch_size < 2 * self.images_per_class:
            each = self.images_per_class
            yield Refused("batch_size", f"a multiple of images_per_class, {each}, from {2 * each} is needed")
        if self.head_epochs > self.epochs:
            yield Refused("head_epochs", f"a whole number from 0 to epochs, {self.epochs}, is needed")


class EvaluateSettings(Section):
    ks: tuple[Annotated[int, whole(1, 10_000)], ...] = Field(strict=False, min_length=1)
    seed: Seed
    exact_limit: Annotated[int, whole(1, 1_000_000_000)]

    @field_validator("ks")
    @classmethod
    def _holds_one(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in ks:
            raise ValueError("must hold 1: the table is about Recall@1")
        return tuple(sorted(set(ks)))


class Params(Section):
    """All of params.yaml. `DatasetChoice` names the block of `datasets` in use."""

    seeds: tuple[Seed, ...] = Field(strict=False, min_length=1, max_length=1000)
    methods: Methods
    recipes: dict[Name, Annotated[tuple[Slice, ...], Field(strict=False)] | None]
    dataset: DatasetChoice
    datasets: dict[Name, DatasetSettings]
    model: ModelSettings
    loss: LossSettings
    train: TrainSettings
    attack: AttackSettings
    adversary: AdversarySettings
    corruptions: CorruptionSettings
    evaluate: EvaluateSettings

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("names a seed twice")
        return seeds

    def problems(self) -> Iterator[Refused]:
        return refusals(self)

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
