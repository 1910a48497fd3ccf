"""The store of token features: rows in a file, parts that vouch for them, and the finished features."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast, final

import numpy as np
from jaxtyping import Float32, Int64

from vitscope.convex.features.extractor import TokenExtractor, TokenShape
from vitscope.convex.features.projection import Projection, read_projection
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.convex.features.work import Rows
from vitscope.data import Broken, Images
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.subject import Subject
from vitscope.runs.schema import read_as
from vitscope.runs.seal import digest
from vitscope.runs.spec import Spec
from vitscope.runs.store import RunFolder
from vitscope.runs.whole import atomic_file, write_whole

TOKENS, LABELS, PROJECTION = "tokens.npy", "labels.npy", "projection.safetensors"
FINISHED, UNFINISHED = "features.json", "tokens.part"


@final
@dataclass(frozen=True, eq=False)
class Features:
    """Token features of images, read from the disk as they are used.

    Row ``i`` is image number ``positions[i]`` of the images given; ``broken`` names those that could not be read and
    have no row. ``labels`` is None if the images have none.
    """

    tokens: Float32[np.ndarray, "images tokens dim"]
    """A read-only memory map: ``prefix`` prefix tokens, then the patches of ``grid`` row by row."""
    labels: Int64[np.ndarray, " images"] | None
    """The images' own labels, which need not be the model's classes."""
    grid: tuple[int, int]
    """The grid of the (pooled) patches."""
    prefix: int
    """Number of prefix tokens kept."""
    classes: tuple[str, ...] | None
    """The names of the labels; None if they are not known."""
    extractor: TokenExtractor
    """The extractor that made them; give it to ``extract`` for other images, such as a test set."""
    address: str
    """The name of the store's folder, from the content of model, images and recipe."""
    positions: Int64[np.ndarray, " images"]
    broken: tuple[Broken, ...] = ()

    @property
    def targets(self) -> Int64[np.ndarray, " images"]:
        """The labels, for a use that needs them. Raises ``UserError`` if the images have none."""
        if self.labels is None:
            raise UserError("The features are of images without labels; a classifier needs labelled images.")
        return self.labels


@final
@dataclass(frozen=True)
class _LeftOut:
    """An image without a row, as it is stored."""

    index: int
    name: str
    reason: str


@final
@dataclass(frozen=True)
class StoredPart:
    """Images whose rows are on the disk: from ``start`` up to ``stop``, those without a row, and the rows' digest."""

    start: int
    stop: int
    left_out: list[_LeftOut]
    digest: str


@final
@dataclass(frozen=True)
class _Finished:
    """The part of ``features.json`` that is read."""

    grid: tuple[int, int]
    prefix: int
    classes: list[str] | None
    labelled: bool
    images: int
    left_out: list[_LeftOut]
    digests: dict[str, str]


