"""Curvature diagnostics: properties of the Hessian of single mini-batches' losses, folded over mini-batches."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor
from typing_extensions import override

from vitscope.data import Broken
from vitscope.data.batch import Batch
from vitscope.engine.curvature.hessian import (
    LossHessian,
    hessian_of,
    minibatch_hessian,
    trainable_copy,
    with_finite_loss,
)
from vitscope.engine.curvature.part import WeightPart, coordinates, part_count, parts_of, read_part
from vitscope.engine.curvature.sample import LossSample
from vitscope.engine.reading.failure import report_failures
from vitscope.engine.work.work import AbstractImagesResult, AbstractSubjectWork, Advance, Amount, Shard
from vitscope.measurement.bounds import check_bounds
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.runs.registry import Registry

GRAPH, PRODUCT = 3.0, 6.0
"""The cost of a loss with its gradient's graph, and of a Hessian product, in forward passes of the mini-batch."""

Record = Mapping[str, Float64[Tensor, "parts ..."]]
"""What a diagnostic finds for one mini-batch, part by part."""


@dataclass(frozen=True, eq=False)
class CurvatureProblem:
    """A loss to examine: its Hessian with respect to all weights, the parts to examine, and a random generator."""

    hessian: LossHessian
    parts: tuple[WeightPart, ...]
    generator: torch.Generator

    def blocks(self) -> tuple[LossHessian, ...]:
        """The Hessian's diagonal block of each part, all from the same graph."""
        return tuple(self.hessian.restrict(part.weights) for part in self.parts)


