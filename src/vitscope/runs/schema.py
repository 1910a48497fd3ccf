"""What JSON in files must be, checked as it is read: the attributes of a run's root, and others' kinds."""

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
"""Attributes that are JSON, and what is in it."""


def parse(name: str, text: object) -> Any:  # noqa: ANN401 - what _KINDS says
    """An attribute of a run's root; ``ValueError`` for one that is not what it must be."""
    if not isinstance(text, str):
        raise ValueError(f"{name} is no text")
    return read_as(_KINDS[name], text)


def check(attributes: Mapping[str, object]) -> None:
    """Raise ``ValueError`` if the attributes are not those of a run, naming the first that is wrong."""
    if "spec" not in attributes:
        raise ValueError("it has no spec, as runs have")
    for name in _KINDS.keys() & attributes.keys():
        try:
            parse(name, attributes[name])
        except ValueError as error:
            raise ValueError(f"its {name} is not what a run's is") from error
    counts = (attributes.get("images", 0), parse("spec", attributes["spec"]).model.get("parameters", 0))
    if not all(isinstance(count, Integral) for count in counts):
        raise ValueError("it counts images or parameters in something else than numbers")


def read_as(kind: Any, text: str | bytes) -> Any:  # noqa: ANN401
    """What JSON holds, as ``kind``; ``ValueError`` if it is not of that kind."""
    try:
        return _adapter(kind).validate_python(json.loads(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@cache
def _adapter(kind: Any) -> Any:  # noqa: ANN401
    from pydantic import TypeAdapter  # imported as runs are read, for it takes its time

    return TypeAdapter(kind)
