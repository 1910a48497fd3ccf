"""What a lab is: a question from a paper, a grid of trials that answers it, and what theory predicts."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import cleandoc
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import xarray as xr

from vitscope.measurement.bounds import COUNT, SIZE, check_bounds
from vitscope.measurement.claim import Claim
from vitscope.measurement.trials import Numbers
from vitscope.runs.registry import Registry

Trial = TypeVar("Trial")
Values = Mapping[str, Numbers]
"""Results of trials by name; the first axis of every array is the trials."""
Datasets = Mapping[str, xr.Dataset]
"""Labelled arrays by the name of their group in the run."""


@dataclass(frozen=True)
class AbstractLab(ABC, Generic[Trial]):
    """A question and a grid of trials that answers it; its fields are its settings and flags of ``vitscope lab run``.

    One file, one registered final class. Its docstring has the formula, the source, and what the reader should and
    should not conclude. The rules of its claims, with their thresholds, are in its file.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    """The question of the report under which the lab is shown."""
    references: ClassVar[tuple[str, ...]]
    symbols: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Settings by the name that the paper gives them; a grid may use either name."""
    at_once: ClassVar[int]
    """The most trials trained in one computation: what an interrupt or a worker's death can lose."""

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds: whole ones count something, others are sizes and rates."""
        check_bounds(self, whole=COUNT, real=SIZE)

    @classmethod
    @abstractmethod
    def smoke(cls) -> "AbstractLab[Trial]":
        """The lab at a tiny size: it takes a second or two, and its results mean nothing."""

    @abstractmethod
    def plan_trials(self) -> tuple[Trial, ...]:
        """All trials, settings in row-major order and seeds fastest; each holds all that determines it.

        Among trials of equal cost, earlier ones start first.
        """

    def form(self, trial: Trial) -> Hashable:
        """What trials must have in common to be trained in one computation."""
        del trial
        return None

    def cost(self, trial: Trial) -> float:
        """The longest a trial may take, relative to others; the most expensive start first."""
        del trial
        return 1.0

    @abstractmethod
    def run_trials(self, trials: Sequence[Trial]) -> Values:
        """The results of trials of one form, in one computation; the same, up to rounding, however they are grouped."""

    @abstractmethod
    def datasets_of(self, values: Values) -> Datasets:
        """The results of all trials as labelled arrays with errors over trials, with the theory's curves."""

    @abstractmethod
    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """The lab's rules applied to its datasets, each test at this false-alarm rate."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The fields that are flags, by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata.get("flag", True)}

    @property
    def images(self) -> Mapping[str, object]:
        """The images that trials are made of, as a run names them; empty if the lab draws its own."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that the page should say about the run."""
        return ()

    def group(self, title: str, definition: str, *parts: xr.Dataset) -> xr.Dataset:
        """A group of the run: its quantities, headline first, and its text on the page.

        If ``definition`` is empty, it is the lab's own docstring.
        """
        words: dict[str, Any] = {
            "title": f"{self.title}: {title}",
            "question": self.question,
            "definition": cleandoc(definition or type(self).__doc__ or ""),
            "references": list(self.references),
        }
        return xr.merge(parts, compat="no_conflicts", join="outer", combine_attrs="override").assign_attrs(words)


LABS: Registry[AbstractLab[Any]] = Registry("lab", "vitscope.labs", AbstractLab)


def all_labs() -> Mapping[str, type[AbstractLab[Any]]]:
    """Every registered lab by name."""
    return dict(LABS.items())
