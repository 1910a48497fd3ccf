"""Shared by the labs on masked pretraining: their settings, and the trials that these describe."""

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from vitscope.labs.lab import AbstractLab
from vitscope.labs.masked.areas import HUANG, pairs_of
from vitscope.labs.masked.clusters import ClusteredPatches
from vitscope.labs.masked.training import MaskedTrial
from vitscope.measurement.bounds import SHARE, bounded_field
from vitscope.measurement.trials import log_spaced


@dataclass(frozen=True, kw_only=True)
class AbstractMaskedLab(AbstractLab[MaskedTrial]):
    """A lab whose trials train one attention layer on masked patches."""

    references: ClassVar[tuple[str, ...]] = (HUANG,)
    at_once: ClassVar[int] = 4

    clusters: int = 3
    """Clusters of images, K; each has its own partition into areas."""
    masked_share: float = bounded_field(0.75, SHARE)
    """Share of the patches that is hidden, gamma."""
    low: float = 1.0
    """Smallest strength of an area, Lo."""
    high: float = 1.0
    """Largest strength of an area, U."""
    rate: float = 6.0
    """Learning rate."""
    steps: int = 500
    """Steps of training."""
    batch_size: int = 48
    """Fresh samples of a step."""
    evaluated: int = 256
    """Samples on which a model is evaluated."""
    trials: int = 4
    """Trials of each setting, with consecutive seeds."""
    seed: int = 0
    """Seed of the first trial."""

    @property
    @abstractmethod
    def data(self) -> tuple[ClusteredPatches, ...]:
        """The distribution of each setting."""

    def areas_of(self, patches: int, whole: int, local: int) -> ClusteredPatches:
        """The distribution with these numbers of patches in an image, in the global area and in a local one."""
        return ClusteredPatches(patches, self.clusters, whole, local, self.low, self.high, self.masked_share)

    def plan_trials(self) -> tuple[MaskedTrial, ...]:
        """A trial for each setting and seed, seeds fastest."""
        seeds = range(self.seed, self.seed + self.trials)
        return tuple(MaskedTrial(data, seed, self.rate) for data in self.data for seed in seeds)

    def cost(self, trial: MaskedTrial) -> float:
        """Pairs of patches that its steps process."""
        return float(self.steps * self.batch_size * trial.setting.patches**2)


@dataclass(frozen=True, kw_only=True)
class AbstractAreasLab(AbstractMaskedLab):
    """A masked lab over settings of the areas, for one number of patches, with readings along the steps."""

    areas: str = "80/4,20/8"
    """Patches of the global area / of a local area; several separated by commas."""
    patches: int = 100
    """Patches of an image, P."""

    @property
    def data(self) -> tuple[ClusteredPatches, ...]:
        """The distribution of each setting of the areas."""
        return tuple(self.areas_of(self.patches, one, other) for one, other in pairs_of(self.areas, "areas"))

    @property
    def recorded(self) -> tuple[int, ...]:
        """Steps at which a model is evaluated, evenly spaced in their logarithm."""
        return log_spaced(self.steps, 24)[1:]

    def form(self, trial: MaskedTrial) -> Hashable:
        """The number of areas."""
        return trial.setting.areas
