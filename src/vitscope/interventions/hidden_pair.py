"""The two linear layers of an MLP: where a unit has them, and whether neurons between them can be removed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.attention import Attention
from vitscope.models.edit import with_module
from vitscope.models.feed import module_input
from vitscope.models.hooks import record_runs, takes_hooks
from vitscope.models.own_forward import probe_images
from vitscope.models.state import buffers_kept
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Composition, Subject, Unwatched
from vitscope.models.surgery import Pointwise, double_copy, is_pointwise, matrix_of, narrow, with_matrix, with_parts
from vitscope.models.unit import Place, UnitKind
from vitscope.numerics.ridge import others

TOLERANCE = 1e-9
"""The largest difference in float64 that counts as rounding, relative to the largest number."""

_MLPS = (UnitKind.MLP, UnitKind.TOKEN_MIXING)


@final
@dataclass(frozen=True)
class HiddenPair:
    """Two submodules by name, the first of which makes the ``width`` hidden neurons that the second reads."""

    first: str
    second: str
    width: int


@final
@dataclass(frozen=True)
class Pairs:
    """The pairs of linear layers of a subject's units by layer, and why other layers have none."""

    found: Mapping[int, HiddenPair]
    why_not: Mapping[int, str]


def hidden_pairs(subject: Subject, layers: Sequence[int], removed: Mapping[int, Sequence[int]] | None = None) -> Pairs:
    """The pair of linear layers in each of these units whose hidden neurons can be removed.

    Candidates are two ``nn.Linear`` or 1 x 1 convolutions that run one after the other, without any other weights
    between them; in units that are not MLPs (ConvNeXt's blocks) the hidden layer must be wider than the unit. A pair is
    accepted if the function between both is elementwise: in float64 and on noise, the unit without some neurons in
    both layers must give what it gives if the second layer's columns of these neurons, those ``removed`` or every
    second one, are zero. The widest pair of a unit is taken. Edits of the subject do not matter. Cost: three forward
    passes of two images, and for each candidate two copies of the module that share nearly all weights.
    """
    plain = with_module(replace(subject, edits=()), subject.module)
    runs, test = _running_parts(plain), _PairTest.of(plain)
    found: dict[int, HiddenPair] = {}
    why_not: dict[int, str] = {}
    left: dict[int, list[HiddenPair]] = {}
    for layer in layers:
        place = subject.places[layer - 1]
        if place.kind is UnitKind.ATTENTION:
            why_not[layer] = "it is an attention unit"
        else:
            left[layer], why_not[layer] = _candidates(subject.module, place, runs)
    while left := {layer: candidates for layer, candidates in left.items() if candidates}:
        tried = {layer: candidates.pop(0) for layer, candidates in left.items()}
        for layer, why in test.find_differences(tried, removed or {}).items():
            if why:
                why_not[layer] = why
            else:
                found[layer] = tried[layer]
                del left[layer], why_not[layer]
    return Pairs({layer: found[layer] for layer in layers if layer in found}, why_not)


def _running_parts(subject: Subject) -> list[str]:
    """The submodules without parts of their own in the order in which a walk runs them."""
    leaves = [name for name, part in subject.module.named_modules() if not any(part.children()) and takes_hooks(part)]
    images = module_input(subject.module, probe_images(subject.preprocessing.shape))
    with torch.no_grad(), buffers_kept(subject.module), record_runs(subject.module, leaves) as runs:
        subject.anatomy.walk(images, Unwatched())
    return runs


def _candidates(module: nn.Module, place: Place, runs: Sequence[str]) -> tuple[list[HiddenPair], str]:
    """The pairs that may be one, the widest first, and why others are none."""
    own = [name for name in runs if name.startswith(f"{place.name}.")]
    linear = [number for number, name in enumerate(own) if is_pointwise(module.get_submodule(name))]
    found: list[HiddenPair] = []
    why = "it has no two linear layers of which the second reads what the first makes"
    for start, stop in pairwise(linear):
        first, second = (cast(Pointwise, module.get_submodule(own[number])) for number in (start, stop))
        makes, reads, returns = first.weight.shape[0], second.weight.shape[1], second.weight.shape[0]
        names = f"{own[start].rpartition('.')[2]} and {own[stop].rpartition('.')[2]}"
        between = next((name for name in own[start + 1 : stop] if _has_weights(module.get_submodule(name))), None)
        if runs.count(own[start]) > 1 or runs.count(own[stop]) > 1:
            why = f"{names} run several times in one forward pass"
        elif between is not None:
            why = f"a {type(module.get_submodule(between)).__name__} stands between {names}"
        elif makes != reads:
            why = f"{names} make {makes} numbers and read {reads}, as in a gated MLP"
        elif place.kind not in _MLPS and makes <= returns:
            why = f"{names} are a bottleneck, as in squeeze and excitation"
        else:
            found.append(HiddenPair(own[start], own[stop], makes))
    return sorted(found, key=lambda pair: -pair.width), why


def _has_weights(part: nn.Module) -> bool:
    """Whether it holds more numbers than the one slope of an activation."""
    return sum(one.numel() for one in part.parameters()) > 1


