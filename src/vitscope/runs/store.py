"""Runs in a folder or at any fsspec URL: each written whole or not at all, and never over another."""

import io
import os
import posixpath
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import fsspec
import xarray as xr
from fsspec import AbstractFileSystem

from vitscope.measurement.errors import UserError
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

RUN_FILE = "run.nc"
_PARTIAL = "partial"


@dataclass(frozen=True)
class RunFolder:
    """One run's place: ``run.nc`` when finished, ``partial/`` while it is not.

    ``url`` is a path or any fsspec URL (``s3://...``, ``memory://...``); ``file`` is what the run is called there.
    """

    url: str
    file: str = RUN_FILE

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", os.fspath(self.url))

    def read(self) -> Run | None:
        """The finished run, or None."""
        files, path = self._open()
        target = posixpath.join(path, self.file)
        return read_run_bytes(_content(files, target)) if files.exists(target) else None

    def write(self, run: Run) -> str:
        """Keep a finished run and drop its partial results; returns the file's URL. Refuses to replace a run."""
        files, path = self._open()
        target = posixpath.join(path, self.file)
        if files.exists(target):
            raise UserError(f"{self.url} already holds a run, and runs are never overwritten; give another --out.")
        files.makedirs(path, exist_ok=True)
        _write_whole(files, target, bytes(run.tree.to_netcdf(engine="h5netcdf")))
        self._drop_partial(files, path)
        return posixpath.join(self.url, self.file)

    def write_part(self, spec: Spec, name: str, content: bytes) -> None:
        """Keep a piece of an unfinished run of this question."""
        files, path = self._open()
        folder = posixpath.join(path, _PARTIAL, spec.address)
        files.makedirs(folder, exist_ok=True)
        _write_whole(files, posixpath.join(folder, name), content)

    def parts(self, spec: Spec) -> dict[str, bytes]:
        """The pieces kept of an unfinished run of this question."""
        files, path = self._open()
        folder = posixpath.join(path, _PARTIAL, spec.address)
        if not files.exists(folder):
            return {}
        names = [posixpath.basename(str(name)) for name in files.ls(folder, detail=False)]
        return {name: _content(files, posixpath.join(folder, name)) for name in names if not name.startswith(".")}

    def forget_parts(self) -> None:
        """Drop what is kept of unfinished runs."""
        files, path = self._open()
        self._drop_partial(files, path)

    def _drop_partial(self, files: AbstractFileSystem, path: str) -> None:
        if files.exists(posixpath.join(path, _PARTIAL)):
            files.rm(posixpath.join(path, _PARTIAL), recursive=True)

    def _open(self) -> tuple[AbstractFileSystem, str]:
        files, path = fsspec.core.url_to_fs(self.url)
        return cast(AbstractFileSystem, files), cast(str, path)


def place(path: str | os.PathLike[str]) -> RunFolder:
    """Where a run is, by its folder or by its file, whose name ends in ``.nc``."""
    folder, slash, file = os.fspath(path).rpartition("/")
    return RunFolder(folder or slash or ".", file) if file.endswith(".nc") else RunFolder(os.fspath(path))


def read_run(path: str | os.PathLike[str]) -> Run:
    """The run in a folder or file. Needs nothing but xarray: ``xarray.open_datatree(file, engine="h5netcdf")``."""
    run = place(path).read()
    if run is None:
        raise UserError(f"There is no finished run at {os.fspath(path)!r}: no {place(path).file} is there.")
    return run


def read_run_bytes(content: bytes) -> Run:
    """The run that these bytes of a ``run.nc`` hold."""
    with xr.open_datatree(io.BytesIO(content), engine="h5netcdf") as tree:
        return Run(tree.load())


def find_runs(url: str | os.PathLike[str]) -> Iterator[tuple[str, Run]]:
    """Every finished run under a folder, with its folder's path, in the order of the paths."""
    files, path = fsspec.core.url_to_fs(os.fspath(url))
    for found in sorted(files.find(path)):
        if posixpath.basename(found) == RUN_FILE:
            yield posixpath.dirname(found), read_run_bytes(_content(files, found))


def _content(files: AbstractFileSystem, path: str) -> bytes:
    return cast(bytes, files.cat_file(path))


def _write_whole(files: AbstractFileSystem, target: str, content: bytes) -> None:
    """Write under another name, then rename: a reader sees the whole file or none, and a full disk leaves none."""
    if files.protocol not in ("file", ("file", "local")):
        files.pipe_file(target, content)  # object stores make a put visible whole
        return
    waiting = posixpath.join(posixpath.dirname(target), f".{posixpath.basename(target)}.{uuid.uuid4().hex}")
    try:
        with open(waiting, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(waiting, target)
    finally:
        if os.path.exists(waiting):
            os.remove(waiting)
