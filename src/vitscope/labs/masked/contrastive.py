"""The contrastive objective: two masks of an image should look alike, and unlike other images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from vitscope.labs.masked.clusters import MaskedSamples
from vitscope.labs.masked.position_attention import Correlations, PositionAttention, SlotAttention, slot_gradient
from vitscope.labs.masked.training import AbstractMaskedObjective


@dataclass(frozen=True)
class Contrastive(AbstractMaskedObjective):
    r"""InfoNCE between two masks of each image, with stop-gradient on the second, plus an l2 penalty on Q.

    .. math:: -\frac1B \sum_i \log \frac{e^{r_i \cdot r'_i / \tau}}{\sum_j e^{r_i \cdot r'_j / \tau}}
       + \frac{\lambda}{2} \lVert Q \rVert_F^2, \qquad r = \frac1P \sum_p F_p

    All patches are queries, and the positive pair is in the sum. The norm of Q is that of its correlations, since their
    coordinates are orthonormal. Representations are not normalised; temperature and penalty are settings, since the
    paper's own are not on record (Huang et al., arXiv 2403.02233v3, as recalled). A query's share of r is 1/P, so
    learning rates are about P times those of reconstruction.

    A query's gradient does not depend on the query, so from Q = 0 all queries attend alike forever, up to rounding.
    Which area they attend to depends on the temperature; at 1 it is the global one.
    """

    temperature: float = 1.0
    """Temperature, tau."""
    penalty: float = 0.0
    """Weight of the penalty, lambda."""

    @property
    @override
    def views(self) -> int:
        return 2

    def loss(self, model: PositionAttention, views: Sequence[MaskedSamples]) -> Float[Tensor, " trials"]:
        """The objective, for each trial."""
        one, other = (model.attend(view) for view in views)
        scores, _ = self._scores(one, representation(one), representation(other))
        contrast = (scores.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)).mean(-1)
        found = model.correlations
        squares = found.feature.square().sum((1, 2, 3)) + found.position.square().sum((1, 2))
        return contrast + self.penalty / 2 * squares

    def gradient(self, model: PositionAttention, views: Sequence[MaskedSamples]) -> Correlations:
        """The gradient in closed form; the second view is a constant."""
        one, other = (model.attend(view) for view in views)
        target = representation(other)
        scores, same = self._scores(one, representation(one), target)
        towards = torch.bmm(scores.softmax(-1) * same, target) - target
        push = one.strengths * towards / (self.temperature * one.keys.shape[-1])
        contrast = slot_gradient(one, push.unsqueeze(-1).expand_as(one.mass), torch.ones_like(one.hidden))
        return contrast.plus(model.correlations, self.penalty)

    def _scores(self, one: SlotAttention, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities over the temperature, 0 between clusters (their features are orthogonal); who shares one."""
        clusters = one.samples.clusters
        same = (clusters.unsqueeze(-1) == clusters.unsqueeze(-2)).to(first)
        return torch.bmm(first, second.mT) * same / self.temperature, same


def representation(attention: SlotAttention) -> Float[Tensor, "trials samples slots"]:
    r""":math:`\frac1P \sum_p F_p` of each image, in the coordinates of its cluster's features; 0 for hidden keys."""
    return attention.strengths * attention.mass.mean(-1)
