"""Grids of interventions: the axes along which a study varies, and what is done at every point."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import ClassVar

from vitscope.data import Images
from vitscope.engine.intervention import AbstractIntervention
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import AnyDiagnostic
from vitscope.measurement.axes import AXES
from vitscope.measurement.bounds import check_bounds
from vitscope.measurement.quantity import Quantity
from vitscope.models.subject import Subject
from vitscope.models.unit import Place
from vitscope.runs.registry import Registry

Setting = tuple[AbstractIntervention, ...]
"""The interventions at one point of a grid, in order of application."""


@dataclass(frozen=True)
class Axis:
    """One way in which the settings of a study differ.

    ``name`` is from the vocabulary of axes, ``values`` label its entries; ``coordinates`` are further labels along it.
    """

    name: str
    values: tuple[float, ...] | tuple[int, ...] | tuple[str, ...]
    label: str
    unit: str = "1"
    coordinates: Mapping[str, Sequence[object]] = field(default_factory=dict[str, Sequence[object]])

    def __post_init__(self) -> None:
        if self.name not in AXES:
            raise ValueError(f"{self.name!r} is not in the vocabulary of axes.")


def unit_axis(name: str, layers: Sequence[int], places: Sequence[Place], label: str) -> Axis:
    """An axis over units: their layers, with the coordinates ``<name>_unit``, ``_kind``, ``_stage`` and ``_block``."""
    chosen = [places[layer - 1] for layer in layers]
    coordinates = {
        f"{name}_unit": [place.name for place in chosen],
        f"{name}_kind": [place.kind.value for place in chosen],
        f"{name}_stage": [place.stage for place in chosen],
        f"{name}_block": [place.block for place in chosen],
    }
    return Axis(name, tuple(layers), label, "1", coordinates)


@dataclass(frozen=True)
class Fact:
    """A number known without images for every setting, in row-major order, and for the intact subject."""

    quantity: Quantity
    values: tuple[float, ...]
    intact: float


@dataclass(frozen=True)
class StudyGrid:
    """Axes, and a setting for each point in row-major order (the last axis runs fastest).

    A setting of None does nothing, as for a head that a unit does not have; the result has no numbers there. ``facts``
    are added to the results of every diagnostic.
    """

    axes: tuple[Axis, ...]
    settings: tuple[Setting | None, ...]
    facts: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        points = prod(len(axis.values) for axis in self.axes)
        for given in (self.settings, *(fact.values for fact in self.facts)):
            if len(given) != points:
                raise ValueError(f"A grid of {points} points was given {len(given)} settings or facts.")

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""
        return tuple(len(axis.values) for axis in self.axes)


def points(axes: Sequence[Axis]) -> list[tuple[float | int | str, ...]]:
    """The values of every point in row-major order."""
    return list(product(*(axis.values for axis in axes)))


@dataclass(frozen=True)
class AbstractStudy(ABC):
    """A question that a grid of interventions answers; its fields are the flags of ``vitscope study NAME``."""

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    """The report's question under which it is shown."""
    references: ClassVar[tuple[str, ...]]
    headline: ClassVar[str] = ""
    """The quantity that its page shows first; a diagnostic's own first one if empty."""

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds."""
        check_bounds(self)

    @abstractmethod
    def grid(self, subject: Subject, images: Images, plan: Plan) -> StudyGrid:
        """The grid for this subject; ``images`` and ``plan`` serve grids that depend on the data."""

    def lay_out(self, subject: Subject, images: Images, plan: Plan) -> tuple[StudyGrid, Images]:
        """The grid, and the images on which every setting is measured: all of them, unless the study needs fewer."""
        return self.grid(subject, images, plan), images

    @abstractmethod
    def diagnostics(self) -> tuple[AnyDiagnostic, ...]:
        """What is measured at every point unless the user asks for something else."""

    def notes(self, subject: Subject) -> tuple[str, ...]:
        """What the reader must know besides the numbers, such as which units were left alone and why."""
        del subject
        return ()


STUDIES: Registry[AbstractStudy] = Registry("study", "vitscope.interventions.studies", AbstractStudy)
