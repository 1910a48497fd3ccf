"""Results of a bench as labelled arrays along ``model``, ``backend`` and ``batch_size``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
import xarray as xr
from jaxtyping import Float

from vitscope.deploy.contestant import AbstractContestant
from vitscope.deploy.tally import PassTally
from vitscope.deploy.timing import Figure, Timed, TimeRatio, ratio_of
from vitscope.measurement.quantity import Quantity
from vitscope.measurement.trials import Along, label_axes, with_words
from vitscope.runs.run import APART

_FAST, _COST, _BOUND, _SAME = "How fast is it?", "What does it cost?", "What binds it?", "Does it say the same?"
_KUENSCH = "Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 1989"
_CONOVER = "Conover, Practical Nonparametric Statistics, 3.2 (the interval of a median by order statistics)"
_TIME = Quantity("time", "Time of a pass", "ms", "Median time of a forward pass of one batch.", "Smaller is faster.")
_P90 = Quantity("time_p90", "Time of nine passes of ten", "ms", "Nine passes of ten take less.", "Smaller is steadier.")
_THROUGHPUT = Quantity(
    "throughput", "Images a second", "1/s", "Images of a batch over its median time.", "Larger is faster."
)
_RATIO = Quantity(
    "time_ratio",
    "Time as a share of the first's",
    "1",
    "Time of a pass over that of the first contestant in the same round; the median over rounds.",
    "Smaller is faster; 1 is as fast as the first.",
)
_MEMORY = Quantity(
    "peak_memory",
    "Peak memory above the weights",
    "MB",
    "The most memory that passes of one batch take at a time, above what is held before and after them (1 MB is 10⁶ "
    "bytes).",
    "Smaller is cheaper.",
)
_PARAMETERS = Quantity(
    "parameters",
    "Weights in use",
    "1e6",
    "Numbers that the logits depend on and that were learned.",
    "Smaller is less.",
)
_ADDS = Quantity(
    "multiply_adds",
    "Multiply-adds of an image",
    "1e9",
    "Multiplications, each with its addition, in the matrix products, convolutions and attention of one image.",
    "Smaller is less work, which need not be less time.",
)
_OPERATORS = Quantity(
    "operators", "Operators of a pass", "1", "Operators that run one after the other.", "Fewer start sooner."
)
_TRAFFIC = Quantity(
    "traffic",
    "Numbers moved in a pass",
    "MB",
    "What all operators read and write: what would move if no cache held anything.",
    "Smaller is less work for the memory.",
)
_PRODUCTS = Quantity(
    "products",
    "Share of the time in products",
    "1",
    "Share of the operators' time that matrix products, convolutions and attention take: the part whose work is "
    "counted as multiply-adds.",
)
_APART = Quantity(
    "logit_difference",
    "Largest difference of logits",
    "1",
    "Largest difference of a logit from what the module itself gives for the same images, as a share of the largest "
    "logit.",
    "Smaller is better: rounding alone makes some 1e-6.",
)
_READING = Quantity(
    "reading_time",
    "Time to read a batch",
    "ms",
    "Median time in which pictures are read, decoded and made the model's input.",
    "Smaller is faster.",
)


@final
@dataclass(frozen=True, eq=False)
class BenchFigures:
    """All figures of a bench, by the numbers of contestants; missing figures have no entry."""

    contestants: tuple[AbstractContestant, ...]
    batches: tuple[int, ...]
    timed: Mapping[tuple[int, int], Timed]
    """By contestant and batch size."""
    gauges: Float[np.ndarray, "rounds gauges"]
    """Multiply-adds, bytes and small operators a second that the machine reached in each round."""
    peaks: Mapping[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    adds: Mapping[int, float] = field(default_factory=dict[int, float])
    """Multiply-adds of an image."""
    tallies: Mapping[tuple[int, int], PassTally] = field(default_factory=dict[tuple[int, int], PassTally])
    apart: Mapping[int, float] = field(default_factory=dict[int, float])
    reading: Mapping[tuple[int, int], Sequence[float]] = field(default_factory=dict[tuple[int, int], Sequence[float]])
    """Seconds to read each of several batches."""

    def ratio(self, contestant: int, batch: int) -> TimeRatio | None:
        """Its time over that of the first contestant; None unless both were timed."""
        one, first = self.timed.get((contestant, batch)), self.timed.get((0, batch))
        return None if one is None or first is None else ratio_of(one, first)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Short names for sentences: the model, the backend or both, whichever distinguishes contestants."""
        models, backends = ({one.model for one in self.contestants}, {one.backend for one in self.contestants})
        if len(models) == 1 and len(backends) > 1:
            return tuple(one.backend for one in self.contestants)
        if len(backends) == 1:
            return tuple(one.model for one in self.contestants)
        return tuple(f"{one.model} ({one.backend})" for one in self.contestants)

    @property
    def models(self) -> list[str]:
        """The models, each once."""
        return list(dict.fromkeys(one.model for one in self.contestants))

    @property
    def backends(self) -> list[str]:
        """The backends, each once."""
        return list(dict.fromkeys(one.backend for one in self.contestants))


