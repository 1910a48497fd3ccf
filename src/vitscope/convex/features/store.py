"""The store of token features: rows appended to a file, how far they go beside it, and what they are at the end."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast, final

import numpy as np
from jaxtyping import Float32, Int64

from vitscope.convex.features.extractor import TokenExtractor, TokenShape
from vitscope.convex.features.projection import Projection, read_projection
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.data import Broken, Images
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.subject import Subject
from vitscope.runs.schema import read_as
from vitscope.runs.seal import DamagedWarning
from vitscope.runs.whole import atomic_file, write_whole

TOKENS, LABELS, PROJECTION = "tokens.npy", "labels.npy", "projection.safetensors"
FINISHED, PROGRESS = "features.json", "progress.json"


@final
@dataclass(frozen=True, eq=False)
class Features:
    """Token features of images, read from the disk as they are used.

    Row ``i`` is image number ``positions[i]`` of the images given; ``broken`` names those that could not be read and
    have no row. ``labels`` is None where the images have none.
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
    """What the labels are called; None where that is not known."""
    extractor: TokenExtractor
    """What made them; give it to ``extract`` for other images, such as a test set."""
    address: str
    """The name of the store's folder, from the content of model, images and recipe."""
    positions: Int64[np.ndarray, " images"]
    broken: tuple[Broken, ...] = ()

    @property
    def targets(self) -> Int64[np.ndarray, " images"]:
        """The labels, for a use that cannot be without. Raises ``UserError`` where the images have none."""
        if self.labels is None:
            raise UserError("The features are of images without labels; a classifier needs labelled images.")
        return self.labels


