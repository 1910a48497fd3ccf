"""Runs in a folder or at any fsspec URL: each is written whole or not at all, and none is overwritten."""

import io
import os
import posixpath
import warnings
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import fsspec
import numpy as np
import xarray as xr
from fsspec import AbstractFileSystem

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable, reason
from vitscope.runs.hold import hold_folder
from vitscope.runs.run import Run
from vitscope.runs.schema import check
from vitscope.runs.seal import Damaged, DamagedWarning, check_seal, digest, open_part, seal, seal_part
from vitscope.runs.spec import Spec
from vitscope.runs.whole import sweep, write_whole

Kept = TypeVar("Kept")
Given = ParamSpec("Given")

RUN_FILE = "run.nc"
_PARTIAL = "partial"
_TRIED = ".vitscope-tried"
_MOST_INFLATED = 1032
"""A file holds at most this many times its own size: the largest factor of HDF5's compression (deflate)."""


def _explain_unreachable(
    method: "Callable[Concatenate[RunFolder, Given], Kept]",
) -> "Callable[Concatenate[RunFolder, Given], Kept]":
    """Make a method of a folder raise ``UserError`` for whatever goes wrong with a URL."""

    @wraps(method)
    def call(self: "RunFolder", *given: Given.args, **named: Given.kwargs) -> Kept:
        try:
            return method(self, *given, **named)
        except Exception as error:
            if self.is_local or isinstance(error, UserError | MemoryError | FileExistsError):
                raise
            raise _unreachable(self.url, error) from error

    return call


