"""Edits of a walk written into weights: an ordinary module with the edited subject's logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.attention import Attention
from vitscope.models.edit import with_module
from vitscope.models.probe import probe
from vitscope.models.rewritten import replace_parameters
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Subject
from vitscope.models.unit import Place

_TOLERANCE = 1e-9
"""Tolerance in float64, relative to the largest value."""


def bake(subject: Subject) -> tuple[nn.Module, tuple[str, ...]]:
    """A module whose own forward pass gives the edited subject's logits, and the parameters that were zeroed for it.

    Layer by layer from the stem, where the plain walk departs from the edited one, the last weights of that unit's
    branch are tried: those whose zeros (for all or some heads) make the two agree again are taken. Without edits the
    subject's own module is returned. Raises ``UserError`` naming the unit whose change no weights can express.
    """
    if not subject.edits:
        return subject.module, ()
    parameters = dict(subject.module.named_parameters())
    double = replace_parameters(subject.module, {name: p.detach().clone() for name, p in parameters.items()}).double()
    zeros = _ZeroSearch(subject, double, probe(subject, torch.float64)).zeros()
    changed = {zero.name: parameters[zero.name].detach().clone() for zero in zeros}
    for zero in zeros:
        changed[zero.name][zero.where] = 0
    return replace_parameters(subject.module, changed), tuple(dict.fromkeys(zero.name for zero in zeros))


@dataclass(frozen=True)
class _Zero:
    """Entries of a parameter to set to zero: all, or some columns of a matrix."""

    name: str
    where: tuple[slice, ...]


@dataclass
class _Watched(AbstractObserver):
    """The streams of a walk, and how many heads each attention unit has."""

    streams: list[Tensor] = field(default_factory=list[Tensor])
    heads: dict[int, int] = field(default_factory=dict[int, int])

    def stream(self, layer: int, stream: Stream) -> None:
        """Store its values."""
        del layer
        self.streams.append(stream.values)

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """Count the heads."""
        self.heads[layer] = attention.queries.shape[2]
        return attention.context()


@dataclass(frozen=True)
class _ZeroSearch:
    """The search for zeros, on a float64 copy of the module that it writes into."""

    subject: Subject
    module: nn.Module
    images: Float[Tensor, "batch channels height width"]

    def zeros(self) -> list[_Zero]:
        """The entries that must be zero, found layer by layer."""
        target = self._walk(with_module(self.subject, self.module))  # before anything is zeroed
        found: list[_Zero] = []
        while (layer := self._first_difference(target)) is not None:
            if layer == 0 or layer == len(target[0].streams):
                where = "before its first unit" if layer == 0 else "after its last unit"
                raise UserError(f"{self._cannot} {where}, which weights cannot express.")
            found.extend(self._mend(layer, target))
        return found

    @property
    def _cannot(self) -> str:
        names = ", ".join(dict.fromkeys(type(edit).__name__ for edit in self.subject.edits))
        return f"{self.subject.name} cannot become an ordinary model: its edits ({names}) change it"

    def _walk(self, subject: Subject) -> tuple[_Watched, Tensor]:
        watched = _Watched()
        with torch.no_grad():
            return watched, subject.anatomy.walk(self.images, watched)

    def _plain(self) -> tuple[_Watched, Tensor]:
        return self._walk(with_module(replace(self.subject, edits=()), self.module))

    def _first_difference(self, target: tuple[_Watched, Tensor]) -> int | None:
        """The first layer after which the plain walk differs; one past the last for the logits; None if none does."""
        watched, logits = self._plain()
        pairs = [*zip(watched.streams, target[0].streams, strict=True), (logits, target[1])]
        return next((layer for layer, (one, other) in enumerate(pairs) if not _agree(one, other)), None)

    def _mend(self, layer: int, target: tuple[_Watched, Tensor]) -> Sequence[_Zero]:
        """Zeros that make the walks agree up to this layer; they stay in the module."""
        place = self.subject.places[layer - 1]
        candidates = list(dict.fromkeys(_candidates(self.module, place)))
        heads = target[0].heads.get(layer) or self._plain()[0].heads.get(layer, 1)
        for names in candidates:
            if self._holds([_Zero(name, (slice(None),)) for name in names], layer, target):
                return [_Zero(name, (slice(None),)) for name in names]
        for name in (name for names in candidates for name in names if heads > 1):
            zeros = self._columns(name, heads, layer, target)
            if zeros and self._holds(zeros, layer, target):
                return zeros
        raise UserError(
            f"{self._cannot} at layer {layer} ({place.name}) in a way that zeros among its weights cannot express; "
            "pruned and displaced weights, and units and heads that are left out, can be written as zeros."
        )

    def _holds(self, zeros: Sequence[_Zero], layer: int, target: tuple[_Watched, Tensor]) -> bool:
        before = self._write(zeros)
        difference = self._first_difference(target)
        if difference is None or difference > layer:
            return True
        self._restore(before)
        return False

    def _columns(self, name: str, heads: int, layer: int, target: tuple[_Watched, Tensor]) -> list[_Zero]:
        """The heads whose columns of a matrix must be zero, from a least-squares fit of each head's effect."""
        weight = self.module.get_parameter(name)
        if weight.ndim < 2 or weight.shape[1] % heads:
            return []
        width = weight.shape[1] // heads
        groups = [_Zero(name, (slice(None), slice(head * width, (head + 1) * width))) for head in range(heads)]
        start = self._plain()[0].streams[layer]
        if start.shape != target[0].streams[layer].shape:
            return []
        changes: list[Tensor] = []
        for group in groups:
            before = self._write([group])
            changes.append((self._plain()[0].streams[layer] - start).reshape(-1))
            self._restore(before)
        wanted = (target[0].streams[layer] - start).reshape(-1, 1)
        weights = torch.linalg.lstsq(torch.stack(changes, 1), wanted).solution[:, 0]
        return [group for group, share in zip(groups, weights.tolist(), strict=True) if share > 0.5]

    def _write(self, zeros: Sequence[_Zero]) -> dict[str, Tensor]:
        """Write zeros and return the parameters as they were."""
        before = {zero.name: self.module.get_parameter(zero.name).detach().clone() for zero in zeros}
        with torch.no_grad():
            for zero in zeros:
                self.module.get_parameter(zero.name)[zero.where] = 0
        return before

    def _restore(self, before: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in before.items():
                self.module.get_parameter(name).copy_(tensor)


def _agree(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    scale = float(other.abs().amax()) if prod(other.shape) else 0.0
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE * scale)


def _candidates(module: nn.Module, place: Place) -> Iterator[tuple[str, ...]]:
    """Parameters that may end the unit's branch: the last of its module first, then those of the module around it.

    The parameters of a module whose parts have none form one group; bare ones of a larger module (LayerScale) are
    separate.
    """
    known = dict(module.named_modules())
    for name in (place.name, place.name.rpartition(".")[0]):
        if name not in known:
            continue
        for path, part in reversed(list(known[name].named_modules())):
            full = ".".join(filter(None, (name, path)))
            own = [f"{full}.{one}" if full else one for one, _ in part.named_parameters(recurse=False)]
            if not own:
                continue
            if len(own) == sum(1 for _ in part.parameters()):
                yield tuple(own)
            else:
                yield from ((one,) for one in reversed(own))
