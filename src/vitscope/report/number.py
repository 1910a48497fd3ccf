"""Numbers for people: as many digits as the standard error justifies."""

import math

_DIGITS = 4
_FINEST = 6
"""Most decimal places; smaller numbers are written with an exponent."""
_SMALL = 1e-3


def plain(value: float) -> str:
    """A number to four significant digits, with thousands separators; ``n/a`` if it is not finite."""
    if not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 8:
        return _minus(f"{value:.{_DIGITS - 1}e}")
    return _minus(f"{value:,.{max(0, _DIGITS - 1 - exponent)}f}")


def with_error(mean: float, error: float) -> str:
    """``0.680 ± 0.047``: the error to two significant digits, the mean to the same place.

    Without an error (one sample, or an exact number) it is the mean alone, to four significant digits.
    """
    if not (math.isfinite(mean) and math.isfinite(error)) or error <= 1e-6 * abs(mean):
        return plain(mean)
    if 1 - math.floor(math.log10(error)) > _FINEST and abs(mean) < _SMALL:
        return _minus(f"{mean:.2e} ± {error:.1e}")
    places = error_places(error)
    if places < 0:
        mean, error = round(mean, places), round(error, places)
    return _minus(f"{mean:,.{max(0, places)}f} ± {error:,.{max(0, places)}f}")


def error_places(error: float) -> int:
    """The decimal place of the second significant digit of a standard error; negative left of the point."""
    return min(1 - math.floor(math.log10(error)), _FINEST)


def format_signed(value: float, places: int) -> str:
    """A difference to ``places`` decimal places, with its sign unless it is 0."""
    text = f"{round(value, places):+,.{max(places, 0)}f}"
    return _minus(text) if float(text.replace(",", "")) else text[1:]


def with_unit(text: str, unit: str) -> str:
    """The number followed by its unit; a pure number has none."""
    return text if unit in ("", "1") else f"{text} {unit}"


def amount(value: object) -> str:
    """A setting or a count: whole numbers with thousands separators, anything else unchanged."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
