"""Who works in a folder: one at a time, by a lock that dies with its process."""

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
"""The folders that this process holds: the thread, and the open lock file."""


@contextmanager
def held(folder: str | os.PathLike[str], advice: str = "give another --out") -> Generator[None]:
    """Hold a folder of this machine while the block runs; it is made if need be.

    The thread that holds it may hold it again. What killed processes left half-written there is removed. The lock is
    the operating system's own (``flock``) on a file in the folder, which is removed with it; a killed process has it no
    more. Raises ``UserError``, with this advice, if another process or thread holds the folder, or it is none.
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
            os.unlink(os.path.join(place, LOCK))  # while it is locked: whoever waits for it sees that it is gone
        os.close(lock)
        if made:
            with suppress(OSError):
                os.rmdir(place)  # unless something is in it


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
            continue  # the folder was empty, and its last holder has removed it
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
                f"wait until it has ended, or {advice}."
            ) from error
        except OSError:
            return lock  # a file system without locks: the user's care is all there is
        if os.fstat(lock).st_nlink:
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            return lock
        os.close(lock)  # its last holder has just removed it


def _release_all() -> None:
    """In a forked process: it holds nothing, and must not keep a lock when its parent dies."""
    for _, lock in _mine.values():
        os.close(lock)
    _mine.clear()


os.register_at_fork(after_in_child=_release_all)
