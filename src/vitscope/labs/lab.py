"""What a lab is: a question from a paper, a grid of trials that answers it, and what theory says beside it."""

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
"""What trials came to, by name: the first axis of every array is the trials."""
Datasets = Mapping[str, xr.Dataset]
"""Labelled arrays by the name of their group in the run."""


@dataclass(frozen=True)
class AbstractLab(ABC, Generic[Trial]):
    """A question, asked by a grid of trials; its fields are its settings, and the flags of ``vitscope lab run NAME``.

    One file, one registered final class. Its docstring has the formula, the source, and what the reader should and
    should not conclude. The rules of its claims, with their thresholds, stand in its file.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    """The question of the report under which it is shown."""
    references: ClassVar[tuple[str, ...]]
    symbols: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The settings that have a name of their own in the paper, by that name; a grid may use either."""
    at_once: ClassVar[int]
    """Trials that are trained in one computation at most: what an interrupt or a worker's death can lose."""

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be: whole ones count something, others are sizes and rates."""
        check_bounds(self, whole=COUNT, real=SIZE)

    @classmethod
    @abstractmethod
    def smoke(cls) -> "AbstractLab[Trial]":
        """The lab at a size that takes a second or two and says nothing."""

    @abstractmethod
    def plan_trials(self) -> tuple[Trial, ...]:
        """All trials, settings in row-major order and seeds fastest; each has all that determines it.

        Of trials that cost the same, those are begun first that stand first.
        """

    def form(self, trial: Trial) -> Hashable:
        """What trials that are trained in one computation must have in common."""
        del trial
        return None

    def cost(self, trial: Trial) -> float:
        """How long a trial may take at most, beside others; the dearest are begun first."""
        del trial
        return 1.0

    @abstractmethod
    def run_trials(self, trials: Sequence[Trial]) -> Values:
        """What some trials of one form come to, as one computation; the same, to rounding, however they are cut."""

    @abstractmethod
    def datasets_of(self, values: Values) -> Datasets:
        """What all trials came to, as labelled arrays with their errors over trials, theory's curves beside them."""

    @abstractmethod
    def claims(self, datasets: Datasets, rate: float) -> tuple[Claim, ...]:
        """What the lab's rules make of its datasets, each test at this false-alarm rate."""

    @property
    def settings(self) -> Mapping[str, object]:
        """The fields, without those that are no flags."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.metadata.get("flag", True)}

    @property
    def images(self) -> Mapping[str, object]:
        """The images that trials are made of, as a run names them; none where a lab draws its own."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a page should say of the run, in sentences."""
        return ()

    def group(self, title: str, definition: str, *parts: xr.Dataset) -> xr.Dataset:
        """A group of the run: its quantities, headline first, and its words on the page.

        Without a ``definition`` it is the lab's own docstring.
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