def describe_bench(found: BenchFigures) -> dict[str, xr.Dataset]:
    """The groups of the run."""
    groups = {"timing": _times(found), "time-ratio": _ratios(found), "memory": _memory(found)}
    groups |= {"operations": _operations(found), "pass": _tallies(found), "logits": _logits(found)}
    groups |= {"machine": _machine(found), "reading": _reading(found)}
    return {name: group.assign_attrs(contestants=1) for name, group in groups.items() if group is not None}


def _axes(found: BenchFigures, *names: str) -> list[Along]:
    axes = {
        "model": Along("model", found.models, "Model"),
        "backend": Along("backend", found.backends, "Backend"),
        "batch_size": Along("batch_size", list(found.batches), "Batch size", logarithmic=len(found.batches) > 1),
    }
    return [axes[name] for name in names]


def _place(found: BenchFigures, contestant: int, batch: int | None, axes: Sequence[Along]) -> tuple[int, ...]:
    """The index of a contestant on these axes."""
    one = found.contestants[contestant]
    at = {"model": found.models.index(one.model), "backend": found.backends.index(one.backend)}
    at |= {} if batch is None else {"batch_size": found.batches.index(batch)}
    return tuple(at[axis.name] for axis in axes)


def _labelled(
    found: BenchFigures,
    quantity: Quantity,
    axes: Sequence[Along],
    figures: Iterator[tuple[int, int | None, Figure]],
    counted: str,
    ends: bool = True,
) -> xr.Dataset:
    """Figures as one array; NaN where nothing was measured."""
    shape = tuple(len(axis.values) for axis in axes)
    value, error, low, high = (np.full(shape, np.nan) for _ in range(4))
    count = np.zeros(shape)
    for contestant, batch, one in figures:
        at = _place(found, contestant, batch, axes)
        value[at], error[at], low[at], high[at], count[at] = one.value, one.error, one.low, one.high, one.count
    made = label_axes(quantity, axes, value, error, count, counted)
    if ends:
        dims = tuple(axis.name for axis in axes)
        words = {name: {"long_name": f"{side} end of the 95 % interval", "units": quantity.unit}
                 for name, side in (("low", "lower"), ("high", "upper"))}  # fmt: skip
        parts = {"low": np.where(np.isfinite(low), low, np.nan), "high": np.where(np.isfinite(high), high, np.nan)}
        made = made.assign({f"{quantity.name}_{end}": (dims, part, words[end]) for end, part in parts.items()})
    return with_words(made, quantity, missing="not measured" if np.isnan(value).any() else "")


def _exact(value: float) -> Figure:
    return Figure(value, float("nan"), float("nan"), float("nan"), 1)


def _scaled(one: Figure, factor: float) -> Figure:
    return Figure(factor * one.value, factor * one.error, factor * one.low, factor * one.high, one.count)


def _times(found: BenchFigures) -> xr.Dataset:
    axes = _axes(found, "model", "backend", "batch_size")
    reads: dict[Quantity, Callable[[Timed], Figure]] = {
        _TIME: lambda one: _scaled(one.median, 1e3),
        _P90: lambda one: _scaled(one.p90, 1e3),
        _THROUGHPUT: lambda one: one.throughput,
    }
    parts = [
        _labelled(found, quantity, axes, ((*at, read(one)) for at, one in found.timed.items()), "passes")
        for quantity, read in reads.items()
    ]
    words = {
        "title": "Time",
        "question": _FAST,
        "definition": "Contestants take turns in random order, in every round. Errors and 95 % intervals are a "
        "bootstrap's over rounds, of which each is drawn whole.",
        "references": [_KUENSCH],
    }
    return xr.merge(parts, combine_attrs="override").assign_attrs(words)


def _ratios(found: BenchFigures) -> xr.Dataset | None:
    ratios = {(i, batch): found.ratio(i, batch) for i, batch in found.timed}
    figures = (
        (*at, one.figure if at[0] > 0 else Figure(1.0, float("nan"), 1.0, 1.0, len(one.values)))
        for at, one in ratios.items()
        if one is not None
    )
    if not any(at[0] > 0 for at in ratios):
        return None
    made = _labelled(found, _RATIO, _axes(found, "model", "backend", "batch_size"), figures, "rounds")
    words = {
        "title": "Time as a share of the first's",
        "question": _FAST,
        "definition": f"The first contestant is {found.names[0]}. Both took their turns in the same rounds, so that "
        "what slows the machine slows both. The 95 % interval is that of a median by order statistics.",
        "references": [_CONOVER],
    }
    return made.assign_attrs(words)


