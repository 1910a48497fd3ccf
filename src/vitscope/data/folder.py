"""Image files in a folder: one folder per class, or all in one without labels."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from vitscope.data.decode import BrokenImage, decode
from vitscope.data.label import Labels
from vitscope.data.source import (
    SPLITS,
    AbstractPictures,
    AbstractSource,
    Opened,
    choose_split,
    refuse_label,
    refuse_split,
)
from vitscope.measurement.errors import UserError

SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"}
    | {".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)


@final
@dataclass(frozen=True)
class FilePictures(AbstractPictures):
    """Image files below one folder."""

    root: str
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, position: int) -> str:
        """The file's path from the folder."""
        return self.files[position]

    def content(self, position: int) -> bytes:
        """The file."""
        try:
            return Path(self.root, self.files[position]).read_bytes()
        except OSError as error:
            raise BrokenImage(self.name(position), error.strerror or str(error)) from error

    def read(self, position: int) -> Image.Image:
        """The picture."""
        return decode(self.content(position), self.name(position))


@final
class FolderSource(AbstractSource):
    """A folder of class folders (classes sorted by name), a flat folder without labels, or a single image file.

    If every folder in it is called train, val, test or the like, these are splits, each again a folder of one of the
    two kinds. Files that are no images, and names that begin with a dot, are passed over.
    """

    def claims(self, source: object) -> bool:
        """A folder, or an image file."""
        if not isinstance(source, str | os.PathLike):
            return False
        path = Path(source)
        return path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES)

    def open(self, source: object, split: str | None, label: str | None) -> Opened:
        """List the files; none is opened."""
        where, root = str(source), Path(str(source)).resolve()
        refuse_label(where, label, "the labels of a folder are the names of its class folders")
        if root.is_file():
            refuse_split(where, split)
            return Opened(root.name, FilePictures(str(root.parent), (root.name,)), None)
        folders = _folders(root)
        splits = [folder.name for folder in folders]
        name = root.name
        if splits and SPLITS.issuperset(each.lower() for each in splits):
            chosen = choose_split(where, splits, split)
            root, where, name = root / chosen, f"{where.rstrip('/')}/{chosen}", f"{name}/{chosen}"
            folders = _folders(root)
        else:
            refuse_split(where, split)
        return _labelled(name, where, root, folders)


def _labelled(name: str, where: str, root: Path, folders: list[Path]) -> Opened:
    loose = [path.name for path in _visible(root) if path.is_file() and path.suffix.lower() in SUFFIXES]
    by_class = {folder.name: _files_below(folder) for folder in folders}
    found = sum(map(len, by_class.values()))
    if not found and not loose:
        raise UserError(f"{where} holds no image files.")
    if found and loose:
        raise UserError(
            f"{where} holds both image files (such as {loose[0]}) and class folders (such as {folders[0].name}): "
            "move the files out, or name the folder that is meant."
        )
    if not found:
        return Opened(name, FilePictures(str(root), tuple(loose)), None)
    empty = [folder for folder, files in by_class.items() if not files]
    if empty:
        raise UserError(f"the class folder {empty[0]} of {where} holds no image files: remove it or fill it.")
    files = tuple(f"{folder}/{file}" for folder, files in by_class.items() for file in files)
    values = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class.values()])
    return Opened(name, FilePictures(str(root), files), Labels(values, tuple(by_class), "class folders", len(by_class)))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _folders(root: Path) -> list[Path]:
    return [path for path in _visible(root) if path.is_dir()]


def _files_below(folder: Path) -> list[str]:
    """Image files at any depth below `folder`, as sorted paths from it."""
    files: list[str] = []
    for parent, children, names in os.walk(folder):
        children[:] = [child for child in children if not child.startswith(".")]
        wanted = (name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)
        files += [Path(parent, name).relative_to(folder).as_posix() for name in wanted]
    return sorted(files)
