"""Bounds of numeric settings: declared with the field, checked wherever its class is created."""

import dataclasses
import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast, get_args

from vitscope.measurement.errors import UserError

NEAR = 10**6
"""An upper bound beyond this is named in a message only if it was exceeded."""
LARGEST = 2**31 - 1
"""The largest number that counts something."""
LARGEST_SEED = 2**63 - 1
"""The largest seed that every generator takes."""


@dataclass(frozen=True)
class Bounds:
    """Numbers above ``above`` and from ``least`` to ``most``, both included; never infinity or NaN."""

    least: float | int = -math.inf
    most: float | int = math.inf
    above: float | int = -math.inf

    def hold(self, number: float | int) -> bool:
        """Whether a number is within the bounds."""
        finite = isinstance(number, Integral) or math.isfinite(number)
        return finite and number > self.above and self.least <= number <= self.most

    def requirement(self, number: float | int) -> str:
        """What a number out of bounds should be; names the upper end only if it is near, or exceeded."""
        far = self.most == math.inf or (self.most > NEAR and not number > self.most)
        most = f"{self.most:g}" if isinstance(self.most, float) else f"{self.most}"
        ends = [
            "" if isinstance(number, Integral) or math.isfinite(number) else "finite",
            f"above {self.above:g}" if self.above > -math.inf else "",
            f"at least {self.least:g}" if self.least > -math.inf else "",
            "" if far else f"at most {most}",
        ]
        return " and ".join(filter(None, ends))


COUNT = Bounds(1, LARGEST)
SIZE = Bounds(0, 1e6)
SHARE = Bounds(0, 1)
SEED = Bounds(0, LARGEST_SEED)


def bounded_field(default: Any, bounds: Bounds) -> Any:  # noqa: ANN401 - the default, as type checkers see it
    """A dataclass field whose number must lie within these bounds, unless it is None."""
    return dataclasses.field(default=default, metadata={"bounds": bounds})


def check_bounds(value: Any, whole: Bounds | None = None, real: Bounds | None = None) -> None:  # noqa: ANN401
    """Raise ``UserError`` for the first number of a dataclass that is out of bounds or of the wrong type.

    Fields that declare no bounds must keep to ``whole`` or ``real``, by their type; seeds to :data:`SEED`.
    """
    for field in dataclasses.fields(value):
        kinds, given = get_args(field.type) or (field.type,), getattr(value, field.name)
        if given is None or not {int, float} & set(kinds) or not set(kinds) <= {int, float, type(None)}:
            continue
        plain = (whole if float not in kinds else real) or Bounds()
        bounds = field.metadata.get("bounds", SEED if field.name == "seed" else plain)
        check_number(field.name, given, bounds, whole=float not in kinds)


def check_number(name: str, given: object, bounds: Bounds, whole: bool = True) -> None:
    """Raise ``UserError`` unless ``given`` is a (whole) number within the bounds."""
    if isinstance(given, bool) or not isinstance(given, Integral if whole else Real):
        raise UserError(f"{name} is {given!r:.40}; it must be {'a whole' if whole else 'a'} number.")
    number = cast("int | float", given)
    if not bounds.hold(number):
        raise UserError(f"{name} is {given!s:.40}; it must be {bounds.requirement(number)}.")
