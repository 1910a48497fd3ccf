"""Work that is cut into shards: what executors carry out, whatever is folded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

from vitscope.data import Broken, Images
from vitscope.models.subject import Subject

Amount = float | int
"""An amount of work: forward passes of one image through the model, or trials."""
Advance = Callable[[Amount], None]
"""Called with each amount of work as it is done."""


@dataclass(frozen=True)
class Shard:
    """The batches (or trials) ``start`` to ``stop``, for the ``block`` of settings if there are several."""

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
    """A shard's result."""

    @property
    @abstractmethod
    def done(self) -> int:
        """How much of the shard it covers, in the units that the work counts."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The result as it is saved and sent."""


@dataclass(frozen=True)
class AbstractImagesResult(AbstractResult):
    """The result of a shard of images; results of the same settings can be merged, in any grouping."""

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
        """The fixed shards, in the order they are started in; they do not depend on the executor."""

    def passes(self, shard: Shard) -> Amount:
        """The cost of each image of the shard, in forward passes through the model; or of each trial."""
        del shard
        return 1

    @abstractmethod
    def fold(self, shard: Shard, advance: Advance) -> Result:
        """One shard's result; ``advance`` is called with the work done, in total ``passes`` for each image."""

    @abstractmethod
    def read(self, content: bytes) -> Result:
        """The result from the bytes that its ``to_bytes`` wrote."""

    def fits(self, shard: Shard, result: Result) -> bool:
        """Whether a saved result can be the shard's, and was not sharded differently by another version."""
        del shard, result
        return True


@dataclass(frozen=True)
class AbstractSubjectWork(AbstractWork[Result]):
    """Work on a model and images."""

    subject: Subject
    images: Images
