"""Check JSON from files as it is read: the attributes of a run's root, and other kinds."""

import json
from collections.abc import Mapping
from functools import cache
from numbers import Integral
from typing import Any

from vitscope.measurement.claim import Claim
from vitscope.runs.spec import Spec

_KINDS: Mapping[str, Any] = {
    "spec": Spec,
    "provenance": dict[str, object],
    "skipped": dict[str, str],
    "notes": list[str],
    "anatomy": list[dict[str, str | int]],
    "claims": list[Claim],
    "beside": dict[str, str],
}
"""The attributes that hold JSON, and its type."""


def parse(name: str, text: object) -> Any:  # noqa: ANN401 - what _KINDS says
    """The content of an attribute of a run's root; ``ValueError`` if it is not of its type."""
    if not isinstance(text, str):
        raise ValueError(f"{name} is not text")
    return read_as(_KINDS[name], text)


def check(attributes: Mapping[str, object]) -> None:
    """Raise ``ValueError`` if the attributes are not those of a run, naming the first that is wrong."""
    if "spec" not in attributes:
        raise ValueError("it has no spec, which every run has")
    for name in _KINDS.keys() & attributes.keys():
        try:
            parse(name, attributes[name])
        except ValueError as error:
            raise ValueError(f"its {name} is not that of a run") from error
    counts = (attributes.get("images", 0), parse("spec", attributes["spec"]).model.get("parameters", 0))
    if not all(isinstance(count, Integral) for count in counts):
        raise ValueError("its counts of images or parameters are not whole numbers")


def read_as(kind: Any, text: str | bytes) -> Any:  # noqa: ANN401
    """The content of JSON as ``kind``; ``ValueError`` if it is not of that kind."""
    try:
        return _adapter(kind).validate_python(json.loads(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@cache
def _adapter(kind: Any) -> Any:  # noqa: ANN401
    from pydantic import TypeAdapter  # imported only when runs are read, as it is slow

    return TypeAdapter(kind)
