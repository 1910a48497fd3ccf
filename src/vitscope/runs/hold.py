"""Locks on folders: one process and thread at a time, with a lock that ends with its process."""

import fcntl
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitscope.measurement.errors import UserError
from vitscope.runs.whole import sweep

LOCK = ".vitscope-lock"

_mine: dict[str, tuple[int, int]] = {}
"""The folders that this process holds, with the thread and the open lock file."""


@contextmanager
def hold_folder(folder: str | os.PathLike[str], advice: str = "give another --out") -> Generator[None]:
    """Hold a folder of this machine while the block runs; it is created if needed.

    The thread that holds it may hold it again. Files that killed processes left half-written there are removed. The
    lock is the operating system's own (``flock``) on a file in the folder, which is removed on release; a killed
    process loses it. Raises ``UserError``, with this advice, if another process or thread holds the folder, or if it
    is not a folder.
    """
    place = os.path.realpath(folder)
    thread = threading.get_ident()
    if _mine.get(place, (None,))[0] == thread:
        yield
        return
    made = not os.path.exists(place)
    lock = _lock(place, folder, advice)
    _mine[place] = (thread, lock)
    try:
        sweep(Path(place))
        yield
    finally:
        del _mine[place]
        with suppress(OSError):
            os.unlink(os.path.join(place, LOCK))  # while it is locked: a process that waits for it sees that it is gone
        os.close(lock)
        if made:
            with suppress(OSError):
                os.rmdir(place)  # unless it holds something


def _lock(place: str, folder: str | os.PathLike[str], advice: str) -> int:
    """The lock file, open and locked."""
    while True:
        try:
            os.makedirs(place, exist_ok=True)
        except FileExistsError as error:
            raise UserError(f"{os.fspath(folder)} is a file, not a folder; {advice}.") from error
        except OSError as error:
            error.filename = os.fspath(folder)
            raise
        try:
            lock = os.open(os.path.join(place, LOCK), os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # the folder was empty, and its last holder removed it
        except OSError as error:
            error.filename = os.fspath(folder)
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace") or "unknown"
            os.close(lock)
            raise UserError(
                f"{os.fspath(folder)} is in use by another vitscope (process {holder}); "
                f"wait until it ends, or {advice}."
            ) from error
        except OSError:
            return lock  # a file system without locks cannot be protected
        if os.fstat(lock).st_nlink:
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return lock
        os.close(lock)  # its last holder just removed it


def _release_all() -> None:
    """Release all locks in a forked process, which must not keep a lock when its parent dies."""
    for _, lock in _mine.values():
        os.close(lock)
    _mine.clear()


os.register_at_fork(after_in_child=_release_all)
