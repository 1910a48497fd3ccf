"""Attention modules with fewer heads: which of their weights belong to which head, and the module without some."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from vitscope.interventions.head_lesion import WithoutHeads
from vitscope.interventions.hidden_pair import Entering, agree
from vitscope.measurement.text import reason
from vitscope.models.attention import Attention
from vitscope.models.edit import with_module
from vitscope.models.feed import module_input
from vitscope.models.hooks import hooks, takes_hooks
from vitscope.models.own_forward import probe_images
from vitscope.models.state import buffers_kept
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractObserver, Composition, Subject
from vitscope.models.surgery import Pointwise, double_copy, is_pointwise, narrow, with_parts
from vitscope.models.unit import AbstractAttentionUnit
from vitscope.numerics.ridge import others

_OF_ONE = ("dim", "size", "width")
"""Parts of the names of integers that hold the width of one head."""
_OF_HEADS = ("attn", "attention", "all_head", "inner", "kv")
"""Parts of the names of integers that hold the width of all heads together."""


@final
@dataclass(frozen=True)
class AttentionParts:
    """What an attention module consists of.

    It has ``heads`` of ``widths`` (of queries and keys, of values); ``projection`` is the name of the layer that reads
    their joined context.
    """

    unit: str
    heads: int
    widths: tuple[int, int]
    projection: str

    @property
    def width(self) -> int:
        """The width of a head's context."""
        return self.widths[1]

    def columns(self, heads: Int[Tensor, " some"]) -> Int[Tensor, " columns"]:
        """The columns of the projection that read these heads."""
        return (heads[:, None] * self.width + torch.arange(self.width, device=heads.device)).flatten()


@final
@dataclass(frozen=True)
class Packing:
    """How an attention module stores what belongs to a head.

    ``heads_first`` says that packed projections are ordered head by head, each with its queries, keys and values;
    otherwise queries of all heads come first. With ``every_width`` all integers that equal the width of all heads are
    changed, otherwise only those whose names say so.
    """

    heads_first: bool
    every_width: bool


PACKINGS = (Packing(False, False), Packing(True, False), Packing(False, True), Packing(True, True))


def attention_parts(subject: Subject, layers: Sequence[int]) -> tuple[Mapping[int, AttentionParts], Mapping[int, str]]:
    """The parts of these attention units by layer, and why others have none that can be read.

    The projection is the first ``nn.Linear`` or 1 x 1 convolution in the unit's module that runs once the context is
    there, and reads as many numbers as all heads have. Cost: a walk of two images.
    """
    plain = with_module(replace(subject, edits=()), subject.module)
    if not isinstance(plain.anatomy, Composition):
        return {}, dict.fromkeys(layers, "attention of a model that nobody described cannot be read")
    units = plain.anatomy.units
    finder = _ProjectionFinder(subject, {layer: units[layer - 1].place.name for layer in layers})
    names = [name for name, part in subject.module.named_modules() if is_pointwise(part) and takes_hooks(part)]
    images = module_input(subject.module, probe_images(subject.preprocessing.shape))
    with torch.no_grad(), buffers_kept(subject.module), hooks(subject.module, names, before=finder.before):
        plain.anatomy.walk(images, finder)
    why = {layer: "it has no attention that can be read" for layer in layers if layer not in finder.seen}
    why |= {layer: "the layer that joins its heads is not a part that runs by itself" for layer in finder.seen}
    return finder.found, {layer: why[layer] for layer in layers if layer not in finder.found}


