"""Image files in a folder: one folder per class, or all in one without labels."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, final

import numpy as np

from vitscope.data.files import IMAGES, SOUNDS, VIDEOS, has_suffix, is_clutter, read_file
from vitscope.data.label import FOLDER, NO_LABELS, Labels
from vitscope.data.source import (
    AbstractEncodedPictures,
    AbstractSource,
    FoundSource,
    SourceChoice,
    choose_split,
    refuse_label,
    refuse_split,
)
from vitscope.data.splits import (
    ANNOTATION_FOLDERS,
    PICTURE_FOLDERS,
    Below,
    hold_the_same,
    names_split,
    speak_of_splits,
)
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable


@final
@dataclass(frozen=True)
class FilePictures(AbstractEncodedPictures):
    """Image files below one folder."""

    root: str
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, position: int) -> str:
        """The file's path from the folder."""
        return printable(self.files[position])

    def content(self, position: int) -> bytes:
        """The bytes of the file."""
        return read_file(os.path.join(self.root, self.files[position]), self.name(position))


@final
class FolderSource(AbstractSource):
    """A folder of class folders (classes sorted by name), a flat folder without labels, or a single image file.

    If every folder in it is called train, val, test or the like, these are splits, each again a folder of one of the
    two kinds. If folders may be splits or classes, `split` or the label "folder" decides. An empty class folder is a
    class; files that are not images, names that begin with a dot and clutter of the system are skipped.
    """

    def claims(self, source: object) -> bool:
        """A folder, or an image file."""
        if not isinstance(source, str | os.PathLike):
            return False
        path = Path(source)
        return path.is_dir() or (path.is_file() and has_suffix(path.name, IMAGES))

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """List the files without opening any."""
        where, root = printable(str(source)), Path(str(source)).resolve()
        if choice.label != FOLDER:
            refuse_label(where, choice.label, "the labels of a folder are the names of its class folders")
        if root.is_file():
            refuse_split(where, choice.split)
            return FoundSource(printable(root.name), FilePictures(str(root.parent), (root.name,)), None)
        return _open(printable(root.name), where, root, choice)


def _open(name: str, where: str, root: Path, choice: SourceChoice) -> FoundSource:
    inner = [path.name for path in _visible(root) if path.is_dir()]
    if choice.label != FOLDER and inner and all(map(names_split, inner)):  # decided without listing all files
        full = [folder for folder in inner if any(True for _ in _images_below(root / folder))]
        if full:
            return _of_split(name, where, root, choose_split(where, full, choice.split), choice)
    folders = {folder: _below(root / folder) for folder in inner}
    loose = tuple(path.name for path in _visible(root) if path.name not in folders and has_suffix(path.name, IMAGES))
    _refuse_annotations(where, folders)
    if choice.label != FOLDER:
        if _may_be_splits(where, folders, choice.split):
            full = [folder for folder, below in folders.items() if below.files]
            return _of_split(name, where, root, choose_split(where, full, choice.split), choice)
        only = _only_folder(folders, loose)
        if only is not None and only.lower() in PICTURE_FOLDERS:
            return _open(name, f"{where.rstrip('/')}/{printable(only)}", root / only, choice)
        if only is not None and len(folders[only].folders) > 1 and not folders[only].direct:
            raise UserError(
                f"{where} holds a single folder, {only}, with folders of its own ({_few(folders[only].folders)}): name "
                f"that one, or say with --label {FOLDER} that {only} is a class."
            )
    refuse_split(where, choice.split)
    return _label(name, where, root, folders, loose, choice.label != NO_LABELS)


def _of_split(name: str, where: str, root: Path, split: str, choice: SourceChoice) -> FoundSource:
    shown = printable(split)
    return _open(f"{name}/{shown}", f"{where.rstrip('/')}/{shown}", root / split, SourceChoice(label=choice.label))


def _may_be_splits(where: str, folders: Mapping[str, Below], split: str | None) -> bool:
    """Whether folders are read as splits; those that may be either are, if `split` is given, and refused otherwise."""
    full = [folder for folder, below in folders.items() if below.files]
    shared = hold_the_same(folders)
    if not shared and not speak_of_splits(full):
        return False
    if split is not None or all(map(names_split, full)):
        return True
    why = f"each hold such folders as {_few(shared)}" if shared else "are partly named like splits"
    raise UserError(
        f"the folders of {where} ({_few(full)}) {why}, so they may be splits: choose one with --split, or say with "
        f"--label {FOLDER} that they are classes.",
        tuple(full),
    )


