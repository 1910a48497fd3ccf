"""What enters linear layers: its moments over calibration images, and the layers that are refitted from them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vitscope.data import Images
from vitscope.interventions.bypass import show_batches
from vitscope.measurement.errors import UserError
from vitscope.models.hooks import hooks
from vitscope.models.subject import Subject, Unwatched
from vitscope.models.surgery import is_pointwise
from vitscope.numerics.digest import tensor_digest
from vitscope.numerics.moments import Moments, Scatter, moments, scatter
from vitscope.numerics.precision import to_float64

_MEMORY = 1 << 30
"""How many bytes of second moments are collected in one pass over the images; more layers take more passes."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Refit:
    """Weight and bias of a linear layer that were fitted to calibration images. Two with the same numbers are equal."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None = None

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refit) and repr(self) == repr(other)

    @override
    def __hash__(self) -> int:
        return hash(repr(self))

    @override
    def __repr__(self) -> str:
        bias = "no bias" if self.bias is None else tensor_digest(to_float64(self.bias))[:16]
        return f"Refit({tuple(self.weight.shape)}, {tensor_digest(to_float64(self.weight))[:16]}, {bias})"


@final
@dataclass(frozen=True, eq=False)
class LayerInput:
    """Moments of what enters a linear layer, over all tokens or cells of all images, in float64."""

    scatter: Scatter
    magnitudes: Moments
    """The moments of the absolute values."""

    def merge(self, other: "LayerInput") -> "LayerInput":
        """The moments of both sets of rows together."""
        return LayerInput(self.scatter.merge(other.scatter), self.magnitudes.merge(other.magnitudes))

    @property
    def variance(self) -> Float[Tensor, " features"]:
        """The variance of each feature."""
        return self.scatter.products.diagonal() / self.scatter.count.clamp(min=1)


def input_moments(
    subject: Subject, images: Images, names: Sequence[str], batch_size: int = 32
) -> Mapping[str, LayerInput]:
    """The moments of what enters these submodules, ``nn.Linear`` or 1 x 1 convolutions, in the subject as it is edited.

    Every token or cell is a row, with padding where a model computes it. Raises ``UserError`` for a layer that the walk
    does not run exactly once for a batch. Cost: one forward pass over the images and ``features²`` products of float64
    for each row; a pass more for every GB of ``features²`` numbers.
    """
    found: dict[str, LayerInput] = {}
    for group in _groups(subject.module, names):
        seen = _Seen(subject, found)
        with hooks(subject.module, group, before=seen.add):
            show_batches(subject, images, batch_size, lambda pixels, seen=seen, group=group: seen.walk(pixels, group))
    return found


def _groups(module: nn.Module, names: Sequence[str]) -> Iterator[list[str]]:
    """The names in groups whose second moments fit into the memory."""
    group, used = list[str](), 0
    for name in names:
        part = module.get_submodule(name)
        assert is_pointwise(part), "only such layers are requested"
        size = 8 * part.weight.shape[1] ** 2
        if group and used + size > _MEMORY:
            yield group
            group, used = list[str](), 0
        group, used = [*group, name], used + size
    if group:
        yield group


@dataclass
class _Seen:
    """Adds what enters layers to the moments in ``found``."""

    subject: Subject
    found: dict[str, LayerInput]

    def __post_init__(self) -> None:
        self.runs: dict[str, int] = {}

    def walk(self, pixels: Float[Tensor, "batch channels height width"], names: Sequence[str]) -> None:
        """Walk through the subject; every layer must be seen once."""
        self.runs = dict.fromkeys(names, 0)
        self.subject.anatomy.walk(pixels, Unwatched())
        odd = next((name for name, count in self.runs.items() if count != 1), None)
        if odd is not None:
            times = f"{self.runs[odd]} times" if self.runs[odd] else "not at all"
            raise UserError(f"{self.subject.name}, as it is edited, runs {odd} {times} for a batch; it must run once.")

    def add(self, name: str, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Add the rows that enter a layer."""
        values: Tensor = (*given, *named.values())[0]
        if isinstance(self.subject.module.get_submodule(name), nn.Conv2d):
            values = values.movedim(1, -1)
        rows = to_float64(values.detach().flatten(0, -2))
        own = LayerInput(scatter(rows), moments(rows.abs()))
        self.found[name] = self.found[name].merge(own) if name in self.found else own
        self.runs[name] += 1


def as_index(numbers: Sequence[int], like: Tensor) -> Tensor:
    """The numbers as an index into ``like``."""
    return torch.tensor(list(numbers), dtype=torch.long, device=like.device)