@final
@dataclass(frozen=True)
class Store:
    """One store's folder: finished once ``features.json`` is there; until then, rows and the parts that vouch for them.

    Row ``i`` of ``tokens.part`` is image ``i``; when all are there it becomes ``tokens.npy``, without the rows of
    images that could not be read. Rows are written by ordinary writes, not through the memory map, under which a
    full disk would kill the process without a message. A part (a sealed file, as a run's parts are) is written once its
    rows are on the disk. All other files are written whole or not at all.
    """

    path: Path
    spec: Spec

    @property
    def finished(self) -> bool:
        """Whether all rows are there."""
        return (self.path / FINISHED).is_file()

    def read(self, subject: Subject, recipe: TokenRecipe) -> Features:
        """The finished features of this subject and recipe."""
        try:
            facts = cast(_Finished, read_as(_Finished, (self.path / FINISHED).read_bytes()))
            for name in (TOKENS, *((LABELS,) if facts.labelled else ()), *((PROJECTION,) if recipe.width else ())):
                if facts.digests[name] != self._digest(name):
                    raise ValueError(f"{name} is not as it was written")
            tokens = np.lib.format.open_memmap(self.path / TOKENS, mode="r")
            labels = np.load(self.path / LABELS) if facts.labelled else None
            projection = self.projection() if recipe.width is not None else None
        except (OSError, ValueError, KeyError) as error:
            why = reason(error)
            raise UserError(f"The features in {self.path} are damaged ({why}); delete that folder.") from error
        return Features(
            tokens=tokens,
            labels=labels,
            grid=facts.grid,
            prefix=facts.prefix,
            classes=None if facts.classes is None else tuple(facts.classes),
            extractor=TokenExtractor(subject, recipe, projection),
            address=self.path.name,
            positions=np.delete(np.arange(facts.images), [one.index for one in facts.left_out]),
            broken=tuple(Broken(one.name, one.reason) for one in facts.left_out),
        )

    def projection(self) -> Projection | None:
        """The projection stored here, or None."""
        path = self.path / PROJECTION
        return read_projection(path) if path.is_file() else None

    def refuse_without_room(self, size: int) -> None:
        """Raise ``UserError`` if the disk has fewer than ``size`` bytes left."""
        free = shutil.disk_usage(self.path).free
        if size > free:
            raise UserError(
                f"The features take {size / 1e9:.2g} GB more and {self.path} has {free / 1e9:.2g} GB left; free space, "
                "or give a smaller pool or width."
            )

    @property
    def folder(self) -> RunFolder:
        """The folder as that of a run, which stores parts."""
        return RunFolder(str(self.path))

    def read_parts(self, shape: TokenShape) -> list[StoredPart]:
        """The parts that an interrupted attempt left, without those whose rows have changed since."""
        if not self._rows.is_file():
            return []
        found = self.folder.parts(self.spec, lambda content: cast(StoredPart, read_as(StoredPart, content)))
        with open(self._rows, "rb") as file:
            return [part for part in found.values() if part.digest == digest(_read_rows(file, part, shape))]

    def put(self, rows: Rows, images: int, shape: TokenShape) -> StoredPart:
        """Write rows, and then the part that vouches for them."""
        content = rows.tokens.contiguous().numpy().tobytes()
        left_out = [_LeftOut(place, **asdict(broken)) for place, broken in rows.left_out]
        part = StoredPart(rows.start, rows.start + rows.done, left_out, digest(content))
        with open(self._rows, "r+b" if self._rows.exists() else "x+b") as file:
            file.write(_header(images, shape))
            file.seek(rows.start * shape.row_bytes, os.SEEK_CUR)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.folder.write_part(self.spec, f"images-{part.start}-{part.stop}", json.dumps(asdict(part)).encode())
        return part

    def finish(self, facts: dict[str, object], parts: Sequence[StoredPart], images: Images, shape: TokenShape) -> None:
        """Write the tokens and their description, ``features.json`` last; ``parts`` must cover all images."""
        left_out = sorted(
            {one.index: one for part in parts for one in part.left_out}.values(), key=lambda one: one.index
        )
        kept = np.delete(np.arange(len(images)), [one.index for one in left_out])
        if left_out:
            self._write_some(kept, shape)
        else:
            os.truncate(self._rows, len(_header(len(images), shape)) + len(images) * shape.row_bytes)
            self._rows.rename(self.path / TOKENS)
        if images.labels is not None:
            with atomic_file(self.path / LABELS) as file:
                np.save(file, images.labels[kept].astype(np.int64))
        known = {
            "grid": shape.grid,
            "prefix": shape.prefix,
            "classes": images.classes,
            "labelled": images.labels is not None,
            "images": len(images),
            "left_out": [asdict(one) for one in left_out],
            "digests": {
                name: self._digest(name) for name in (TOKENS, LABELS, PROJECTION) if (self.path / name).is_file()
            },
        }
        write_whole(self.path / FINISHED, json.dumps({**facts, **known}, indent=2).encode())

    def drop_parts(self) -> None:
        """Remove what a finished store no longer needs."""
        shutil.rmtree(self.path / "partial", ignore_errors=True)
        for name in (UNFINISHED, "progress.json"):  # the second one is of earlier versions
            (self.path / name).unlink(missing_ok=True)

    @property
    def _rows(self) -> Path:
        """The file of rows; if a process was killed just after it renamed them to the tokens, they are renamed back."""
        rows, tokens = self.path / UNFINISHED, self.path / TOKENS
        if not rows.exists() and tokens.exists() and not self.finished:
            tokens.rename(rows)
        return rows

    def _write_some(self, kept: Int64[np.ndarray, " kept"], shape: TokenShape) -> None:
        """Write only those rows as the tokens, a few at a time."""
        rows = np.lib.format.open_memmap(self._rows, mode="r")
        with atomic_file(self.path / TOKENS) as file:
            file.write(_header(len(kept), shape))
            for some in np.array_split(kept, max(1, len(kept) // 256)):
                file.write(rows[some].tobytes())

    def _digest(self, name: str) -> str:
        with open(self.path / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _read_rows(file: BinaryIO, part: StoredPart, shape: TokenShape) -> bytes:
    file.seek(len(_header(0, shape)) + part.start * shape.row_bytes)
    return file.read((part.stop - part.start) * shape.row_bytes)


def _header(images: int, shape: TokenShape) -> bytes:
    """NumPy's header, which has the same length for any number of rows."""
    content = BytesIO()
    known = {"descr": "<f4", "fortran_order": False, "shape": (images, shape.tokens, shape.dim)}
    np.lib.format.write_array_header_1_0(content, known)
    return content.getvalue()
