"""Reading of files with untrusted names: only regular files, and only below the folders allowed."""

import os
import stat
from pathlib import Path

from vitscope.data.decode import BrokenImage

IMAGES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg"}
    | {".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
SOUNDS = frozenset({".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
CLUTTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found", "$recycle.bin", "__pycache__"})
"""Names, in lower case, of what operating systems leave in folders; names that begin with a dot are clutter too."""
MOST_BYTES = 2**32


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is not the user's own."""
    return (name.startswith(".") and name != "..") or name.lower() in CLUTTER


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    """Whether a file's name ends in one of these, whatever the case."""
    return name[name.rfind(".") :].lower() in suffixes


def read_file(path: str | Path, name: str, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Pipes, sockets and devices, which may never end, are not read: they raise `BrokenImage`, as does a missing file.
    """
    try:
        # Without O_NONBLOCK, opening a pipe without a writer would block before it could be inspected.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise BrokenImage(name, f"a {_kind(state.st_mode)}, not a file")
            if state.st_size > most:
                raise BrokenImage(name, f"{state.st_size:,} bytes are more than any file read here may have")
            with open(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)
    except OSError as error:
        raise BrokenImage(name, error.strerror or str(error)) from error
    except ValueError as error:
        if isinstance(error, BrokenImage):
            raise
        raise BrokenImage(name, str(error)) from error  # a path that holds a zero byte


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISSOCK: "socket"}
    return next((kind for holds, kind in kinds.items() if holds(mode)), "device")


def inside(root: str | Path, path: str) -> str | None:
    """Where a path from a table leads, relative to `root` if it is not absolute; None if that is not below `root`."""
    base = os.path.abspath(root)
    full = os.path.normpath(os.path.join(base, path))
    return full if "\0" not in path and full.startswith(base.rstrip(os.sep) + os.sep) else None
