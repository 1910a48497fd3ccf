r"""One attention layer with one matrix, reduced to correlations, and what it pays attention to.

The model is :math:`\mathrm{attn}_{p \to q} = \mathrm{softmax}_q(e_p^\top Q (M(X)_q + e_q))`, :math:`F_p = \sum_q
\mathrm{attn}_{p \to q} M(X)_q`, with orthonormal position codes :math:`e` orthogonal to the features, and hidden
patches zero but still keys. The score is

.. math:: z_{a(q)} \, \Phi_{p \to v_{k, a(q)}} \, 1\{q \text{ visible}\} + \Upsilon_{p \to q}, \qquad
   \Phi_{p \to v} = e_p^\top Q v, \quad \Upsilon_{p \to q} = e_p^\top Q e_q,

and gradient descent on Q from zero is gradient descent on :math:`(\Phi, \Upsilon)`, since they are coordinates of Q
in orthonormal vectors. Within an area the visible keys share a feature and a strength, so that

.. math:: e^{\mathrm{score}} = w_{p, s(q)} \, e^{\Upsilon_{pq}}, \qquad w_{p, m} = e^{z_m \Phi_{p \to v_m}},

where the slot s(q) is the area of a visible key and one more, of weight 1, for all hidden keys. Sums over keys are
then products of one P x P matrix with one-hot rows: no array of samples x queries x keys is made, and exponentials are
taken of P x P + samples x slots x P numbers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vitscope.labs.masked.clusters import MaskedSamples


@dataclass(frozen=True, eq=False)
class Correlations:
    """Q in the coordinates that learn: the model's own, or the gradient of a loss in them."""

    feature: Float[Tensor, "trials patches clusters areas"]
    """Phi: query patch with the feature of an area of a cluster."""
    position: Float[Tensor, "trials patches patches"]
    """Upsilon: query patch with the position of a key patch."""

    def plus(self, other: "Correlations", scale: float | Tensor = 1.0) -> "Correlations":
        """Its sum with ``scale`` times the other; a tensor has one scale for each trial."""
        scale = torch.as_tensor(scale, dtype=self.feature.dtype, device=self.feature.device)
        return Correlations(
            self.feature + scale.reshape(-1, 1, 1, 1) * other.feature,
            self.position + scale.reshape(-1, 1, 1) * other.position,
        )


@dataclass(frozen=True, eq=False)
class SlotAttention:
    """Attention of every patch in every image, key slot by key slot: one for each area's visible keys, one for hidden.

    The attention of query p to key q is ``exponential[p, q] * weight[s(q), p]``.
    """

    samples: MaskedSamples
    clusters: int
    """The number of clusters."""
    strengths: Float[Tensor, "trials samples slots"]
    """Strength z of the keys of a slot; 0 for hidden ones."""
    keys: Float[Tensor, "trials samples slots patches"]
    """One-hot: which slot a key is in."""
    queries: Float[Tensor, "trials samples slots patches"]
    """One-hot: the slot of the visible keys of a query's own area."""
    exponential: Float[Tensor, "trials patches patches"]
    weight: Float[Tensor, "trials samples slots patches"]
    mass: Float[Tensor, "trials samples slots patches"]
    """Attention of a query to all keys of a slot; sums to 1 over slots."""

    @property
    def area(self) -> Float[Tensor, "trials samples areas patches"]:
        """Attention of a query to the visible patches of each area of its image."""
        return self.mass[..., :-1, :]

    @property
    def own(self) -> Float[Tensor, "trials samples patches"]:
        """Attention of a query to the visible patches of its own area."""
        return (self.mass * self.queries).sum(-2)

    @property
    def own_is_visible(self) -> Float[Tensor, "trials samples patches"]:
        """1 where a patch of the query's own area is visible, otherwise 0."""
        seen = (self.keys.sum(-1, keepdim=True) > 0).to(self.mass)
        return (seen * self.queries).sum(-2)

    @property
    def hidden(self) -> Float[Tensor, "trials samples patches"]:
        """1 where the query is hidden, otherwise 0."""
        return self.keys[..., -1, :]

    def dense(self) -> Float[Tensor, "trials samples patches patches"]:
        """The attention itself, query by key. Cost: samples x P x P numbers."""
        weight = torch.einsum("tbsp,tbsq->tbpq", self.weight, self.keys)
        return weight * self.exponential[:, None]


