"""Clustered patches: images of areas, each of one feature of one strength, with patches hidden at random."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitscope.measurement.errors import UserError


@dataclass(frozen=True, eq=False)
class MaskedSamples:
    """Images with hidden patches, without the features themselves."""

    clusters: Int[Tensor, "trials samples"]
    """Cluster of each image."""
    strengths: Float[Tensor, "trials samples areas"]
    """Strength z of each area of it; the global area is the first."""
    visible: Bool[Tensor, "trials samples patches"]
    """Which patches are not hidden."""

    def to(self, dtype: torch.dtype, device: torch.device) -> "MaskedSamples":
        """The samples on this device, with strengths in this precision."""
        return MaskedSamples(self.clusters.to(device), self.strengths.to(device, dtype), self.visible.to(device))


@dataclass(frozen=True)
class ClusteredPatches:
    r"""The spatial distribution of masked pretraining (Huang et al., arXiv 2403.02233, its data model).

    An image belongs to one of ``clusters``, uniformly. A cluster partitions the ``patches`` into one global area of
    ``global_size`` patches and local areas of ``local_size``. Area m of cluster k has a feature :math:`v_{k,m}`, all of
    them orthonormal, and in each image a strength :math:`z_m`, uniform on [``low``, ``high``] and independent; a patch
    of it is :math:`z_m v_{k,m}`. A uniformly random subset of ``masked`` patches is hidden, that is, set to zero.

    Raises ``UserError`` for sizes that do not partition the patches, an invalid range, and a share that hides none or
    all.
    """

    patches: int = 100
    """Patches of an image, P."""
    clusters: int = 3
    """Clusters of images, K."""
    global_size: int = 80
    """Patches of the global area, C_1."""
    local_size: int = 4
    """Patches of a local area, C_s."""
    low: float = 1.0
    """Smallest strength, Lo; at least 0."""
    high: float = 1.0
    """Largest strength, U."""
    masked_share: float = 0.75
    """Share of hidden patches, gamma, rounded to a whole number of patches."""

    def __post_init__(self) -> None:
        rest = self.patches - self.global_size
        if min(self.clusters, self.global_size, self.local_size, rest) < 1 or rest % self.local_size:
            raise UserError(
                f"a global area of {self.global_size} and local areas of {self.local_size} do not partition "
                f"{self.patches} patches; make patches minus global size a multiple of the local size."
            )
        if not 0 <= self.low <= self.high or self.high == 0:
            raise UserError(f"strengths from {self.low} to {self.high} are no range; take 0 <= low <= high, high > 0.")
        if not 1 <= self.masked < self.patches:
            raise UserError(
                f"a masked share of {self.masked_share} hides {self.masked} of {self.patches} patches; "
                "choose one that hides some and leaves some."
            )

    @property
    def areas(self) -> int:
        """Areas of a cluster, N."""
        return 1 + (self.patches - self.global_size) // self.local_size

    @property
    def masked(self) -> int:
        """Hidden patches of an image, gamma P rounded."""
        return round(self.masked_share * self.patches)

    @property
    def global_exponent(self) -> float:
        """kappa_c, of ``global_size`` = P^kappa_c."""
        return math.log(self.global_size) / math.log(self.patches)

    @property
    def local_exponent(self) -> float:
        """kappa_s, of ``local_size`` = P^kappa_s."""
        return math.log(self.local_size) / math.log(self.patches)

    @property
    def information_gap(self) -> float:
        r""":math:`\Delta = (1 - \kappa_s) - 2 (1 - \kappa_c)`.

        Above 0, a local query first unlearns the global feature and only then finds its own area; below 0, it finds
        its own area from the start.
        """
        return (1 - self.local_exponent) - 2 * (1 - self.global_exponent)

    def strength_moment(self, power: int) -> float:
        r""":math:`E z^n = \sum_{i=0}^{n} U^i \, Lo^{n-i} / (n + 1)`."""
        return sum(self.high**i * self.low ** (power - i) for i in range(power + 1)) / (power + 1)

    def partition(self, generator: torch.Generator) -> Int[Tensor, "clusters patches"]:
        """Area of every patch in every cluster; 0 is the global area. Partitions are uniform and independent."""
        local = torch.arange(1, self.areas).repeat_interleave(self.local_size)
        areas = torch.cat([local.new_zeros(self.global_size), local])
        return torch.stack([areas[torch.randperm(self.patches, generator=generator)] for _ in range(self.clusters)])

    def draw(self, count: int, generator: torch.Generator) -> MaskedSamples:
        """``count`` images as one trial, in float64 on the CPU."""
        clusters = torch.randint(self.clusters, (1, count), generator=generator)
        unit = torch.rand(1, count, self.areas, generator=generator, dtype=torch.float64)
        strengths = self.low + (self.high - self.low) * unit
        return MaskedSamples(clusters, strengths, self._visible(count, generator))

    def mask_again(self, samples: MaskedSamples, generator: torch.Generator) -> MaskedSamples:
        """The same images of one trial under other masks: the second view of a contrastive pair."""
        return replace(samples, visible=self._visible(samples.visible.shape[1], generator))

    def _visible(self, count: int, generator: torch.Generator) -> Bool[Tensor, "1 count patches"]:
        order = torch.rand(count, self.patches, generator=generator, dtype=torch.float64)
        seen = order.topk(self.patches - self.masked, sorted=False).indices
        return torch.zeros(1, count, self.patches, dtype=torch.bool).scatter_(2, seen[None], value=True)


def concatenate(trials: list[MaskedSamples]) -> MaskedSamples:
    """Samples of several trials, of equal shapes, along the trial axis."""
    parts = [(one.clusters, one.strengths, one.visible) for one in trials]
    return MaskedSamples(*(torch.cat(list(part)) for part in zip(*parts, strict=True)))
