"""Seals: a digest of a file's content, written into it, so that damaged or swapped files are noticed."""

import hashlib
import re

_SIZE = hashlib.sha256().digest_size
_END = re.compile(rb"\nvitscope sha256 ([0-9a-f]{64})\n\Z")


class Damaged(Exception):
    """A file that is not as it was written; its text says what is wrong."""


class DamagedWarning(UserWarning):
    """A file is damaged; the text names it and says what is done instead."""


def seal_part(content: bytes, place: str) -> bytes:
    """A part with the seal of its content and its ``place``: the question it belongs to, and its name."""
    return _seal(content, place) + content


def open_part(stored: bytes, place: str) -> bytes:
    """The content of a part. Raises :class:`Damaged` if it is damaged or belongs to another place."""
    seal, content = stored[:_SIZE], stored[_SIZE:]
    if seal != _seal(content, place):
        raise Damaged("it is not what was stored there")
    return content


def seal(content: bytes) -> bytes:
    """A file with a seal after its content, where formats that know their own length do not look."""
    return content + f"\nvitscope sha256 {hashlib.sha256(content).hexdigest()}\n".encode()


def check_seal(stored: bytes) -> None:
    """Raise :class:`Damaged` if the file has a seal that does not match its content."""
    found = _END.search(stored, max(0, len(stored) - 100))
    if found and hashlib.sha256(stored[: found.start()]).hexdigest().encode() != found[1]:
        raise Damaged("its content has changed since it was written")


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _seal(content: bytes, place: str) -> bytes:
    return hashlib.sha256(place.encode() + b"\0" + content).digest()
