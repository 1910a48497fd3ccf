"""What an intervention is: a pure function from subject to subject."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vitscope.measurement.bounds import check_bounds
from vitscope.models.subject import Subject
from vitscope.numerics.digest import tensor_digest
from vitscope.runs.code import code_version
from vitscope.runs.registry import Registry


@dataclass(frozen=True)
class AbstractIntervention(ABC):
    """A frozen value that makes a new subject from an old one and leaves the old one bitwise unchanged.

    The new subject shares with the old one whatever did not change: the module if only the walk differs, the other
    weights if some are displaced. Units keep their number and places, so that layers mean the same before and after.
    Interventions compose: ``prune(lesion(subject))``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    references: ClassVar[tuple[str, ...]]
    changes_weights: ClassVar[bool] = False
    """Whether the new subject has a module of its own; otherwise it is another walk through the same one."""
    changes_shapes: ClassVar[bool] = False
    """Whether weights of the new module may have other shapes than those of the old one, or other names."""

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds."""
        check_bounds(self)

    @abstractmethod
    def __call__(self, subject: Subject) -> Subject:
        """The subject after the intervention. Raises ``UserError`` if it makes no sense for this subject."""

    @classmethod
    @abstractmethod
    def examples(cls) -> "tuple[AbstractIntervention, ...]":
        """Settings on which the laws of interventions are tested, on every family of models."""

    @classmethod
    @abstractmethod
    def nothing(cls) -> "tuple[AbstractIntervention, ...]":
        """Settings at which it changes no logit, which the tests check; empty if there are none."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Its fields for a run's spec, tensors as the SHA-256 of their bytes; with the code's version for user code."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: _plain(value) for name, value in fields.items()}
        return {"intervention": self.name, **plain, **code_version(self)}


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)} {tensor_digest(value)}"
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


INTERVENTIONS: Registry[AbstractIntervention] = Registry(
    "intervention", "vitscope.interventions", AbstractIntervention, settled=False
)
