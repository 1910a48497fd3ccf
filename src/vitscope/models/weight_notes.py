"""Notes on what was taken from a file of weights: sizes, the set of weights, precision."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from vitscope.models.adapter import Size
from vitscope.models.weight_sets import WeightSet


def size_notes(path: Path, asked: Size, size: Size) -> tuple[str, ...]:
    """A note on the sizes that the file's weights gave, beside those asked for."""
    read = {
        "number of classes": (asked.classes, size.classes),
        "number of channels": (asked.channels, size.channels),
        "size of the input": (asked.image, size.image),
    }
    if size.classes == 0 and asked.classes is None:
        return (f"{path.name} has no weights of a classifier: the model is built without one.",)
    said = [f"{what} ({_words(now)})" for what, (before, now) in read.items() if now != before]
    return (f"The {' and the '.join(said)} {'comes' if len(said) == 1 else 'come'} from {path.name}.",) if said else ()


def _words(value: int | tuple[int, int] | None) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def set_notes(path: Path, found: WeightSet, others: Sequence[WeightSet], beside: Sequence[str]) -> list[str]:
    """A note on which of the file's weights were taken; ``beside`` are names of those left out."""
    said: list[str] = []
    if others:
        taken, left, flag = ("averaged", "raw", "--raw") if found.averaged else ("raw", "averaged", "--ema")
        said.append(f"the {taken} ones ({found.label}), not the {left} ones ({others[0].label}), which {flag} takes")
    elif found.averaged:
        said.append(f"the averaged ones ({found.label})")
    elif found.group.path or found.prefix:
        said.append(f"those under {found.label}")
    if found.lent:
        lent = sorted(name for name in found.lent if not name.endswith("num_batches_tracked"))
        said.append(f"their buffers are the raw ones' ({some_names(lent)})")
    if found.dropped_parts:
        said.append(f"their names without {', '.join(found.dropped_parts)}")
    if beside:
        said.append(f"left out: {some_names(beside)}")
    return [f"Weights of {path.name}: {'; '.join(said)}."] if said else []


def average_notes(path: Path, averages: Sequence[str]) -> list[str]:
    """A note on averages that were not taken, if there are any."""
    if not averages:
        return []
    said = f"{path.name} also holds averages ({some_names(averages)}), which do not fit the model's weights by name"
    return [f"{said}: the raw ones were taken."]


def number_notes(path: Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Notes on weights whose precision in the model differs from the file's."""
    kinds = {
        (str(one.dtype).removeprefix("torch."), str(own[name].dtype).removeprefix("torch."))
        for name, one in state.items()
        if name in own and one.dtype != own[name].dtype and one.is_floating_point() and own[name].is_floating_point()
    }
    return [f"{path.name} holds {there} weights; the model computes in {here}." for there, here in sorted(kinds)]


def some_names(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
