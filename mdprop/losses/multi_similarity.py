"""The multi-similarity loss, the paper's main one."""

from __future__ import annotations

from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor, nn


class MultiSimilarityLoss(nn.Module):
    """Multi-similarity loss with its pair mining (Wang et al. 2019; section 4.2 of the paper).

    With s the inner product, the loss of an anchor is
    log(1 + Σ exp(−pos_weight (s − threshold))) / pos_weight over its positives
    + log(1 + Σ exp(neg_weight (s − threshold))) / neg_weight over its negatives,
    where positives stay if s − margin is below the hardest negative and negatives if s + margin is
    above the hardest positive. The mean runs over the anchors that kept pairs.

    Where no anchor keeps any, the loss is 0 with a gradient of 0 (the authors' code crashes).
    """

    def __init__(
        self,
        pos_weight: float = 2.0,
        neg_weight: float = 40.0,
        margin: float = 0.1,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        similarity = distances.DotProductSimilarity(normalize_embeddings=False)
        self.miner = miners.MultiSimilarityMiner(epsilon=margin, distance=similarity)
        self.loss = losses.MultiSimilarityLoss(
            alpha=pos_weight,
            beta=neg_weight,
            base=threshold,
            distance=similarity,
            reducer=reducers.AvgNonZeroReducer(),
        )

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings [B, D] of unit norm, labels [B] -> scalar."""
        return self.loss(embeddings, labels, self.miner(embeddings, labels))