@dataclass(frozen=True)
class RunFolder:
    """The place of one run: ``run.nc`` when it is finished, ``partial/`` until then.

    ``url`` is a path or any fsspec URL (``s3://...``, ``memory://...``); ``file`` is the run's file name there. One
    process and thread at a time writes into a folder of this machine (:meth:`held`). URLs have no locks: if two
    processes finish the same run, the second is refused.
    """

    url: str
    file: str = RUN_FILE

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", os.fspath(self.url))
        if self.is_local:
            object.__setattr__(self, "url", os.path.expanduser(self.url))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.url

    @contextmanager
    def hold(self) -> Generator[None]:
        """Keep others out of the folder while the block runs, as :func:`vitscope.runs.hold.held` does.

        A URL is only checked to be writable: ``UserError`` if it is not.
        """
        path = self._open()[1]
        if not self.is_local:
            self._try()
            yield
            return
        with hold_folder(self.url):
            for folder in Path(path, _PARTIAL).glob("*/"):
                sweep(folder)
            yield

    @_explain_unreachable
    def exists(self) -> bool:
        """Whether a finished run is there, readable or not."""
        files, path = self._open()
        return bool(files.exists(posixpath.join(path, self.file)))

    @_explain_unreachable
    def read(self) -> Run | None:
        """The finished run, or None. ``UserError`` if it is damaged, or the files beside it belong to another run."""
        files, path = self._open()
        target = posixpath.join(path, self.file)
        if not files.exists(target):
            return None
        shown = posixpath.join(self.url, self.file)
        run = read_run_bytes(_content(files, target), shown)
        for name, wanted in run.beside.items():
            other = posixpath.join(path, name)
            if files.exists(other) and digest(_content(files, other)) != wanted:
                raise UserError(
                    f"{posixpath.join(self.url, name)} does not belong to {shown} beside it: one of them is damaged "
                    "or from another run; restore the right one, or move both away."
                )
        return run

    @_explain_unreachable
    def write(self, run: Run, steps: Iterable[Spec] = (), beside: Mapping[str, bytes] | None = None) -> str:
        """Save a finished run, delete its partial results, and return the file's URL. Never replaces a run.

        ``steps`` are further questions whose parts it was made of. The files ``beside`` it are written first, and their
        digests into the run, so that :meth:`read` notices files that do not belong together.
        """
        files, path = self._open()
        target = posixpath.join(path, self.file)
        refusal = f"{self.url} already holds a run, and runs are never overwritten; give another --out."
        with self.hold():
            if files.exists(target):
                raise UserError(refusal)
            for name, content in (beside or {}).items():
                _write(files, posixpath.join(path, name), content)
            stored = run.with_beside({name: digest(content) for name, content in (beside or {}).items()})
            try:
                _write(files, target, seal(_netcdf(stored)), new=True)
            except FileExistsError as error:
                raise UserError(refusal) from error
            for spec in (run.spec, *steps):
                _drop(files, posixpath.join(path, _PARTIAL, spec.address))
        return posixpath.join(self.url, self.file)

    @_explain_unreachable
    def write_beside(self, name: str, content: bytes) -> str:
        """Save another file beside the run, replacing one of the same name; return its URL."""
        files, path = self._open()
        _write(files, posixpath.join(path, name), content)
        return posixpath.join(self.url, name)

    @_explain_unreachable
    def write_part(self, spec: Spec, name: str, content: bytes) -> None:
        """Save a part of an unfinished run of this question, sealed."""
        files, path = self._open()
        place = posixpath.join(_PARTIAL, spec.address, name)
        _write(files, posixpath.join(path, place), seal_part(content, place))

    @_explain_unreachable
    def parts(
        self, spec: Spec, read: Callable[[bytes], Kept] = bytes, wanted: Container[str] | None = None
    ) -> dict[str, Kept]:
        """The parts of an unfinished run of this question by name, as ``read`` returns them; all, or those ``wanted``.

        Parts that are damaged or belong to another place are left out, with a warning: they must be done again.
        """
        files, path = self._open()
        folder = posixpath.join(path, _PARTIAL, spec.address)
        if not files.exists(folder):
            return {}
        found, damaged = dict[str, Kept](), list[str]()
        for name in sorted(posixpath.basename(str(name)) for name in files.ls(folder, detail=False)):
            if name.startswith(".") or (wanted is not None and name not in wanted):
                continue
            try:
                place = posixpath.join(_PARTIAL, spec.address, name)
                found[name] = read(open_part(_content(files, posixpath.join(folder, name)), place))
            except Exception:  # whatever is wrong with it
                damaged.append(name)
        if damaged:
            several = f"{damaged[0]} and {len(damaged) - 1} more are" if damaged[1:] else f"{damaged[0]} is"
            what = f"{several} damaged, and will be done again."
            warnings.warn(f"{posixpath.join(self.url, _PARTIAL, spec.address)}: {what}", DamagedWarning, stacklevel=2)
        return found

    @_explain_unreachable
    def _try(self) -> None:
        """Write a test file, so that nothing is measured that cannot be saved there."""
        files, path = self._open()
        target = posixpath.join(path, _TRIED)
        files.makedirs(path, exist_ok=True)
        files.pipe_file(target, b"")
        files.rm_file(target)

    def _open(self) -> tuple[AbstractFileSystem, str]:
        if "\0" in self.url:
            raise UserError(f"{self.url} cannot hold a run: its name has a NUL character; give another --out.")
        if self.is_local:
            return cast(AbstractFileSystem, fsspec.filesystem("file")), os.path.abspath(self.url)
        return file_system(self.url)


def place(path: str | os.PathLike[str]) -> RunFolder:
    """Where a run is, by its folder or by its file, whose name ends in ``.nc``. ``UserError`` if it is not a path."""
    if not isinstance(path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance] - people hand in anything
        raise UserError(f"{path!r:.40} is not a path; give the folder, the file or the URL of a run.")
    folder, slash, file = os.fspath(path).rpartition("/")
    return RunFolder(folder or slash or ".", file) if file.endswith(".nc") else RunFolder(os.fspath(path))


def read_run(path: str | os.PathLike[str]) -> Run:
    """The run in a folder or file. xarray alone reads it too: ``xarray.open_datatree(file, engine="h5netcdf")``."""
    run = place(path).read()
    if run is None:
        raise UserError(f"There is no finished run at {os.fspath(path)!r}: it has no {place(path).file}.")
    return run


