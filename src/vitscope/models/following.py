"""Whether a unit starts from the stream that the one before left, so that the change across it can be measured."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from vitscope.models.bands import band_pictures
from vitscope.models.blocks import as_first, images_differ, unlike
from vitscope.models.found_layout import FoundLayout
from vitscope.models.hooks import hooks
from vitscope.models.own_forward import own_output, probe_images
from vitscope.models.stream import Stream


def same_map(one: Stream, other: Stream) -> bool:
    """Whether two streams hold the same map, entry by entry, in any layout."""
    a, b = one.patches, other.patches
    if (one.grid, a.shape, a.dtype, a.device) != (other.grid, b.shape, b.dtype, b.device):
        return False
    if (a.data_ptr(), a.stride()) == (b.data_ptr(), b.stride()) or torch.equal(a, b):
        return True
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def layers_apart(
    module: nn.Module,
    names: Sequence[str],
    layouts: Sequence[FoundLayout],
    entering: Sequence[FoundLayout | None],
    image: tuple[int, int, int],
) -> frozenset[int]:
    """The layers (from 1) whose input is not the map that the one before left, or that a shortcut bypasses.

    A map that was changed in place in between is detected. A shortcut is looked for if the next unit is apart: for two
    pictures, the unit is made to return the output of the first for both. If that changes the input of the next unit,
    which still differs between the two, part of the stream bypasses the unit. Cost: a forward pass of one image, and
    one of two for each such unit.
    """
    entered: dict[str, Stream | None] = {}
    left: dict[str, Stream | None] = {}
    known = dict(zip(names, zip(layouts, entering, strict=True), strict=True))

    def before(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered[name] = _copy(known[name][1], (*given, *named.values()))

    def behind(name: str, output: object) -> None:
        left[name] = _copy(known[name][0], output)

    picture = band_pictures(image)[:1]
    with torch.no_grad():
        with hooks(module, names, before, behind):
            own_output(module, picture)
        found = {
            layer
            for layer, (one, two) in enumerate(pairwise(names), start=2)
            if not _both_same(left.get(one), entered.get(two))
        }
        shown = torch.cat([probe_images(image)[:1], picture])
        told = [layer for layer in range(1, len(names)) if layer not in found and layer + 1 in found]
        for layer in told:
            unit, behind_it = names[layer - 1 : layer + 1]
            alone = entered.get(behind_it)
            if alone is not None and _passes_by(module, (unit, behind_it), known, shown, alone):
                found.add(layer)
    return frozenset(found)


def _copy(layout: FoundLayout | None, given: object) -> Stream | None:
    stream = None if layout is None else layout.stream(given)
    return None if stream is None else stream.with_values(stream.values.clone())


def _both_same(one: Stream | None, other: Stream | None) -> bool:
    return one is not None and other is not None and same_map(one, other)


def _passes_by(
    module: nn.Module,
    names: tuple[str, str],
    known: Mapping[str, tuple[FoundLayout, FoundLayout | None]],
    images: Tensor,
    alone: Stream,
) -> bool:
    """Whether part of the second unit's input comes from the first unit, and another part bypasses it.

    ``alone`` is the input of the second unit for the second image.
    """
    unit, later = names
    ran = found = False

    def before(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal found
        layout = known[later][1]
        stream = None if layout is None else layout.stream((*given, *named.values()))
        if name == later and ran and stream is not None:
            found |= images_differ(stream) and unlike(stream.values[1], alone.values[0])

    def behind(name: str, output: object) -> object:
        nonlocal ran
        ran |= name == unit
        return as_first(output, known[unit][0].axes[0]) if name == unit else None

    with hooks(module, names, before, behind):
        own_output(module, images)
    return found