@dataclass
class _ProjectionFinder(AbstractObserver):
    """Finds the projections during a walk."""

    subject: Subject
    units: Mapping[int, str]
    seen: dict[int, tuple[int, int, int]] = field(default_factory=dict[int, tuple[int, int, int]])
    found: dict[int, AttentionParts] = field(default_factory=dict[int, AttentionParts])
    _now: int = 0

    @override
    def stream(self, layer: int, stream: Stream) -> None:
        self._now = 0

    @override
    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        if layer in self.units:
            self._now = layer
            self.seen[layer] = (attention.queries.shape[2], attention.queries.shape[-1], attention.values.shape[-1])
        return attention.context()

    def before(self, name: str, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Take the first layer of the present unit that reads all heads."""
        del given, named
        layer, part = self._now, self.subject.module.get_submodule(name)
        if layer and layer not in self.found and is_pointwise(part) and name.startswith(f"{self.units[layer]}."):
            heads, keys, values = self.seen[layer]
            if part.weight.shape[1] == heads * values:
                self.found[layer] = AttentionParts(self.units[layer], heads, (keys, values), name)


def cut_heads(
    module: nn.Module,
    parts: AttentionParts,
    heads: Sequence[int],
    packing: Packing,
    projection: Pointwise | None = None,
) -> nn.Module:
    """A copy of an attention module without these heads; ``module`` is the whole model, which is untouched.

    Rows of the layers that make queries, keys, values and gates go, columns of the projection, and the entries of other
    parameters of one size a head (tables of relative positions, scales of logits, biases). Integers that count heads
    are adapted. ``projection`` replaces the output projection. Whether the result is right must be tested:
    :func:`find_packing`.
    """
    attention = module.get_submodule(parts.unit)
    like = next(attention.parameters())
    kept = others(torch.tensor(list(heads), dtype=torch.long, device=like.device), parts.heads)
    joined = parts.projection.removeprefix(f"{parts.unit}.")
    old = cast(Pointwise, attention.get_submodule(joined))
    layers: dict[str, nn.Module] = {joined: projection or narrow(old, inputs=parts.columns(kept))}
    for name, part in _sources(attention, joined):
        rows = _entries(part.weight.shape[0], parts, kept, packing)
        if rows is not None:
            layers[name] = narrow(part, outputs=rows)
    tensors = dict(_per_head_tensors(attention, parts, kept, packing))
    smaller = with_parts(attention, layers, tensors)
    for part in smaller.modules():
        _adapt_counts(part, parts, len(kept), packing)
    return smaller


def _sources(attention: nn.Module, joined: str) -> Iterator[tuple[str, Pointwise]]:
    """The layers whose outputs belong to heads: all but the projection, and the last alone of several in sequence."""
    for name, part in attention.named_modules():
        if is_pointwise(part) and name != joined and not name.startswith(f"{joined}."):
            parent = attention.get_submodule(name.rpartition(".")[0])
            after = list(parent)[list(parent).index(part) + 1 :] if isinstance(parent, nn.Sequential) else []
            if not any(is_pointwise(one) for one in after):
                yield name, part


def _entries(size: int, parts: AttentionParts, kept: Int[Tensor, " kept"], packing: Packing) -> Tensor | None:
    """The entries of the kept heads along an axis of ``size``; None if the axis has nothing to do with heads."""
    heads, (keys, values) = parts.heads, parts.widths
    each, rest = divmod(size, heads)
    if rest or each not in {1, keys, values, 2 * keys, keys + values, 2 * keys + values}:
        return None
    numbers = torch.arange(size, device=kept.device)
    if each in (1, keys, values) or packing.heads_first or keys != values:
        return numbers.view(heads, each)[kept].flatten()
    return numbers.view(each // keys, heads, keys)[:, kept].flatten()


def _per_head_tensors(
    attention: nn.Module, parts: AttentionParts, kept: Int[Tensor, " kept"], packing: Packing
) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, other than those of layers and norms, without the entries of the heads that go."""
    for path, part in attention.named_modules():
        if is_pointwise(part) or hasattr(part, "normalized_shape"):
            continue
        buffers = dict(part.named_buffers(recurse=False))
        for name, tensor in (*part.named_parameters(recurse=False), *buffers.items()):
            if not tensor.is_floating_point() or (name in buffers and tensor.ndim > 1):
                continue
            axis = next((axis for axis in reversed(range(tensor.ndim)) if tensor.shape[axis] == parts.heads), None)
            entries = kept if axis is not None else None
            if axis is None and tensor.ndim:
                axis, entries = 0, _entries(tensor.shape[0], parts, kept, packing)
            if axis is not None and entries is not None:
                yield f"{path}.{name}" if path else name, tensor.detach().index_select(axis, entries)


def _adapt_counts(part: nn.Module, parts: AttentionParts, kept: int, packing: Packing) -> None:
    """Set the integers that count heads, or that are the width of all of them, to what is left."""
    whole = {parts.heads * width for width in parts.widths}
    for name, value in [] if is_pointwise(part) else list(vars(part).items()):
        if isinstance(value, tuple) and value and value[-1] == parts.heads and "shape" in name:
            setattr(part, name, (*value[:-1], kept))
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        counts = "head" in name and not any(word in name for word in _OF_ONE)
        if value == parts.heads and counts:
            setattr(part, name, kept)
        elif value in whole and (packing.every_width or any(word in name for word in _OF_HEADS)):
            setattr(part, name, value // parts.heads * kept)


def find_packing(
    subject: Subject,
    parts: Mapping[int, AttentionParts],
    removed: Mapping[int, Sequence[int]],
    packings: Sequence[Packing],
) -> tuple[Packing | None, int, str]:
    """The first packing by which units without heads give what the walk gives when the heads' contexts are zero.

    Tested in float64 and on noise, against :class:`~vitscope.interventions.head_lesion.HeadLesion`'s walk. None, the
    layer that fails and why, if there is none. Cost: a copy of the module in float64 and a forward pass of two images;
    for each layer and packing tried, a copy of the unit.
    """
    plain = with_module(replace(subject, edits=()), double_copy(subject.module))
    assert isinstance(plain.anatomy, Composition), "only these have attention that is read"
    seen = Entering()
    with torch.no_grad(), buffers_kept(plain.module):
        plain.anatomy.walk(module_input(plain.module, probe_images(subject.preprocessing.shape)), seen)
    first = (0, "")
    for packing in packings:
        layer, why = _find_failure(plain, parts, removed, packing, seen.streams)
        if not why:
            return packing, 0, ""
        first = first if first[0] else (layer, why)
    return None, first[0], first[1]


def _find_failure(
    plain: Subject,
    parts: Mapping[int, AttentionParts],
    removed: Mapping[int, Sequence[int]],
    packing: Packing,
    streams: Mapping[int, Stream],
) -> tuple[int, str]:
    """The first layer that this packing does not fit, and why; 0 and no reason if it fits all."""
    anatomy, layer, kind = plain.anatomy, 0, ""
    assert isinstance(anatomy, Composition)
    try:
        smaller = dict[str, nn.Module]()
        for layer, heads in removed.items():
            kind = type(plain.module.get_submodule(parts[layer].unit)).__name__
            smaller[parts[layer].unit] = cut_heads(plain.module, parts[layer], heads, packing)
        changed = with_module(plain, with_parts(plain.module, smaller)).anatomy
        assert isinstance(changed, Composition)
        for layer, heads in removed.items():
            kind = type(plain.module.get_submodule(parts[layer].unit)).__name__
            unit = anatomy.units[layer - 1]
            assert isinstance(unit, AbstractAttentionUnit)
            with torch.no_grad(), buffers_kept(plain.module):
                expected = WithoutHeads(unit.place, unit, tuple(heads), None)(streams[layer]).values
                got = changed.units[layer - 1](streams[layer]).values
            if not agree(got, expected):
                return layer, f"{kind} with fewer heads does not give what it gives without their contexts"
    except Exception as error:  # whatever a module raises when it meets fewer numbers
        return layer, f"{kind} does not run with fewer heads ({reason(error)})"
    return 0, ""
