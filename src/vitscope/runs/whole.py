"""Files that are written whole or not at all, and the removal of what killed processes left."""

import fcntl
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vitscope.measurement.errors import UserError

_SUFFIX = ".vitscope.part"
"""Suffix of unfinished files, which no other program's files have."""


def local_path(path: str | os.PathLike[str], what: str = "This is") -> Path:
    """A path of this machine, with ``~`` expanded. ``UserError`` for a URL."""
    shown = os.fspath(path)
    if "://" in shown:
        raise UserError(f"{what} written on this machine, but {shown} is a URL; give a path.")
    return Path(shown).expanduser()


@contextmanager
def atomic_file(path: Path) -> Generator[IO[bytes]]:
    """A file to write to; ``path`` stays as it was until the block ends without error, then is the whole file at once.

    Its folder is created if needed. A full disk, an error or an interrupt leaves nothing; :func:`sweep` removes what a
    killed process leaves. Raises ``UserError`` if ``path`` is a folder or lies below a file.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file.")
    if files := [parent for parent in path.parents if parent.is_file()]:
        raise UserError(f"{path} cannot be written: {files[0]} is a file, not a folder; give another place.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open_beside(path) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException as error:
            Path(file.name).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno and error.filename in (None, file.name, os.fspath(file.name)):
                error.filename = os.fspath(path)  # not the temporary name
            raise
    with suppress(OSError):  # so that the name survives a power cut, if folders can be synchronised
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file as :func:`atomic_file` does, whole or not at all; returns ``path``."""
    with atomic_file(path) as file:
        file.write(content)
    return path


def sweep(folder: Path) -> None:
    """Remove the unfinished files of dead processes from a folder; those of living ones are locked."""
    for path in folder.glob(f".*{_SUFFIX}"):
        with suppress(OSError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _open_beside(path: Path) -> IO[bytes]:
    """A temporary file beside ``path``, locked as long as it is open."""
    while True:
        name = path.parent / f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}"
        file = open(name, "x+b")  # noqa: SIM115 - the caller closes it; with the permissions that new files have
        with suppress(OSError):  # on a file system without locks nothing is swept either
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(file.name):  # else it was swept before it was locked
            return file
        file.close()