def problem_of(
    loss: Callable[[Mapping[str, Tensor]], Float[Tensor, ""]], weights: Mapping[str, Tensor], apart: bool = False
) -> CurvatureProblem:
    """A problem from a loss as a function of named weights; as one part, or with each weight ``apart``."""
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    groups = [(name,) for name in leaves] if apart else [tuple(leaves)]
    parts = tuple(WeightPart("+".join(names), names, "module") for names in groups)
    return CurvatureProblem(hessian_of(loss(leaves), leaves), parts, torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class KnownCurvature:
    """A problem whose answer is known by pencil and paper."""

    why: str
    problem: CurvatureProblem
    answer: Mapping[str, Float64[Tensor, "parts ..."]]
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Records:
    """The state of a fold over mini-batches: the records by the mini-batch's number."""

    parts: tuple[WeightPart, ...] = ()
    rows: Mapping[int, Record] = field(default_factory=dict[int, Record])

    def merge(self, other: "Records") -> "Records":
        """Both sets of mini-batches together."""
        if not (self.rows and other.rows):
            return self if self.rows else other
        if self.parts != other.parts or self.rows.keys() & other.rows.keys():
            raise ValueError("These records come from different models or from the same mini-batch.")
        return Records(self.parts, dict(sorted({**self.rows, **other.rows}.items())))

    def stack(self, name: str) -> NDArray[np.float64]:
        """One entry of all records: part x mini-batch x its own axes."""
        return torch.stack([row[name] for row in self.rows.values()], dim=1).numpy()


class AbstractCurvature(ABC):
    """A diagnostic of the loss as a function of the weights; a fold over mini-batches.

    Subclasses are frozen dataclasses whose fields are the command line's flags.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str] = "How is its loss curved?"
    references: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Refuse a class that states no known answer."""
        if "known_answers" not in vars(cls):
            raise TypeError(f"{cls.__name__} has no known_answers(): problems whose answer is known by hand.")

    def __post_init__(self) -> None:
        """Refuse numbers out of bounds."""
        check_bounds(self)

    @property
    @abstractmethod
    def sample(self) -> LossSample:
        """The mini-batches on which it is measured."""

    @abstractmethod
    def products(self, parts: int) -> int:
        """About how many Hessian products a mini-batch takes, examined in this many parts."""

    @abstractmethod
    def examine(self, problem: CurvatureProblem) -> Record:
        """The numbers of one mini-batch's loss, part by part, in float64 on the CPU."""

    @abstractmethod
    def conclude(self, records: Records) -> xr.Dataset:
        """The labelled result; its first variable is the headline. Its attribute ``notes`` says what went wrong."""

    @classmethod
    @abstractmethod
    def known_answers(cls) -> tuple[KnownCurvature, ...]:
        """Problems whose answer is known by hand, which the tests check."""

    def init(self) -> Records:
        """The state before the first mini-batch."""
        return Records()

    def update(self, state: Records, minibatch: int, problem: CurvatureProblem) -> Records:
        """The state after one more mini-batch."""
        return state.merge(Records(problem.parts, {minibatch: self.examine(problem)}))

    def merge(self, one: Records, other: Records) -> Records:
        """The state after the mini-batches of both."""
        return one.merge(other)

    def finish(self, state: Records) -> xr.Dataset:
        """The labelled result, with its title, question, references and definition; empty if nothing was seen."""
        result = self.conclude(state) if state.rows else xr.Dataset()
        return result.assign_attrs(
            title=self.title,
            question=self.question,
            references=list(self.references),
            definition=(type(self).__doc__ or "").strip(),
        )


CURVATURES: Registry[AbstractCurvature] = Registry("curvature diagnostic", "vitscope.diagnostics", AbstractCurvature)


@dataclass(frozen=True)
class CurvatureResult(AbstractImagesResult):
    """A mini-batch's result: a state for each diagnostic, empty for those that use other mini-batches."""

    states: tuple[Records, ...]
    unfinite: tuple[str, ...] = ()
    """The images that were left out because their loss is not finite."""

    def merge(self, other: "CurvatureResult") -> "CurvatureResult":
        """Both sets of mini-batches together."""
        states = tuple(one.merge(two) for one, two in zip(self.states, other.states, strict=True))
        broken, unfinite = self.broken + other.broken, self.unfinite + other.unfinite
        return CurvatureResult(self.images + other.images, broken, states, unfinite)

    def to_bytes(self) -> bytes:
        """Safetensors, parts and counts in a head of JSON."""
        tensors = {
            f"{index}/{minibatch}/{name}": value.contiguous()
            for index, state in enumerate(self.states)
            for minibatch, record in state.rows.items()
            for name, value in record.items()
        }
        parts = [[asdict(part) for part in state.parts] for state in self.states]
        broken = [asdict(broken) for broken in self.broken]
        head = {"parts": parts, "images": self.images, "broken": broken, "unfinite": self.unfinite}
        return save({**tensors, "head": torch.tensor(list(json.dumps(head).encode()), dtype=torch.uint8)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "CurvatureResult":
        """The result that :meth:`to_bytes` wrote."""
        tensors = load(content)
        head = json.loads(bytes(tensors.pop("head").tolist()))
        rows: list[dict[int, dict[str, Tensor]]] = [{} for _ in head["parts"]]
        for key in sorted(tensors, key=lambda key: int(key.split("/")[1])):
            index, minibatch, name = key.split("/")
            rows[int(index)].setdefault(int(minibatch), {})[name] = tensors[key]
        parts = [tuple(read_part(part) for part in own) for own in head["parts"]]
        states = tuple(Records(*pair) for pair in zip(parts, rows, strict=True))
        broken = tuple(Broken(**one) for one in head["broken"])
        return cls(head["images"], broken, states, tuple(head["unfinite"]))


@dataclass
class Meter:
    """Reports cost as it is spent; the total is exactly what was expected, whatever was really spent."""

    advance: Advance
    left: Amount

    def spend(self, cost: Amount) -> None:
        """Report this much more; anything beyond the expected total is not reported."""
        told = min(cost, self.left)
        self.left -= told
        self.advance(told)

    def close(self) -> None:
        """Report the rest of the expected total."""
        self.spend(self.left)


@dataclass(frozen=True)
class CurvatureWork(AbstractSubjectWork[CurvatureResult]):
    """The mini-batches of every curvature diagnostic; those of the same mini-batches share the graphs."""

    diagnostics: tuple[AbstractCurvature, ...]

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The diagnostics that share graphs, by their numbers."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, diagnostic in enumerate(self.diagnostics):
            groups.setdefault(diagnostic.sample.graph, []).append(number)
        return tuple(map(tuple, groups.values()))

    def shards(self) -> tuple[Shard, ...]:
        """One mini-batch each; the blocks are numbered from 1, so that no pass over the images has the same shards."""
        return tuple(
            Shard(minibatch, minibatch + 1, block)
            for block, group in enumerate(self.groups, start=1)
            for minibatch in range(self.diagnostics[group[0]].sample.count(self.images))
        )

    @property
    def cost(self) -> Amount:
        """About the total cost, in forward passes of one image."""
        samples = [self.diagnostics[group[0]].sample for group in self.groups]
        counts = [min(sample.count(self.images) * sample.batch, len(self.images)) for sample in samples]
        return sum(count * self._passes(group) for count, group in zip(counts, self.groups, strict=True))

    def passes(self, shard: Shard) -> Amount:
        """About the cost of each image, in forward passes."""
        return self._passes(self.groups[shard.block - 1])

    def _passes(self, group: Sequence[int]) -> Amount:
        chosen = [self.diagnostics[number] for number in group]
        return GRAPH + PRODUCT * sum(one.products(part_count(self.subject, one.sample.per)) for one in chosen)

    @override
    def read(self, content: bytes) -> CurvatureResult:
        return CurvatureResult.from_bytes(content)

    def fold(self, shard: Shard, advance: Advance) -> CurvatureResult:
        """One mini-batch's records. Memory: the graph of its loss's forward and backward pass, and a Krylov basis."""
        group = self.groups[shard.block - 1]
        sample = self.diagnostics[group[0]].sample
        subject = trainable_copy(self.subject, sample.precision)
        batch = sample.minibatch(subject, self.images, shard.start)
        states = [diagnostic.init() for diagnostic in self.diagnostics]
        images = len(batch.indices) + len(batch.broken)
        meter = Meter(advance, images * self.passes(shard))
        finite, unfinite = self._finite(sample, batch)
        if len(finite):
            hessian = replace(minibatch_hessian(subject, finite), told=lambda: meter.spend(PRODUCT * images))
            meter.spend(GRAPH * images)
            for number in group:
                own = self.diagnostics[number].sample
                problem = CurvatureProblem(hessian, parts_of(subject, finite, own.per), own.generator(shard.start))
                states[number] = self.diagnostics[number].update(states[number], shard.start, problem)
        meter.close()
        return CurvatureResult(len(batch.indices), batch.broken, tuple(states), unfinite)

    def _finite(self, sample: LossSample, batch: Batch) -> tuple[Batch, tuple[str, ...]]:
        """The batch without the images whose loss is not finite, and the names of those images."""
        if not len(batch):
            return batch, ()
        images = sample.shuffle(self.images)
        with report_failures(self.subject, images, batch):
            finite = with_finite_loss(self.subject, batch)
        left_out = sorted({*batch.indices.tolist()} - {*finite.indices.tolist()})
        return finite, tuple(images.pictures.name(int(images.positions[index])) for index in left_out)

    def together(self, results: Iterable[CurvatureResult]) -> CurvatureResult:
        """All mini-batches' results merged."""
        return reduce(
            CurvatureResult.merge, results, CurvatureResult(0, (), tuple(Records() for _ in self.diagnostics))
        )

    def finish(self, result: CurvatureResult) -> dict[str, xr.Dataset]:
        """The labelled results, if any, by the diagnostics' names; their attribute ``notes`` says what went wrong."""
        found = zip(self.diagnostics, result.states, strict=True)
        return {one.name: one.finish(state) for one, state in found if state.rows}

    def unseen(self, result: CurvatureResult) -> dict[str, str]:
        """Why the other diagnostics have no result, by name."""
        many = len(set(result.unfinite))
        why = f"the loss is not finite for any of {many} images" if many else "none of the images could be read"
        found = zip(self.diagnostics, result.states, strict=True)
        return {one.name: why for one, state in found if not state.rows}

    def notes(self, result: CurvatureResult) -> tuple[str, ...]:
        """A note on the images that were left out, if any."""
        names = tuple(dict.fromkeys(result.unfinite))
        many = f"{len(names):,} image{'s' * (len(names) > 1)} (such as {names[0]})" if names else ""
        return (
            (f"{many} {'are' if len(names) > 1 else 'is'} left out of the curvature: the loss there is not finite.",)
            if names
            else ()
        )


def over_minibatches(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean, standard error and count over the second axis, that of the mini-batches; NaN is left out."""
    count = np.isfinite(values).sum(1)
    mean = np.where(count > 0, np.nansum(values, 1) / np.maximum(count, 1), np.nan)
    squares = np.nansum((values - mean[:, None]) ** 2, 1)
    error = np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1) / np.maximum(count, 1)), np.nan)
    return mean, error, count


def by_part(
    quantity: Quantity,
    parts: tuple[WeightPart, ...],
    dims: tuple[str, ...],
    numbers: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]],
    coords: Mapping[str, object],
) -> xr.Dataset:
    """A labelled quantity along the parts and its own axes; for the whole model, without the axis of parts."""
    if [part.kind for part in parts] == ["model"]:
        mean, error, count = numbers
        return label_quantity(quantity, dims, np.asarray(mean[0]), np.asarray(error[0]), np.asarray(count[0]), coords)
    return label_quantity(quantity, ("part", *dims), *numbers, {**coordinates(parts), **coords})
