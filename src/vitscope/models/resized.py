"""Other arguments of a constructor, read from a module: fewer blocks, and a narrower MLP in every block."""

import re
from collections.abc import Iterator, Mapping
from itertools import product

from torch import nn

from vitscope.models.surgery import is_pointwise

_DEPTH = ("depth", "num_blocks", "num_layers", "num_hidden_layers")
"""Names of the number of blocks, in the libraries and their families."""
_DEPTHS = ("depths", "layers")
"""Names of the numbers of blocks of all stages."""
Arguments = Mapping[str, object]


def resized_arguments(arguments: Arguments, made: nn.Module, module: nn.Module) -> Iterator[Arguments]:
    """The arguments with other numbers of blocks and MLP widths, if ``module`` has other ones than the ``made`` model.

    Each is a guess: the names that constructors have for these numbers are all tried. Numbers that are not the same in
    every block cannot be said by arguments.
    """
    for change in product(_depths(made, module), _widths(made, module)):
        changed = {name: value for part in change for name, value in part.items()}
        if changed and isinstance(arguments.get("config"), dict):
            yield {**arguments, "config": {**_config(arguments), **changed}}
        elif changed:
            yield {**arguments, **changed}


def _config(arguments: Arguments) -> dict[str, object]:
    config = arguments["config"]
    assert isinstance(config, dict), "a configuration is a mapping"
    return {str(name): value for name, value in config.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _lengths(module: nn.Module) -> dict[str, int]:
    named = module.named_modules()
    return {path: len(part) for path, part in named if isinstance(part, nn.Sequential | nn.ModuleList)}


def _depths(made: nn.Module, module: nn.Module) -> Iterator[Arguments]:
    """Numbers of blocks under every name; no change first."""
    yield {}
    before, after = _lengths(made), _lengths(module)
    other = [path for path in before.keys() & after.keys() if before[path] != after[path]]
    for pattern in sorted({re.sub(r"\d+", "*", path) for path in other}):
        stages = [count for path, count in after.items() if re.sub(r"\d+", "*", path) == pattern]
        if len(stages) == 1:
            yield from ({name: stages[0]} for name in _DEPTH)
        else:
            yield from ({name: stages} for name in _DEPTHS)


def _widths(made: nn.Module, module: nn.Module) -> Iterator[Arguments]:
    """The MLP's width as a number and as a ratio; no change first."""
    yield {}
    known, found = dict(made.named_modules()), set[tuple[int, int]]()
    for path, part in module.named_modules():
        other = known.get(path)
        if is_pointwise(part) and is_pointwise(other) and part.weight.shape[0] != other.weight.shape[0]:
            found.add((part.weight.shape[0], part.weight.shape[1]))
    if len({outputs / inputs for outputs, inputs in found}) != 1:
        return
    (outputs, inputs), *rest = sorted(found)
    yield {"mlp_ratio": outputs / inputs}
    if int(inputs * (outputs / inputs)) != outputs:  # constructors cut it off after the point
        yield {"mlp_ratio": (outputs + 0.25) / inputs}
    if not rest:
        yield {"intermediate_size": outputs}