def _memory(found: BenchFigures) -> xr.Dataset | None:
    if not found.peaks:
        return None
    figures = ((*at, _exact(peak / 1e6)) for at, peak in found.peaks.items())
    made = _labelled(found, _MEMORY, _axes(found, "model", "backend", "batch_size"), figures, "processes", ends=False)
    words = {
        "title": "Memory",
        "question": _COST,
        "definition": "Each contestant is measured in a process of its own: resident memory on a CPU, what PyTorch "
        "allocates on a GPU, without weights, libraries and what the first pass creates once. On a CPU a few MB "
        "depend on the allocator and vary from process to process.",
        "references": [],
    }
    return made.assign_attrs(words)


def _operations(found: BenchFigures) -> xr.Dataset:
    axes = _axes(found, "model")
    known = ((i, one.parameters) for i, one in enumerate(found.contestants))
    figures = ((i, None, _exact(count / 1e6)) for i, count in known if count is not None)
    parts = [_labelled(found, _PARAMETERS, axes, figures, "models", ends=False)]
    if found.adds:
        counted = ((i, None, _exact(adds / 1e9)) for i, adds in found.adds.items())
        parts.insert(0, _labelled(found, _ADDS, axes, counted, "models", ends=False))
    words = {
        "title": "Operations and weights",
        "question": _COST,
        "definition": "Counted on the compacted module: parts that change no logit are gone. Attention of n tokens of "
        "width d counts 2 n² d, fused or not. Of an ONNX file only the weights are counted.",
        "references": [],
    }
    return xr.merge(parts, combine_attrs="override").assign_attrs(words)


def _tallies(found: BenchFigures) -> xr.Dataset | None:
    if not found.tallies:
        return None
    axes = _axes(found, "model", "batch_size")
    reads: dict[Quantity, Callable[[PassTally], float]] = {
        _PRODUCTS: lambda one: one.products,
        _TRAFFIC: lambda one: one.traffic / 1e6,
        _OPERATORS: lambda one: float(one.operators),
    }
    parts = [
        _labelled(found, name, axes, ((*at, _exact(read(one))) for at, one in found.tallies.items()), "models", False)
        for name, read in reads.items()
    ]
    words = {
        "title": "What a pass is made of",
        "question": _BOUND,
        "definition": "Read from passes that run operator by operator, each operator timed by itself.",
        "references": [],
    }
    return xr.merge(parts, combine_attrs="override").assign_attrs(words)


def _logits(found: BenchFigures) -> xr.Dataset | None:
    if not found.apart:
        return None
    figures = ((i, None, _exact(apart)) for i, apart in found.apart.items())
    made = _labelled(found, _APART, _axes(found, "model", "backend"), figures, "batches", ends=False)
    words = {
        "title": "Agreement with the module",
        "question": _SAME,
        "definition": "Each backend and the module itself are shown the same batch.",
        "references": [],
    }
    return made.assign_attrs(words)


def _machine(found: BenchFigures) -> xr.Dataset | None:
    if not found.gauges.size:
        return None
    said = (
        ("multiply_add_rate", "Multiply-adds a second", "1e9/s", 1e-9, "In a product of two square matrices."),
        ("bandwidth", "Memory read and written", "GB/s", 1e-9, "As a tensor far larger than a cache is copied."),
        ("start_rate", "Operators started", "1e6/s", 1e-6, "Operators a second that do nearly nothing."),
    )
    parts: list[xr.Dataset] = []
    for (name, label, unit, factor, meaning), values in zip(said, found.gauges.T, strict=True):
        one = _scaled(TimeRatio(values, 0).figure, factor)
        numbers = (np.array(one.value), np.array(one.error), np.array(one.count))
        parts.append(label_axes(Quantity(name, label, unit, meaning, "Larger is faster."), (), *numbers, "rounds"))
    words = {
        "title": "The machine",
        "question": _BOUND,
        "definition": "What it managed in the same rounds; medians, with the errors of a bootstrap over rounds.",
        "references": [],
        APART: 1,
    }
    return xr.merge(parts, combine_attrs="override").assign_attrs(words)


def _reading(found: BenchFigures) -> xr.Dataset | None:
    if not found.reading:
        return None
    figures = (
        (*at, Figure(1e3 * float(np.median(one)), float("nan"), 1e3 * min(one), 1e3 * max(one), len(one)))
        for at, one in found.reading.items()
    )
    made = _labelled(found, _READING, _axes(found, "model", "batch_size"), figures, "batches", ends=False)
    words = {
        "title": "Reading the pictures",
        "question": _BOUND,
        "definition": "One batch after the other, as vitscope reads them: with threads of one process, and files that "
        "were read before may lie in the system's cache.",
        "references": [],
    }
    return made.assign_attrs(words)
