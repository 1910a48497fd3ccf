"""The mini-batches whose losses a curvature diagnostic examines."""

from dataclasses import dataclass, replace

import torch

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.engine.curvature.hessian import Precision
from vitscope.engine.curvature.part import Per
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject


@dataclass(frozen=True)
class LossSample:
    """Which losses are examined: mini-batches of ``batch`` images, the first ``batches`` of a seeded shuffle."""

    batch: int
    batches: int
    per: Per
    precision: Precision
    seed: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.batches < 1:
            raise UserError(
                f"The sample has {self.batches} mini-batches of {self.batch} images; both must be 1 or more."
            )

    @property
    def graph(self) -> tuple[object, ...]:
        """What diagnostics must agree on to share the graphs of their losses."""
        return (self.batch, self.batches, self.precision, self.seed)

    def count(self, images: Images) -> int:
        """How many mini-batches there are: only full ones, unless there is not even one."""
        return min(self.batches, max(1, len(images) // self.batch))

    def generator(self, minibatch: int) -> torch.Generator:
        """The random numbers of a mini-batch, the same in every process."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + minibatch)

    def shuffle(self, images: Images) -> Images:
        """The images in a random order: that of a folder would put a single class into a mini-batch."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed)).numpy()
        annotation = None if images.annotation is None else images.annotation.take(order)
        return replace(images, positions=images.positions[order], annotation=annotation)

    def minibatch(self, subject: Subject, images: Images, number: int) -> Batch:
        """One mini-batch of the images."""
        (batch,) = self.shuffle(images).batches(subject.preprocessing.transform, self.batch, number, number + 1)
        return batch