@final
@dataclass
class Entering(AbstractObserver):
    """The stream that enters each unit."""

    streams: dict[int, Stream] = field(default_factory=dict[int, Stream])

    @override
    def stream(self, layer: int, stream: Stream) -> None:
        self.streams[layer + 1] = stream

    @override
    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        return attention.context()


@dataclass(frozen=True)
class _PairTest:
    """A subject in float64 and without edits, and what enters its units for two images of noise."""

    subject: Subject
    images: Float[Tensor, "batch channels height width"]
    entering: Mapping[int, Stream]

    @classmethod
    def of(cls, plain: Subject) -> "_PairTest":
        subject = with_module(plain, double_copy(plain.module))
        images = module_input(subject.module, probe_images(subject.preprocessing.shape))
        entering = Entering()
        with torch.no_grad(), buffers_kept(subject.module):
            subject.anatomy.walk(images, entering)
        return cls(subject, images, entering.streams)

    def find_differences(
        self, pairs: Mapping[int, HiddenPair], removed: Mapping[int, Sequence[int]]
    ) -> Mapping[int, str]:
        """What tells each unit without neurons from the one that does not read them; empty texts if nothing does."""
        smaller: dict[int, dict[str, nn.Module]] = {}
        zeroed: dict[int, dict[str, nn.Module]] = {}
        for layer, pair in pairs.items():
            first, second = (
                cast(Pointwise, self.subject.module.get_submodule(one)) for one in (pair.first, pair.second)
            )
            gone = [neuron for neuron in removed.get(layer, range(0, pair.width, 2)) if 0 <= neuron < pair.width]
            without = torch.tensor(gone, dtype=torch.long, device=second.weight.device)
            kept = others(without, pair.width)
            weight = matrix_of(second).clone()
            weight[:, without] = 0
            smaller[layer] = {pair.first: narrow(first, outputs=kept), pair.second: narrow(second, inputs=kept)}
            zeroed[layer] = {pair.second: with_matrix(second, weight, second.bias)}
        got, expected = self._run_all(smaller), self._run_all(zeroed)
        return {layer: _difference(pair, got[layer], expected[layer]) for layer, pair in pairs.items()}

    def _run_all(self, parts: Mapping[int, Mapping[str, nn.Module]]) -> Mapping[int, Tensor | str]:
        """What leaves each unit with its parts, or why it does not run; the logits if a model is read at its blocks."""
        if not isinstance(self.subject.anatomy, Composition):
            return {layer: self._run(self._changed(some), layer) for layer, some in parts.items()}
        changed = self._changed({name: part for some in parts.values() for name, part in some.items()})
        return {layer: self._run(changed, layer) for layer in parts}

    def _changed(self, parts: Mapping[str, nn.Module]) -> Subject:
        return with_module(self.subject, with_parts(self.subject.module, parts))

    def _run(self, changed: Subject, layer: int) -> Tensor | str:
        try:
            with torch.no_grad(), buffers_kept(changed.module):
                if isinstance(changed.anatomy, Composition):
                    return changed.anatomy.units[layer - 1](self.entering[layer]).values
                return changed.anatomy.walk(self.images, Unwatched())
        except Exception as error:  # whatever a stranger's module raises when it meets fewer numbers
            return reason(error)


def _difference(pair: HiddenPair, got: Tensor | str, expected: Tensor | str) -> str:
    """Why two results of a unit are not the same; empty if they are."""
    names = " and ".join(name.rpartition(".")[2] for name in (pair.first, pair.second))
    failed = next((one for one in (got, expected) if isinstance(one, str)), None)
    if failed is not None or isinstance(got, str) or isinstance(expected, str):
        return f"what lies between {names} does not run without some of them ({failed})"
    return "" if agree(got, expected) else f"what lies between {names} is not elementwise"


def agree(one: Tensor, other: Tensor) -> bool:
    """Whether two results in float64 are equal up to rounding."""
    if one.shape != other.shape:
        return False
    scale = float(other.abs().amax()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * scale)


def running_pairs(subject: Subject, pairs: Mapping[int, HiddenPair]) -> Mapping[int, HiddenPair]:
    """Those of the pairs that the subject still runs as it is edited. Cost: a walk of two images if there are edits."""
    if not subject.edits:
        return pairs
    images = module_input(subject.module, probe_images(subject.preprocessing.shape))
    seconds = [pair.second for pair in pairs.values()]
    with torch.no_grad(), buffers_kept(subject.module), record_runs(subject.module, seconds) as runs:
        subject.anatomy.walk(images, Unwatched())
    return {layer: pair for layer, pair in pairs.items() if pair.second in runs}


def require_pairs(pairs: Pairs, subject: Subject, layers: Sequence[int]) -> Mapping[int, HiddenPair]:
    """The pairs that were found; raises ``UserError`` naming the first of these layers that has none, and why."""
    for layer in layers:
        if layer in pairs.why_not:
            where = f"{subject.places[layer - 1].name} (layer {layer} of {subject.name})"
            raise UserError(f"{where} has no hidden neurons that can be removed: {pairs.why_not[layer]}.")
    return pairs.found