@dataclass(frozen=True, eq=False)
class PositionAttention:
    """One attention matrix on feature plus position, for each of several trials."""

    correlations: Correlations
    partition: Int[Tensor, "trials clusters patches"]
    """Area of every patch in every cluster."""

    def attend(self, samples: MaskedSamples) -> SlotAttention:
        """Attention on these samples. Cost: 2 samples x slots x P^2 operations."""
        feature, position = self.correlations.feature, self.correlations.position
        trial = torch.arange(len(feature), device=feature.device)[:, None]
        slot = torch.arange(feature.shape[3] + 1, device=feature.device)[:, None]
        areas = self.partition[trial, samples.clusters].unsqueeze(-2)
        queries = (areas == slot).to(feature)
        keys = (areas.masked_fill(~samples.visible.unsqueeze(-2), len(slot) - 1) == slot).to(feature)
        strengths = functional.pad(samples.strengths, (0, 1))
        exponential = (position - position.amax(-1, keepdim=True)).exp_()
        sums = torch.bmm(keys.flatten(1, 2), exponential.mT).view(keys.shape)
        of_slot = functional.pad(feature.permute(0, 2, 3, 1), (0, 0, 0, 1))
        scores = of_slot[trial, samples.clusters].mul_(strengths[..., None]).masked_fill_(sums == 0, -torch.inf)
        weight = scores.sub_(scores.amax(-2, keepdim=True)).exp_()
        mass = sums.mul_(weight)
        normaliser = mass.sum(-2, keepdim=True).reciprocal_()
        weight, mass = weight.mul_(normaliser), mass.mul_(normaliser)
        return SlotAttention(samples, feature.shape[2], strengths, keys, queries, exponential, weight, mass)

    def descend(self, gradient: Correlations, rate: float | Tensor) -> "PositionAttention":
        """The model after a step of gradient descent at this rate, or at one rate for each trial."""
        return PositionAttention(self.correlations.plus(gradient, -rate), self.partition)


def at_zero(
    partition: Int[Tensor, "trials clusters patches"], areas: int, dtype: torch.dtype = torch.float64
) -> PositionAttention:
    """The model with Q = 0, whose attention is uniform."""
    trials, clusters, patches = partition.shape
    zero = torch.zeros(trials, patches, clusters, areas, dtype=dtype, device=partition.device)
    return PositionAttention(Correlations(zero, zero.new_zeros(trials, patches, patches)), partition)


def reconstruction_loss(attention: SlotAttention) -> Float[Tensor, "trials samples"]:
    r""":math:`\tfrac12 \sum_{p \text{ hidden}} \lVert F_p - X_p \rVert^2`, one for each image."""
    residual = attention.strengths[..., None] * (attention.mass - attention.queries)
    return (residual.square_().sum(-2) * attention.hidden).sum(-1) / 2


def unavoidable_loss(attention: SlotAttention) -> Float[Tensor, "trials samples"]:
    r"""The infimum of :func:`reconstruction_loss` over all attention: :math:`\tfrac12 \sum z_a^2` of blind patches.

    A patch is blind if its whole area is hidden. All other hidden patches can be rebuilt as closely as wanted.
    """
    squares = (attention.strengths.square()[..., None] * attention.queries).sum(-2)
    return (squares * attention.hidden * (1 - attention.own_is_visible)).sum(-1) / 2


def reconstruction_gradient(attention: SlotAttention) -> Correlations:
    r"""Gradient of the mean of :func:`reconstruction_loss` over the samples.

    With a the area of the hidden query p and :math:`A_m` its attention to area m, minus the gradient is

    .. math:: E[z_a A_a (z_a^2 (1 - A_a)^2 + \sum_{m \ne a} z_m^2 A_m^2)] \ge 0 \quad \text{for } \Phi_{p \to v_a},

    .. math:: E[z_m A_m (\sum_{m' \ne m, a} z_{m'}^2 A_{m'}^2 - z_m^2 A_m (1 - A_m) - z_a^2 (1 - A_a) A_a)] \quad
       \text{for } \Phi_{p \to v_m},

    .. math:: -E[\mathrm{attn}_q (g_q - \bar g)] \quad \text{for } \Upsilon_{p \to q},

    with :math:`g_q` of :math:`-z_a^2 (1 - A_a)` for a visible key of area a, :math:`z_m^2 A_m` for area m, 0 for a
    hidden key, and :math:`\bar g = \sum_q \mathrm{attn}_q g_q`. All three are one formula, :func:`slot_gradient`.
    """
    push = (attention.mass - attention.queries).mul_(attention.strengths.square()[..., None])
    return slot_gradient(attention, push, attention.hidden)


def slot_gradient(
    attention: SlotAttention,
    push: Float[Tensor, "trials samples slots patches"],
    counted: Float[Tensor, "trials samples patches"],
) -> Correlations:
    r"""Gradient of a mean over samples, from ``push``, a sample's derivative by the attention to one key of a slot.

    .. math:: \partial \Phi_{p \to v_{k,m}} = E[1_k \, c_p \, z_m A_m (g_m - \bar g)], \qquad
       \partial \Upsilon_{pq} = E[c_p \, \mathrm{attn}_{pq} (g_{s(q)} - \bar g)]

    ``counted`` is the weight c of a query. Cost: 2 samples x slots x P^2 operations.
    """
    clusters, shape = attention.samples.clusters, push.shape
    centred = attention.mass * push
    torch.sub(push, centred.sum(-2, keepdim=True), out=centred)
    centred.mul_((counted / shape[1])[..., None, :])
    moved = (attention.mass * centred).mul_(attention.strengths[..., None])
    of_cluster = functional.one_hot(clusters, attention.clusters).to(push)
    feature = torch.bmm(of_cluster.mT, moved.flatten(2)).view(len(push), -1, *shape[2:])
    of_keys = centred.mul_(attention.weight).flatten(1, 2)
    position = torch.bmm(of_keys.mT, attention.keys.flatten(1, 2)).mul_(attention.exponential)
    return Correlations(feature[:, :, :-1].permute(0, 3, 1, 2), position)
