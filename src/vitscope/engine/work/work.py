"""Work that is cut into shards: what executors carry out, whatever is folded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

from vitscope.data import Broken, Images
from vitscope.models.subject import Subject

Amount = float | int
"""How much there is to do: forward passes of one image through the model, or trials."""
Advance = Callable[[Amount], None]
"""Told how much is done as it is done."""


@dataclass(frozen=True)
class Shard:
    """The batches (or trials) ``start`` to ``stop``, for the ``block`` of settings where there are several."""

    start: int
    stop: int
    block: int = 0

    @property
    def name(self) -> str:
        """Its file's name among the parts of an unfinished run."""
        block = f"-block-{self.block:06d}" if self.block else ""
        return f"shard-{self.start:06d}-{self.stop:06d}{block}"


@dataclass(frozen=True)
class AbstractResult(ABC):
    """What a shard came to."""

    @property
    @abstractmethod
    def done(self) -> int:
        """How much it stands for, in what the work counts."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The result as it is kept and sent."""


@dataclass(frozen=True)
class AbstractImagesResult(AbstractResult):
    """What a shard of images came to; results of the same settings can be merged, in any grouping."""

    images: int
    broken: tuple[Broken, ...]

    @property
    def done(self) -> int:
        """The images, broken ones included."""
        return self.images + len(self.broken)


Result = TypeVar("Result", bound=AbstractResult)
Finished = Generator[tuple[Shard, Result]]
"""Shards with their results, in any order."""


@dataclass(frozen=True)
class AbstractWork(ABC, Generic[Result]):
    """All that folding a shard needs; a frozen value, sent once to every worker."""

    @abstractmethod
    def shards(self) -> tuple[Shard, ...]:
        """The fixed shards, in the order they are begun in; they do not depend on who folds them."""

    def passes(self, shard: Shard) -> Amount:
        """What each image of the shard costs, in forward passes through the model; what each trial costs."""
        del shard
        return 1

    @abstractmethod
    def fold(self, shard: Shard, advance: Advance) -> Result:
        """One shard's result; ``advance`` is told of what is done, in all ``passes`` for each of its images."""

    @abstractmethod
    def read(self, content: bytes) -> Result:
        """The result whose ``to_bytes`` these are."""

    def fits(self, shard: Shard, result: Result) -> bool:
        """Whether a kept result can be the shard's, and was not cut in another way by another version."""
        del shard, result
        return True


@dataclass(frozen=True)
class AbstractSubjectWork(AbstractWork[Result]):
    """Work on a model and images."""

    subject: Subject
    images: Images
