"""The losses and miners of pytorch-metric-learning that a parameter file can name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pytorch_metric_learning import losses, miners
from torch import Tensor, nn


@dataclass(frozen=True)
class Choice:
    """What a name stands for.

    make: the class.
    also: further constructors whose named parameters `make` takes through its **kwargs.
    mined: whether it takes the pairs or triplets of a miner.
    """

    make: Callable[..., nn.Module]
    also: tuple[Callable[..., nn.Module], ...] = ()
    mined: bool = True


class _MarginLoss(losses.MarginLoss):
    """A beta for each class only where it is learnt; the library leaves fixed ones on the host."""

    def initialize_beta(self, beta: float, num_classes: int) -> None:
        super().initialize_beta(beta, num_classes if self.learn_beta else None)


# Left out: losses that need more than a batch and its labels (self-supervised, cross-batch memory, manifold,
# VICReg, instance), that keep a state outside the state dict (dynamic soft margin), that expect the batch
# sorted by class (smooth AP), and histogram, whose indexing newer versions of PyTorch read differently.
PAIR_LOSSES: dict[str, Choice] = {
    "angular": Choice(losses.AngularLoss),
    "circle": Choice(losses.CircleLoss),
    "contrastive": Choice(losses.ContrastiveLoss),
    "fast_ap": Choice(losses.FastAPLoss, mined=False),
    "generalized_lifted_structure": Choice(losses.GeneralizedLiftedStructureLoss),
    "intra_pair_variance": Choice(losses.IntraPairVarianceLoss),
    "lifted_structure": Choice(losses.LiftedStructureLoss),
    "margin": Choice(_MarginLoss, also=(losses.MarginLoss,)),
    "n_pairs": Choice(losses.NPairsLoss),
    "nca": Choice(losses.NCALoss, mined=False),
    "nt_xent": Choice(losses.NTXentLoss),
    "pnp": Choice(losses.PNPLoss, mined=False),
    "ranked_list": Choice(losses.RankedListLoss, mined=False),
    "signal_to_noise_contrastive": Choice(
        losses.SignalToNoiseRatioContrastiveLoss, also=(losses.ContrastiveLoss,)
    ),
    "sup_con": Choice(losses.SupConLoss),
    "threshold_consistent_margin": Choice(losses.ThresholdConsistentMarginLoss),
    "triplet_margin": Choice(losses.TripletMarginLoss),
    "tuplet_margin": Choice(losses.TupletMarginLoss),
}

CLASS_LOSSES: dict[str, Choice] = {
    "cos_face": Choice(losses.CosFaceLoss, also=(losses.LargeMarginSoftmaxLoss,), mined=False),
    "large_margin_softmax": Choice(losses.LargeMarginSoftmaxLoss, mined=False),
    "normalized_softmax": Choice(losses.NormalizedSoftmaxLoss, mined=False),
    "p2s_grad": Choice(losses.P2SGradLoss, mined=False),
    "proxy_anchor": Choice(losses.ProxyAnchorLoss, mined=False),
    "proxy_nca": Choice(losses.ProxyNCALoss, also=(losses.NCALoss,), mined=False),
    "soft_triple": Choice(losses.SoftTripleLoss, mined=False),
    "sphere_face": Choice(losses.SphereFaceLoss, mined=False),
    "subcenter_arcface": Choice(losses.SubCenterArcFaceLoss, also=(losses.ArcFaceLoss,), mined=False),
}

MINERS: dict[str, Choice] = {
    "angular": Choice(miners.AngularMiner),
    "batch_easy_hard": Choice(miners.BatchEasyHardMiner),
    "batch_hard": Choice(miners.BatchHardMiner),
    "distance_weighted": Choice(miners.DistanceWeightedMiner),
    "hdc": Choice(miners.HDCMiner),
    "multi_similarity": Choice(miners.MultiSimilarityMiner),
    "pair_margin": Choice(miners.PairMarginMiner),
    "triplet_margin": Choice(miners.TripletMarginMiner),
    "uniform_histogram": Choice(miners.UniformHistogramMiner),
}


class MinedLoss(nn.Module):
    """A loss over the pairs or triplets that a miner picks from the batch."""

    def __init__(self, loss: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings [B, D], labels [B] -> scalar."""
        mined: Any = self.miner(embeddings, labels)
        return self.loss(embeddings, labels, mined)
