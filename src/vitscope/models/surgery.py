"""Modules of other shapes: layers with fewer inputs or outputs, parts replaced, and the changes of shape as JSON."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.rewritten import copy_afresh, copy_module
from vitscope.numerics.precision import WITHOUT_DOUBLE

Pointwise = nn.Linear | nn.Conv2d
"""A layer that applies one matrix to every token or cell."""
Change = dict[str, object]
_SCALAR = (bool, int, float, str)
_SIDES = {nn.Linear: ("in_features", "out_features"), nn.Conv2d: ("in_channels", "out_channels")}


def is_pointwise(part: object) -> TypeGuard[Pointwise]:
    """Whether a module applies one matrix to every token or cell: ``nn.Linear``, or a convolution of 1 x 1 cells."""
    if isinstance(part, nn.Conv2d):
        return part.kernel_size == (1, 1) and part.groups == 1 and part.padding == (0, 0) and part.stride == (1, 1)
    return isinstance(part, nn.Linear)


def matrix_of(layer: Pointwise) -> Float[Tensor, "outputs inputs"]:
    """The matrix that a pointwise layer applies; a view of its weight."""
    return layer.weight.detach().flatten(1)


def with_matrix(
    layer: Pointwise, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None
) -> Pointwise:
    """A copy of a pointwise layer with another matrix and bias, of any shape; the layer given is untouched.

    They are converted to the type and device of the layer. A bias is added, or removed, if only one of both has it.
    """
    old = layer.weight
    shape = (*weight.shape, *old.shape[2:])
    memo: dict[int, object] = {id(old): _parameter(weight.reshape(shape), old)}
    if layer.bias is not None and bias is not None:
        memo[id(layer.bias)] = _parameter(bias, layer.bias)
    new = copy_module(layer, memo)
    if (layer.bias is None) != (bias is None):
        new.register_parameter("bias", None if bias is None else _parameter(bias, old))
    inputs, outputs = _sides(layer)
    setattr(new, inputs, weight.shape[1])
    setattr(new, outputs, weight.shape[0])
    return cast(Pointwise, new)


def narrow(
    layer: Pointwise, outputs: Int[Tensor, " outputs"] | None = None, inputs: Int[Tensor, " inputs"] | None = None
) -> Pointwise:
    """A copy of a pointwise layer with these of its outputs and inputs; all of them if None."""
    weight, bias = matrix_of(layer), layer.bias
    if inputs is not None:
        weight = weight[:, inputs]
    if outputs is not None:
        weight, bias = weight[outputs], None if bias is None else bias[outputs]
    return with_matrix(layer, weight, bias)


def with_parts(
    module: nn.Module, parts: Mapping[str, nn.Module], tensors: Mapping[str, Float[Tensor, "..."]] | None = None
) -> nn.Module:
    """A copy of the module with these submodules, and these parameters and buffers of any shape; the original is kept.

    Everything is named as in ``named_modules``, ``named_parameters`` and ``named_buffers``. All other parameters and
    buffers are shared with the original. What is used under several names is replaced under all. Raises ``UserError``
    for a name that the module does not have. Cost: about 10 ms for a ViT of twelve blocks.
    """
    known = dict(module.named_modules())
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    unknown = next((name for name in (*parts, *(tensors or ())) if name not in known and name not in held), None)
    if unknown is not None:
        raise UserError(f"{type(module).__name__} has no part {unknown!r}; see module.named_modules().")
    memo: dict[int, object] = {id(tensor): tensor for tensor in held.values()}
    memo |= {id(known[name]): part for name, part in parts.items()}
    memo |= {id(held[name]): _like(value, held[name]) for name, value in (tensors or {}).items()}
    return copy_afresh(module, memo)


def double_copy(module: nn.Module) -> nn.Module:
    """A copy of the module in float64, which shares nothing with it; on the CPU if its device has no float64."""
    new = copy_afresh(module, {})
    devices = {one.device.type for one in (*new.parameters(), *new.buffers())}
    return (new.cpu() if devices & WITHOUT_DOUBLE else new).double()


def shape_changes(base: nn.Module, edited: nn.Module) -> dict[str, object]:
    """How ``edited`` differs from ``base`` in shape, as JSON for :func:`reshape`: the changes of each submodule.

    A linear layer's or convolution's change is its new numbers of inputs and outputs (``in_features``,
    ``out_features``, ``in_channels``, ``out_channels``) and, if that differs, whether it has a ``bias``; a linear
    layer that became two in sequence (low rank) has a ``rank``. Other submodules list numbers, truth values and texts
    that differ (``num_heads``) by their names, and under ``tensors`` the parameters and buffers of other shapes: the
    shape, and for a buffer that no state dict holds the ``value`` of all its entries. ``base`` may be on the device
    ``meta``. Raises ``UserError`` for differences that cannot be described like this: other classes, and parts that are
    missing or larger.
    """
    inside = _low_rank_parts(base, edited)
    before, after = dict(base.named_modules()), dict(edited.named_modules())
    absent = sorted(name for name in before.keys() ^ after.keys() if name not in inside)
    if absent:
        raise UserError(f"{absent[0]} is a part of one of the two modules only, which is no change of shape.")
    changes = {name: _change(name, before[name], part) for name, part in after.items() if name in before}
    return {name: change for name, change in changes.items() if change}


def reshape(module: nn.Module, changes: Mapping[str, object]) -> nn.Module:
    """A copy of the module in the shapes that :func:`shape_changes` found, for a state dict to be loaded strictly.

    Parameters and buffers of other shapes are zero. The module given is untouched. Raises ``UserError`` for changes
    that :func:`shape_changes` does not write, that do not fit the module, or that make a part larger.
    """
    new, layers = copy_module(module), dict[str, nn.Module]()
    known = dict(new.named_modules())
    for name, change in changes.items():
        if name not in known or not isinstance(change, Mapping):
            raise UserError(f"The changes of shape name {name!r}, which {type(module).__name__} does not have.")
        part, asked = known[name], dict(cast("Mapping[str, object]", change))
        if is_pointwise(part):
            layers[name] = _reshape_layer(name, part, asked)
        else:
            _reshape_part(name, part, asked)
    return with_parts(new, layers) if layers else new


def _sides(layer: Pointwise) -> tuple[str, str]:
    return _SIDES[nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d]


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().to(like).clone(memory_format=torch.contiguous_format), like.requires_grad)


def _like(value: Tensor, old: Tensor) -> Tensor:
    return _parameter(value, old) if isinstance(old, nn.Parameter) else value.detach().to(old).clone()


def _low_rank_pair(before: nn.Module, after: nn.Module) -> tuple[nn.Linear, nn.Linear] | None:
    """The two linear layers in sequence, the first without a bias, that one became; None if it did not."""
    parts = tuple(after) if type(after) is nn.Sequential and isinstance(before, nn.Linear) else ()
    linear = [one for one in parts if isinstance(one, nn.Linear)]
    if len(parts) != 2 or len(linear) != 2:
        return None
    first, second = linear
    biased = cast("Tensor | None", first.bias) is not None
    return None if biased or first.out_features != second.in_features else (first, second)


def _low_rank_parts(base: nn.Module, edited: nn.Module) -> set[str]:
    known = dict(base.named_modules())
    pairs = [name for name, part in edited.named_modules() if name in known and _low_rank_pair(known[name], part)]
    return {f"{name}.{number}" for name in pairs for number in (0, 1)}


def _change(name: str, before: nn.Module, after: nn.Module) -> Change:
    if pair := _low_rank_pair(before, after):
        return {"rank": pair[0].out_features, **_sides_change(cast(nn.Linear, before), *pair)}
    if type(before) is not type(after):
        kinds = f"a {type(before).__name__} in one of the two modules and a {type(after).__name__} in the other"
        raise UserError(f"{name or 'The module'} is {kinds}, which is no change of shape.")
    if is_pointwise(before) and is_pointwise(after):
        return _sides_change(before, after, after)
    own, other = _plain_attributes(before), _plain_attributes(after)
    found: Change = {key: value for key, value in other.items() if key in own and own[key] != value}
    tensors = dict(_tensor_changes(name, before, after))
    return {**found, "tensors": tensors} if tensors else found


def _sides_change(before: Pointwise, first: Pointwise, last: Pointwise) -> Change:
    inputs, outputs = _sides(before)
    sides: Change = {inputs: getattr(first, inputs), outputs: getattr(last, outputs)}
    if grown := [side for side, value in sides.items() if value > getattr(before, side)]:
        raise UserError(
            f"A layer has {sides[grown[0]]} {grown[0]} and had {getattr(before, grown[0])}; it can only shrink."
        )
    change = sides if any(getattr(before, side) != value for side, value in sides.items()) else {}
    return change if (before.bias is None) == (last.bias is None) else {**change, "bias": last.bias is not None}


def _plain_attributes(part: nn.Module) -> dict[str, object]:
    """Numbers, truth values, texts and tuples of them that the module itself holds, as JSON has them."""
    named = {key: value for key, value in vars(part).items() if not key.startswith("_") and key != "training"}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in named.items() if _plain(value)}


def _plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(one, _SCALAR) for one in cast("tuple[object, ...]", value))
    return isinstance(value, _SCALAR)


def _tensor_changes(name: str, before: nn.Module, after: nn.Module) -> Iterator[tuple[str, Change]]:
    own, other = _tensors(before), _tensors(after)
    for key in own.keys() | other.keys():
        one, two = own.get(key), other.get(key)
        if one is None and two is None:
            continue
        if one is None or two is None:
            raise UserError(f"{name}.{key} is a tensor in one of the two modules only, which is no change of shape.")
        if one.shape == two.shape:
            continue
        if one.ndim != two.ndim or any(side > most for side, most in zip(two.shape, one.shape, strict=True)):
            raise UserError(f"{name}.{key} is {tuple(two.shape)} and was {tuple(one.shape)}; parts can only shrink.")
        change: Change = {"shape": list(two.shape)}
        if key in after._non_persistent_buffers_set:  # pyright: ignore[reportPrivateUsage]
            if not two.numel() or bool((two != two.flatten()[0]).any()):
                raise UserError(f"{name}.{key} has another shape and is in no state dict, so it could not be restored.")
            change["value"] = two.flatten()[0].item()
        yield key, change


def _tensors(part: nn.Module) -> dict[str, Tensor | None]:
    return {**part._parameters, **part._buffers}  # pyright: ignore[reportPrivateUsage]


def _reshape_layer(name: str, layer: Pointwise, asked: Change) -> nn.Module:
    inputs, outputs = _sides(layer)
    wanted = {key: asked.pop(key, getattr(layer, key)) for key in (inputs, outputs)}
    biased, rank = asked.pop("bias", layer.bias is not None), asked.pop("rank", None)
    counts = [wanted[outputs], wanted[inputs], 1 if rank is None else rank]
    if asked or not isinstance(biased, bool) or not all(_is_count(one) for one in counts):
        raise UserError(f"The changes of shape of {name} are not those of a linear layer; save the model again.")
    rows, columns, middle = cast("list[int]", counts)
    _refuse_larger(name, (rows, columns, middle), (*layer.weight.shape[:2], min(rows, columns)))

    def zeros(*shape: int) -> Tensor:
        return layer.weight.new_zeros(shape)

    bias = zeros(rows) if biased else None
    if rank is None:
        return with_matrix(layer, zeros(rows, columns), bias)
    return nn.Sequential(
        with_matrix(layer, zeros(middle, columns), None), with_matrix(layer, zeros(rows, middle), bias)
    ).train(layer.training)


def _reshape_part(name: str, part: nn.Module, asked: Change) -> None:
    tensors = asked.pop("tensors", {})
    own = _plain_attributes(part)
    wrong = next((key for key, value in asked.items() if not _is_like(value, own.get(key))), None)
    if wrong is not None or not isinstance(tensors, Mapping):
        raise UserError(f"The changes of shape of {name} do not fit a {type(part).__name__}; save the model again.")
    for key, value in asked.items():
        setattr(part, key, tuple(cast("list[object]", value)) if isinstance(getattr(part, key), tuple) else value)
    for key, change in cast("Mapping[str, Any]", tensors).items():
        old = _tensors(part).get(key)
        shape, value = _asked_tensor(change)
        if old is None or len(shape) != old.ndim:
            raise UserError(f"The changes of shape of {name}.{key} do not fit a {type(part).__name__}.")
        _refuse_larger(f"{name}.{key}", shape, tuple(old.shape))
        setattr(part, key, _like(torch.full(shape, value), old))


def _asked_tensor(change: object) -> tuple[tuple[int, ...], float]:
    """Shape and value of a tensor in JSON; no shape if it is none."""
    asked = cast("Mapping[str, object]", change) if isinstance(change, Mapping) else {}
    shape, value = asked.get("shape"), asked.get("value", 0)
    if not isinstance(shape, list) or not isinstance(value, int | float):
        return (), 0.0
    sides = cast("list[object]", shape)
    return (tuple(cast("list[int]", sides)), float(value)) if all(map(_is_count, sides)) else ((), 0.0)


def _is_like(value: object, own: object) -> bool:
    """Whether a value of JSON is of the kind of the module's own."""
    if isinstance(value, list) and isinstance(own, list):
        pairs = (cast("list[object]", value), cast("list[object]", own))
        return len(pairs[0]) == len(pairs[1]) and all(map(_is_like, *pairs))
    return isinstance(value, _SCALAR) and type(value) is type(own)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _refuse_larger(name: str, shape: tuple[int, ...], most: tuple[int, ...]) -> None:
    if any(side > limit for side, limit in zip(shape, most, strict=True)):
        raise UserError(f"The changes of shape make {name} larger than the model has it; save the model again.")
