"""The shape of a goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

Array = TypeVar("Array")


@dataclass(frozen=True)
class Gallery(Generic[Array]):
    """The clean images that a goal compares with: tensors in `objective`, numpy arrays in `measure`.

    B is the number of attacked images; a row is one of the gallery, -1 for an image that it does not hold.

    embeddings: [N, D]. labels: [N].
    rows: [B], of each attacked image's own clean image. query_labels: [B], of the attacked images.
    aim_rows: [T, B], of the images that they look at.
    """

    embeddings: Array
    labels: Array
    rows: Array
    query_labels: Array
    aim_rows: Array


class Goal(Protocol):
    """What an attack wants, the same in training and in tests. `BaseGoal` has the usual answers.

    name: as in params.yaml. label: as in tables.
    many: whether it looks at `Threat.targets` images at once; otherwise at one.
    needs_start: whether it has no gradient at the clean image, so that it must start beside it.
    needs_ranking: whether `aims` needs the clean ranking.
    needs_gallery: whether `objective` and `measure` need the gallery.
    perturbs: what is moved: the query, or an image of the gallery that the query then meets.
    harms: whether it is an attack; the worst case is over those that are.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def many(self) -> bool: ...
    @property
    def needs_start(self) -> bool: ...
    @property
    def needs_ranking(self) -> bool: ...
    @property
    def needs_gallery(self) -> bool: ...
    @property
    def perturbs(self) -> Literal["query", "gallery"]: ...
    @property
    def harms(self) -> bool: ...

    def depth(self, labels: Tensor) -> int:
        """How many places of the ranking are enough, for images with these labels [N]; 0: none.

        Raises `ValueError` where no ranking is.
        """

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        """The images that each attacked one looks at: labels [N], rows [Q] of those attacked -> rows [T, Q].

        count: `Threat.targets`. Draws come from the generator alone. A goal that looks at none
        returns [0, Q].
        ranking: [Q, `depth` or more], rows by their clean distance from each attacked image, the
            nearest first, its own row left out; on the device of the labels.

        Raises `ValueError` where there is no such image.
        """

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        """What the attack makes small, for each image by itself: [B, D], [T, B, D] -> [B]."""

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """How far it got, by name, for each image: [Q, D], its clean embedding [Q, D], [T, Q, D] -> [Q].

        What is reported is the mean over the images.
        """


@dataclass(frozen=True, kw_only=True)
class BaseGoal:
    """What most goals answer; a goal of one's own says the rest."""

    name: str
    label: str
    many: bool = False
    needs_start: bool = False
    needs_ranking: bool = False
    needs_gallery: bool = False
    perturbs: Literal["query", "gallery"] = "query"
    harms: bool = True

    def depth(self, labels: Tensor) -> int:
        return 0

    def _given(self, gallery: Gallery[Array] | None) -> Gallery[Array]:
        if gallery is None:
            raise ValueError(f"goal {self.name} compares with the gallery: give it one")
        return gallery

    def _ranked(self, ranking: Tensor | None) -> Tensor:
        if ranking is None:
            raise ValueError(f"goal {self.name} looks at near images: give it the clean ranking")
        return ranking
