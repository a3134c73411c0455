"""The multi-similarity loss, the paper's main one."""

from __future__ import annotations

import torch
from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_pairs
from torch import Tensor, nn
from torch.nn import functional as F


class MultiSimilarityLoss(nn.Module):
    """Multi-similarity loss with its pair mining (Wang et al. 2019; section 4.2 of the paper).

    With s the inner product, the loss of an anchor is
    log(1 + Σ exp(−pos_weight (s − threshold))) / pos_weight over its positives
    + log(1 + Σ exp(neg_weight (s − threshold))) / neg_weight over its negatives,
    where positives stay if s − margin is below the hardest negative and negatives if s + margin is
    above the hardest positive. The mean runs over the anchors that kept pairs.

    Where no anchor keeps any, the loss is 0 with a gradient of 0 (the authors' code crashes).
    Memory is O(B²), and nothing waits for the device.
    """

    def __init__(
        self,
        pos_weight: float = 2.0,
        neg_weight: float = 40.0,
        margin: float = 0.1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if pos_weight <= 0 or neg_weight <= 0:
            raise ValueError(f"pos_weight = {pos_weight}, neg_weight = {neg_weight}: both must be above 0")
        self.pos_weight = pos_weight
        self.neg_weight = neg_weight
        self.margin = margin
        self.threshold = threshold

    def forward(self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None) -> Tensor:
        """embeddings [B, D] of unit norm, labels [B] -> scalar.

        mined: what a miner of pytorch-metric-learning returns, (anchors, positives, negatives) or
            (anchors, positives, anchors, negatives); these pairs replace the loss's own mining.
        """
        similarity = embeddings @ embeddings.T
        if mined is None:
            positive, negative = self._mine(similarity.detach(), labels)
        else:
            positive, negative = _as_masks(mined, labels)
        excess = similarity - self.threshold
        losses = (
            _log_one_plus_sum_exp(-self.pos_weight * excess, positive) / self.pos_weight
            + _log_one_plus_sum_exp(self.neg_weight * excess, negative) / self.neg_weight
        )
        kept = (positive | negative).any(dim=1)
        return (losses * kept).sum() / kept.sum().clamp(min=1)

    def _mine(self, similarity: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        same = labels[:, None] == labels
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        hardest_positive = similarity.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
        hardest_negative = similarity.masked_fill(same, -torch.inf).amax(dim=1, keepdim=True)
        return (
            positive & (similarity - self.margin < hardest_negative),
            ~same & (similarity + self.margin > hardest_positive),
        )


def _as_masks(mined: tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, Tensor]:
    anchors, positives, other_anchors, negatives = convert_to_pairs(mined, labels)
    positive, negative = torch.zeros(2, len(labels), len(labels), dtype=torch.bool, device=labels.device)
    positive[anchors, positives] = True
    negative[other_anchors, negatives] = True
    return positive, negative


def _log_one_plus_sum_exp(exponents: Tensor, kept: Tensor) -> Tensor:
    """log(1 + Σ exp) over the kept entries of each row; 0 where there are none."""
    lowest = torch.finfo(exponents.dtype).min
    return F.softplus(exponents.masked_fill(~kept, lowest).logsumexp(dim=1))
