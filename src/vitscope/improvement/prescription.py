"""Prescriptions: what a finding suggests, as edits with a range of settings."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from vitscope.improvement.splits import Splits
from vitscope.models.subject import Subject
from vitscope.runs.registry import Registry


@dataclass(frozen=True)
class AbstractMove(ABC):
    """One edit with its settings, which the search may take. Two moves of equal fields are one."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The move in words, such as ``leave out blocks.3.attn``."""

    @abstractmethod
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        """The subject after the edit, repaired on the calibration images. Raises ``UserError`` if it is impossible."""

    def at_random(self, subject: Subject, seed: int) -> "AbstractMove":
        """A move of the same cost that chooses at random what it removes: the control. By default, the move itself."""
        del subject, seed
        return self


@dataclass(frozen=True)
class AbstractPrescription(ABC):
    """A kind of edit that may make a model better. One file, one registered final class with defaults.

    ``goals`` are those that it serves by default; ``findings`` are the names of the findings whose *what to try* it is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    goals: ClassVar[frozenset[str]]
    findings: ClassVar[frozenset[str]] = frozenset()
    references: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        """The moves that are possible from this subject, edited or not; none if the kind of edit does not fit it."""


PRESCRIPTIONS: Registry[AbstractPrescription] = Registry(
    "prescription", "vitscope.improvement.prescriptions", AbstractPrescription
)
