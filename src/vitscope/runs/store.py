"""Runs in a folder or at any fsspec URL: each written whole or not at all, and never over another."""

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
from vitscope.runs.hold import held
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
"""A file holds at most so many times its own size: the largest factor of the compression that HDF5 has (deflate)."""


def _reaching(
    method: "Callable[Concatenate[RunFolder, Given], Kept]",
) -> "Callable[Concatenate[RunFolder, Given], Kept]":
    """A method of a folder that raises ``UserError`` for whatever goes wrong on the way to a URL."""

    @wraps(method)
    def reached(self: "RunFolder", *given: Given.args, **named: Given.kwargs) -> Kept:
        try:
            return method(self, *given, **named)
        except Exception as error:
            if self.is_local or isinstance(error, UserError | MemoryError | FileExistsError):
                raise
            raise _unreachable(self.url, error) from error

    return reached


@dataclass(frozen=True)
class RunFolder:
    """One run's place: ``run.nc`` when finished, ``partial/`` while it is not.

    ``url`` is a path or any fsspec URL (``s3://...``, ``memory://...``); ``file`` is what the run is called there.
    What is written into a folder of this machine is written by one process and thread at a time (:meth:`held`); at a
    URL there are no locks, and of two that finish the same run the second is refused.
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
    def held(self) -> Generator[None]:
        """Keep others out of the folder meanwhile, as :func:`vitscope.runs.hold.held` says.

        A URL only has to let itself be written to: ``UserError`` if it does not.
        """
        path = self._open()[1]
        if not self.is_local:
            self._try()
            yield
            return
        with held(self.url):
            for folder in Path(path, _PARTIAL).glob("*/"):
                sweep(folder)
            yield

    @_reaching
    def exists(self) -> bool:
        """Whether a finished run is there, readable or not."""
        files, path = self._open()
        return bool(files.exists(posixpath.join(path, self.file)))

    @_reaching
    def read(self) -> Run | None:
        """The finished run, or None. ``UserError`` for one that is damaged, or whose other files are another's."""
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
                    f"{posixpath.join(self.url, name)} is not that of {shown}, which lies beside it: one of them is "
                    "damaged or of another run; bring back the one that is missing, or move both away."
                )
        return run

    @_reaching
    def write(self, run: Run, steps: Iterable[Spec] = (), beside: Mapping[str, bytes] | None = None) -> str:
        """Keep a finished run, and drop its own partial results; returns the file's URL. Refuses to replace a run.

        ``steps`` are the questions whose pieces it was made of, besides its own. The files ``beside`` it are written
        first, and their digests into the run, so that all that is read together belongs together.
        """
        files, path = self._open()
        target = posixpath.join(path, self.file)
        refusal = f"{self.url} already holds a run, and runs are never overwritten; give another --out."
        with self.held():
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

    @_reaching
    def write_beside(self, name: str, content: bytes) -> str:
        """Keep another file beside the run, instead of one that was there; returns its URL."""
        files, path = self._open()
        _write(files, posixpath.join(path, name), content)
        return posixpath.join(self.url, name)

    @_reaching
    def write_part(self, spec: Spec, name: str, content: bytes) -> None:
        """Keep a piece of an unfinished run of this question, sealed."""
        files, path = self._open()
        place = posixpath.join(_PARTIAL, spec.address, name)
        _write(files, posixpath.join(path, place), seal_part(content, place))

    @_reaching
    def parts(
        self, spec: Spec, read: Callable[[bytes], Kept] = bytes, wanted: Container[str] | None = None
    ) -> dict[str, Kept]:
        """The pieces kept of an unfinished run of this question by name, ``read``; all of them, or those ``wanted``.

        One that is damaged, or another one's, is not among them, and a warning names it: it is to be made again.
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

    @_reaching
    def _try(self) -> None:
        """Write something, so that what cannot be kept there is not measured first."""
        files, path = self._open()
        target = posixpath.join(path, _TRIED)
        files.makedirs(path, exist_ok=True)
        files.pipe_file(target, b"")
        files.rm_file(target)

    def _open(self) -> tuple[AbstractFileSystem, str]:
        if "\0" in self.url:
            raise UserError(f"{self.url} cannot be a place for a run: it holds a NUL character; give another --out.")
        if self.is_local:
            return cast(AbstractFileSystem, fsspec.filesystem("file")), os.path.abspath(self.url)
        return file_system(self.url)


def place(path: str | os.PathLike[str]) -> RunFolder:
    """Where a run is, by its folder or by its file, whose name ends in ``.nc``. ``UserError`` for what is no path."""
    if not isinstance(path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance] - people hand in anything
        raise UserError(f"{path!r:.40} is no place of a run; give its folder, its file or a URL.")
    folder, slash, file = os.fspath(path).rpartition("/")
    return RunFolder(folder or slash or ".", file) if file.endswith(".nc") else RunFolder(os.fspath(path))


def read_run(path: str | os.PathLike[str]) -> Run:
    """The run in a folder or file. Needs nothing but xarray: ``xarray.open_datatree(file, engine="h5netcdf")``."""
    run = place(path).read()
    if run is None:
        raise UserError(f"There is no finished run at {os.fspath(path)!r}: no {place(path).file} is there.")
    return run


def read_run_bytes(content: bytes, where: str = RUN_FILE) -> Run:
    """The run that these bytes of a ``run.nc`` hold. ``UserError`` naming ``where`` they are if they hold none."""
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
            f"{where} cannot be read as a run ({why}): it is damaged or of another program; "
            "bring back a copy, or move it away and measure again."
        ) from error


def find_runs(url: str | os.PathLike[str]) -> Iterator[tuple[str, Run]]:
    """Every finished run under a folder, with its folder's path, in the order of the paths.

    One that cannot be read is left out, and a warning says why.
    """
    for path, run in list_runs(url):
        if isinstance(run, Run):
            yield path, run
        else:
            warnings.warn(str(run), DamagedWarning, stacklevel=2)


def list_runs(url: str | os.PathLike[str]) -> Iterator[tuple[str, Run | UserError]]:
    """The same with what is wrong with those that cannot be read."""
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
    """Write whole or not at all; ``new`` refuses to write over what is there, as far as the file system knows."""
    if files.protocol in ("file", ("file", "local")):
        write_whole(Path(target), content)
        return
    files.makedirs(posixpath.dirname(target), exist_ok=True)
    files.pipe_file(target, content, mode="create" if new else "overwrite")  # object stores make a put visible whole


def _netcdf(run: Run) -> bytes:
    """The run as netCDF; bytes of names that are no UTF-8, which it cannot hold, as escapes."""
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