def read_run_bytes(content: bytes, where: str = RUN_FILE) -> Run:
    """The run in these bytes of a ``run.nc``. ``UserError``, naming ``where``, if they hold none."""
    try:
        check_seal(content)
        with xr.open_datatree(io.BytesIO(content), engine="h5netcdf", phony_dims="access") as tree:
            if tree.nbytes > _MOST_INFLATED * len(content):
                raise Damaged("it declares more numbers than it can hold")
            check({str(name): value for name, value in tree.attrs.items()})
            return Run(tree.load())
    except (MemoryError, RecursionError, UserError):
        raise
    except Exception as error:  # HDF5 has many ways to fail on bytes that are not its own
        why = reason(error)
        raise UserError(
            f"{where} cannot be read as a run ({why}): it is damaged or from another program; "
            "restore a copy, or move it away and measure again."
        ) from error


def find_runs(url: str | os.PathLike[str]) -> Iterator[tuple[str, Run]]:
    """Every finished run under a folder, with its folder's path, sorted by path.

    Runs that cannot be read are left out, and a warning says why.
    """
    for path, run in list_runs(url):
        if isinstance(run, Run):
            yield path, run
        else:
            warnings.warn(str(run), DamagedWarning, stacklevel=2)


def list_runs(url: str | os.PathLike[str]) -> Iterator[tuple[str, Run | UserError]]:
    """Every finished run under a folder, with its folder's path, or the error if it cannot be read."""
    files, path = file_system(os.fspath(url))
    try:
        everything = sorted(map(str, files.find(path)))
    except Exception as error:
        if isinstance(error, OSError) and "://" not in os.fspath(url):
            raise
        raise _unreachable(os.fspath(url), error) from error
    for found in everything:
        if posixpath.basename(found) == RUN_FILE:
            yield posixpath.dirname(found), _read_or_error(files, found)


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or fsspec URL, and the path in it. ``UserError`` if it cannot be opened."""
    try:
        files, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # every file system has its own ways to fail
        why = reason(error)
        raise UserError(f"{url} cannot be opened ({why}); give a folder, or install what opens such URLs.") from error
    return cast(AbstractFileSystem, files), cast(str, path)


def _unreachable(url: str, error: Exception) -> UserError:
    return UserError(f"{url} cannot be used ({reason(error)}); give a folder, or a URL that can be read and written.")


def _read_or_error(files: AbstractFileSystem, path: str) -> Run | UserError:
    try:
        return read_run_bytes(_content(files, path), path)
    except UserError as error:
        return error
    except OSError as error:
        return UserError(f"{path} cannot be read ({reason(error)}).")


def _content(files: AbstractFileSystem, path: str) -> bytes:
    return cast(bytes, files.cat_file(path))


def _write(files: AbstractFileSystem, target: str, content: bytes, new: bool = False) -> None:
    """Write whole or not at all; ``new`` refuses to overwrite, if the file system can tell."""
    if files.protocol in ("file", ("file", "local")):
        write_whole(Path(target), content)
        return
    files.makedirs(posixpath.dirname(target), exist_ok=True)
    files.pipe_file(target, content, mode="create" if new else "overwrite")  # object stores show a put only as a whole


def _netcdf(run: Run) -> bytes:
    """The run as netCDF; names that are not UTF-8, which it cannot hold, are escaped."""
    try:
        return bytes(run.tree.to_netcdf(engine="h5netcdf"))
    except UnicodeEncodeError:
        return bytes(run.tree.map_over_datasets(_in_unicode).to_netcdf(engine="h5netcdf"))


def _in_unicode(dataset: xr.Dataset) -> xr.Dataset:
    texts = {
        name: array.copy(data=np.array([printable(str(one)) for one in array.values.flat], object).reshape(array.shape))
        for name, array in dataset.variables.items()
        if array.dtype.kind in "OU"
    }
    coords = {name: text for name, text in texts.items() if name in dataset.coords}
    return dataset.assign_coords(coords).assign({name: text for name, text in texts.items() if name not in coords})


def _drop(files: AbstractFileSystem, folder: str) -> None:
    """Remove the parts of a question, and the folder of all parts if no others are in it."""
    if not files.exists(folder):
        return
    files.rm(folder, recursive=True)
    with suppress(OSError):
        files.rmdir(posixpath.dirname(folder))