@final
@dataclass(frozen=True)
class Walked:
    """How far a pass has come: the images that are done, and those of them that could not be read, by number."""

    images: int = 0
    left_out: tuple[tuple[int, Broken], ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.images - len(self.left_out)

    @property
    def broken(self) -> tuple[Broken, ...]:
        """The images that could not be read."""
        return tuple(broken for _, broken in self.left_out)

    def back_to(self, images: int) -> "Walked":
        """The pass when this many images were done."""
        return Walked(images, tuple((index, broken) for index, broken in self.left_out if index < images))

    def after(self, images: int, kept: Sequence[int], broken: Sequence[Broken]) -> "Walked":
        """The pass after the next ``images``, of which the numbers ``kept`` have rows."""
        missing = sorted(set(range(self.images, self.images + images)) - set(kept))
        return Walked(self.images + images, (*self.left_out, *zip(missing, broken, strict=True)))


@final
@dataclass(frozen=True)
class _LeftOut:
    """An image without a row, as it is stored."""

    index: int
    name: str
    reason: str


@final
@dataclass(frozen=True)
class _Progress:
    """What ``progress.json`` says."""

    images: int
    left_out: list[_LeftOut]
    bytes: int


@final
@dataclass(frozen=True)
class _Finished:
    """What ``features.json`` says, as far as it is read."""

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
    """One store's folder: finished once ``features.json`` is there, to be resumed from ``progress.json`` before.

    Files other than the rows are written whole or not at all. Rows are written by ordinary writes and not through the
    memory map, under which a full disk would end the process without a word; ``progress.json`` counts them once they
    are on the disk.
    """

    path: Path

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
        left_out = _read(facts.left_out)
        return Features(
            tokens=tokens,
            labels=labels,
            grid=facts.grid,
            prefix=facts.prefix,
            classes=None if facts.classes is None else tuple(facts.classes),
            extractor=TokenExtractor(subject, recipe, projection),
            address=self.path.name,
            positions=np.delete(np.arange(facts.images), [index for index, _ in left_out]),
            broken=tuple(broken for _, broken in left_out),
        )

    def projection(self) -> Projection | None:
        """The projection kept here, or None."""
        path = self.path / PROJECTION
        return read_projection(path) if path.is_file() else None

    def walked(self) -> Walked:
        """How far an interrupted pass came; not at all where there are not the rows that it counted.

        A warning names a file that does not say it.
        """
        path, tokens = self.path / PROGRESS, self.path / TOKENS
        if not path.is_file() or not tokens.is_file():
            return Walked()
        try:
            facts = cast(_Progress, read_as(_Progress, path.read_bytes()))
            if not 0 <= len(facts.left_out) <= facts.images or facts.bytes < 0:
                raise ValueError("it counts what cannot be")
        except ValueError:
            warnings.warn(f"{path} is damaged; all images are read again.", DamagedWarning, stacklevel=2)
            return Walked()
        whole = tokens.stat().st_size >= facts.bytes
        return Walked(facts.images, _read(facts.left_out)) if whole else Walked()

    def refuse_without_room(self, size: int) -> None:
        """Raise ``UserError`` where the disk has not ``size`` bytes left."""
        free = shutil.disk_usage(self.path).free
        if size > free:
            raise UserError(
                f"The features take {size / 1e9:.2g} GB more and {self.path} has {free / 1e9:.2g} GB left; make room, "
                "or keep less with a smaller pool or width."
            )

    @contextmanager
    def rows(self, images: int, shape: TokenShape) -> Generator["Rows"]:
        """The file of rows, to write in; made if it is not there."""
        path = self.path / TOKENS
        with open(path, "r+b" if path.exists() else "x+b") as file:
            yield Rows(self, file, images, shape)

    def finish(self, facts: dict[str, object], walked: Walked, images: Images, shape: TokenShape) -> None:
        """Write what the rows are, ``features.json`` last; for a pass that has come to its end."""
        with self.rows(walked.rows, shape) as rows:
            rows.close()
        if images.labels is not None:
            kept = np.delete(images.labels, [index for index, _ in walked.left_out])
            with atomic_file(self.path / LABELS) as file:
                np.save(file, kept.astype(np.int64))
        known = {
            "grid": shape.grid,
            "prefix": shape.prefix,
            "classes": images.classes,
            "labelled": images.labels is not None,
            "images": len(images),
            "left_out": _stored(walked.left_out),
            "digests": {
                name: self._digest(name) for name in (TOKENS, LABELS, PROJECTION) if (self.path / name).is_file()
            },
        }
        write_whole(self.path / FINISHED, json.dumps({**facts, **known}, indent=2).encode())
        (self.path / PROGRESS).unlink(missing_ok=True)

    def _digest(self, name: str) -> str:
        with open(self.path / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@final
@dataclass(frozen=True)
class Rows:
    """``tokens.npy`` while it is written: a header for ``images`` rows, and rows put at their places."""

    store: Store
    file: BinaryIO
    images: int
    shape: TokenShape

    def put(self, tokens: Float32[np.ndarray, "batch tokens dim"], walked: Walked, after: Walked) -> None:
        """Write the rows that follow those of ``walked``; the pass has then come to ``after``."""
        header = len(self._header)
        self.file.seek(header + walked.rows * self.shape.row_bytes)
        self.file.write(np.ascontiguousarray(tokens).data)
        self._flush()
        known = {
            "images": after.images,
            "left_out": _stored(after.left_out),
            "bytes": header + after.rows * self.shape.row_bytes if after.rows else 0,
        }
        write_whole(self.store.path / PROGRESS, json.dumps(known).encode())

    def close(self) -> None:
        """Write the header and cut off what lies behind the last row."""
        header = self._header
        self.file.seek(0)
        self.file.write(header)
        self.file.truncate(len(header) + self.images * self.shape.row_bytes)
        self._flush()

    def _flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    @property
    def _header(self) -> bytes:
        """NumPy's header, which is of the same length for any number of rows."""
        content = BytesIO()
        shape = (self.images, self.shape.tokens, self.shape.dim)
        np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return content.getvalue()


def _stored(left_out: Sequence[tuple[int, Broken]]) -> list[dict[str, object]]:
    return [{"index": index, **asdict(broken)} for index, broken in left_out]


def _read(stored: Sequence[_LeftOut]) -> tuple[tuple[int, Broken], ...]:
    return tuple((one.index, Broken(one.name, one.reason)) for one in stored)
