"""The known names that a mistyped one may mean."""

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_ALIKE = 0.6
"""Similarity from which a name counts as near."""
_AS_NEAR = 0.1
"""How much less similar than the nearest another name may be, to be named too."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """`` (is it a, b or c?)``, to append to a mistyped name: the known names near it; empty if none is near."""
    by_look = {one.casefold(): one for one in known}
    near = get_close_matches(name.casefold(), by_look, n=most, cutoff=_ALIKE)
    shares = [SequenceMatcher(None, one, name.casefold()).ratio() for one in near]
    meant = [by_look[one] for one, share in zip(near, shares, strict=True) if share >= shares[0] - _AS_NEAR]
    words = " or ".join(filter(None, (", ".join(meant[:-1]), *meant[-1:])))
    return f" (is it {words}?)" if words else ""
