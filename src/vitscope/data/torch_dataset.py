"""Data sets of PyTorch: a map-style `Dataset`, one of torchvision, or the data set of a `DataLoader`."""

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast, final

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from vitscope.data.array import ArrayPictures, picture_values
from vitscope.data.decode import DEFAULT
from vitscope.data.files import IMAGES, has_suffix
from vitscope.data.folder import FilePictures
from vitscope.data.items import ItemPictures, Items, class_names, item_labels, mark_numbering, without_names
from vitscope.data.joined import join_sources
from vitscope.data.label import NO_LABELS, read_labels
from vitscope.data.rows import RowsSource
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, parsing, refuse_label, refuse_split
from vitscope.data.taken import TakenPictures
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

LEFT_OUT = "The transform of {} was left out: the model brings its own preprocessing."


@final
class TorchSource(AbstractSource):
    """A data set whose items are pictures, or pictures and classes; for a loader or a subset, the data set within.

    torchvision's data sets are read without their transforms, from their files or arrays if they have these. Others are
    read item by item, as their transforms leave them: Pillow images, uint8, or floats that lie in [0, 1].
    """

    def claims(self, source: object) -> bool:
        """Data sets and loaders."""
        return isinstance(source, Dataset | DataLoader)

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Inspect a few items; if the data set lists no labels, read them from all items."""
        dataset, indices, notes = _of_loader(source)
        while _gives_items_of(dataset, Subset):
            inner = dataset.indices
            indices = list(inner) if indices is None else [inner[index] for index in indices]
            dataset = dataset.dataset
        opened = self._open_dataset(dataset, choice)
        opened = replace(opened, notes=(*notes, *opened.notes))
        return opened if indices is None else _take(opened, indices)

    def _open_dataset(self, dataset: Any, choice: SourceChoice) -> FoundSource:  # noqa: ANN401 - of any library
        if RowsSource().claims(dataset):
            return RowsSource().open(dataset, choice)
        if _gives_items_of(dataset, ConcatDataset):
            name = type(dataset).__name__
            return join_sources(name, f"the data set {name}", [self.open(part, choice) for part in dataset.datasets])
        return _open(dataset, choice)


def _gives_items_of(dataset: object, kind: type[Dataset[Any]]) -> bool:
    """Whether a data set is of this kind, which passes on the items of others, and does not override how."""
    return isinstance(dataset, kind) and type(dataset).__getitem__ is kind.__getitem__


def _of_loader(source: object) -> tuple[Any, list[int] | None, tuple[str, ...]]:
    """The data set, which of its items a loader draws (None: all), and a note."""
    if not isinstance(source, DataLoader):
        return source, None, ()
    dataset, sampler = cast(Any, source.dataset), cast(Any, source.sampler)
    if isinstance(dataset, IterableDataset):
        return dataset, None, ()
    kind = type(sampler)
    shuffled = kind is RandomSampler and not sampler.replacement and sampler.num_samples == len(dataset)
    part = sorted(map(int, sampler.indices)) if kind is SubsetRandomSampler else None
    usual = type(source.batch_sampler) in (BatchSampler, type(None))
    if not usual or not (kind is SequentialSampler or shuffled or part is not None):
        raise UserError(
            f"the loader draws items with a sampler of its own ({kind.__name__}), so it is unknown which: give the "
            "data set, or torch.utils.data.Subset(dataset, indices)."
        )
    return dataset, part, ("The images are those of the loader's data set, in its order, without its batches.",)


def _take(opened: FoundSource, indices: Sequence[int]) -> FoundSource:
    places = np.array([int(index) for index in indices], dtype=np.int64)
    count = len(opened.pictures)
    beyond = places[(places < -count) | (places >= count)]
    if len(beyond):
        raise UserError(f"the subset takes item {beyond[0]} of {opened.name}, which has {count}: correct its indices.")
    places = places % max(count, 1)
    labels = None if opened.labels is None else opened.labels.take(places)
    return replace(opened, pictures=TakenPictures(opened.pictures, places), labels=labels)


def _open(dataset: object, choice: SourceChoice) -> FoundSource:
    name = printable(type(dataset).__name__)
    where = f"the data set {name}"
    refuse_split(where, choice.split)
    refuse_label(where, choice.label, "labels are the second of each of its items")
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Items):
        raise UserError(f"{where} has no fixed order or length: give a map-style data set.")
    if not len(dataset):
        raise UserError(f"{where} holds no images.")
    with parsing(where, "pictures and their classes"):  # the data set runs code of its own
        return _look_into(name, where, dataset, choice)


def _look_into(name: str, where: str, dataset: Items, choice: SourceChoice) -> FoundSource:
    if not _module_of(type(dataset).__getitem__).startswith("torchvision.datasets"):
        return _of_items(name, where, dataset, choice)
    plain = _without_transform(dataset)
    notes = (LEFT_OUT.format(where),) if plain is not dataset else ()
    opened = _of_files(name, plain, choice) or _of_items(name, where, plain, choice)
    held = _in_memory(plain, opened.pictures, name) if isinstance(opened.pictures, ItemPictures) else None
    return replace(opened, pictures=held or opened.pictures, notes=(*notes, *opened.notes))


def _module_of(function: object) -> str:
    """The module of a function; "" for those of built-in types."""
    return getattr(function, "__module__", None) or ""


def _without_transform(dataset: Items) -> Items:
    """A copy of a data set of torchvision without the transform of pictures, but with that of labels.

    The data set itself is returned if it has none, or one function that transforms both together.
    """
    both = getattr(dataset, "transforms", None)
    if both is not None and not hasattr(both, "target_transform"):
        return dataset
    if getattr(dataset, "transform", None) is None and getattr(both, "transform", None) is None:
        return dataset
    plain = cast(Any, copy.copy(dataset))
    plain.transform = None
    if both is not None:
        plain.transforms = copy.copy(both)
        plain.transforms.transform = None
    return plain


def _of_files(name: str, dataset: Items, choice: SourceChoice) -> FoundSource | None:
    """The files of torchvision's `ImageFolder`, with its class numbers; None for other data sets."""
    samples, loader = getattr(dataset, "samples", None), getattr(dataset, "loader", None)
    ours = getattr(loader, "__module__", "") == "torchvision.datasets.folder"
    if not ours or not isinstance(samples, list) or not all(has_suffix(str(path), IMAGES) for path, _ in samples):
        return None
    change = getattr(dataset, "target_transform", None)
    values = [int(change(target) if change else target) for _, target in samples]
    labels = read_labels(values, name, "the data set's targets", None if change else class_names(dataset))
    labels = labels and (without_names(labels, name) if change else mark_numbering(labels, dataset))
    pictures = FilePictures(os.getcwd(), tuple(str(path) for path, _ in samples))
    return FoundSource(name, pictures, None if choice.label == NO_LABELS else labels)


def _of_items(name: str, where: str, dataset: Items, choice: SourceChoice) -> FoundSource:
    pictures = ItemPictures(dataset, name)
    notes = pictures.check_items(where)
    labels = None if choice.label == NO_LABELS else item_labels(dataset, where)
    return FoundSource(name, pictures, labels, notes)


def _in_memory(dataset: Items, items: ItemPictures, name: str) -> ArrayPictures | None:
    """The array that a data set such as torchvision's CIFAR-10 holds, if its items are the pictures in it."""
    data = getattr(dataset, "data", None)
    if not isinstance(data, np.ndarray | torch.Tensor) or data.dtype not in (np.uint8, torch.uint8):
        return None
    if len(data) != len(items) or data.ndim not in (3, 4):
        return None
    held = ArrayPictures(picture_values(data, name), name)
    places = {0, len(items) // 2, len(items) - 1}
    same = all(held.read(place, DEFAULT).tobytes() == items.read(place, DEFAULT).tobytes() for place in places)
    return held if same else None