def _only_folder(folders: Mapping[str, Below], loose: tuple[str, ...]) -> str | None:
    """The folder that all images are in, if it is the only one."""
    full = [folder for folder, below in folders.items() if below.files]
    return full[0] if len(full) == 1 and len(folders) == 1 and not loose else None


def _refuse_annotations(where: str, folders: Mapping[str, Below]) -> None:
    """Refuse pictures with masks or boxes in another folder."""
    annotations = [name for name in folders if name.lower() in ANNOTATION_FOLDERS]
    pictures = [
        name
        for name, below in folders.items()
        if below.files and (name.lower() in PICTURE_FOLDERS or names_split(name) or name.lower() == "leftimg8bit")
    ]
    if annotations and pictures:
        raise UserError(
            f"{where} holds images ({pictures[0]}) beside their annotations ({annotations[0]}), as for segmentation or "
            f"detection, but accuracy needs one class for each image: name {pictures[0]} itself to go without labels."
        )


def _label(
    name: str, where: str, root: Path, folders: Mapping[str, Below], loose: tuple[str, ...], wanted: bool
) -> FoundSource:
    found = sum(len(below.files) for below in folders.values())
    if not found and not loose:
        _refuse_without_images(where, root, folders)
    if found and loose:
        raise UserError(
            f"{where} holds both image files (such as {loose[0]}) and class folders (such as {next(iter(folders))}): "
            "move the files out, or name the folder you mean."
        )
    if not found:
        return FoundSource(name, FilePictures(str(root), loose), None)
    for folder, below in folders.items():
        if below.others and not below.files:
            raise UserError(
                f"the class folder {folder} of {where} holds no image files (but {below.others[0]}): remove it or "
                "fill it."
            )
    files = tuple(f"{folder}/{file}" for folder, below in folders.items() for file in below.files)
    pictures = FilePictures(str(root), files)
    if not wanted:
        return FoundSource(name, pictures, None)
    values = np.repeat(np.arange(len(folders)), [len(below.files) for below in folders.values()])
    classes = tuple(map(printable, folders))
    labels = Labels(values, classes, "class folders", len(classes), numbering="sorted")
    empty = [folder for folder, below in zip(classes, folders.values(), strict=True) if not below.files]
    return FoundSource(name, pictures, labels, (f"{where} has no images of {_few(empty)}.",) if empty else ())


def _refuse_without_images(where: str, root: Path, folders: Mapping[str, Below]) -> NoReturn:
    """Refuse a folder without images, naming videos or sounds that it holds instead."""
    others = [path.name for path in _visible(root)] + [name for below in folders.values() for name in below.others]
    for kind, suffixes in {"videos": VIDEOS, "sounds": SOUNDS}.items():
        for name in others:
            if has_suffix(name, suffixes):
                raise UserError(f"{where} holds {kind} (such as {name}), no images: give it as image files.")
    raise UserError(f"{where} holds no image files.")


def _few(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_clutter(path.name))


def _below(folder: Path) -> Below:
    """The content of a folder, at any depth, as sorted paths from it."""
    found = list(walk_files(folder))
    files = sorted(path for path in found if has_suffix(path, IMAGES))
    others = sorted(path for path in found if not has_suffix(path, IMAGES))
    inner = frozenset(path.partition("/")[0] for path in files if "/" in path)
    return Below(tuple(files), any("/" not in path for path in files), inner, tuple(others))


def walk_files(folder: Path) -> Iterator[str]:
    """The files at any depth below a folder except clutter, as paths from it; `OSError` if a folder cannot be listed.

    Links to folders are followed, but every folder is visited once, and none that this one lies in.
    """
    real = Path(os.path.realpath(folder))
    visited = {str(each) for each in (real, *real.parents)}
    for parent, children, names in os.walk(folder, onerror=_fail, followlinks=True):
        children[:] = [child for child in sorted(children) if not is_clutter(child) and _is_new(parent, child, visited)]
        prefix = "" if parent == str(folder) else Path(parent).relative_to(folder).as_posix() + "/"
        yield from (prefix + name for name in names if not is_clutter(name))


def _is_new(parent: str, child: str, visited: set[str]) -> bool:
    """Whether a folder has not been visited by another way; marks it as visited."""
    real = os.path.realpath(os.path.join(parent, child))
    new = real not in visited
    visited.add(real)
    return new


def _images_below(folder: Path) -> Iterator[str]:
    return (path for path in walk_files(folder) if has_suffix(path, IMAGES))


def _fail(error: OSError) -> NoReturn:
    raise error
