"""Ranges of numbers as written in a study's fields: ``0.1:0.9:9`` or ``0.1,0.5``."""

import math

from vitscope.measurement.errors import UserError

MOST = 10_000
"""The most numbers in a range."""


def parse_numbers(text: str) -> tuple[float, ...]:
    """The numbers that ``start:stop:count`` (both ends included) or ``number,number,...`` denotes, in order.

    The ends are exact; numbers between them are rounded to twelve decimals, so that ``0.1:0.9:9`` holds 0.3 and not
    0.30000000000000004. Raises ``UserError`` quoting a text that is no such range, or repeats a number.
    """
    parts = text.split(":")
    if len(parts) == 1:
        numbers = tuple(_number(part, text) for part in text.split(","))
        repeated = next((one for place, one in enumerate(numbers) if one in numbers[:place]), None)
        if repeated is not None:
            raise UserError(f"{text!r} names {repeated:g} twice; write each number once.")
        return numbers
    if len(parts) != 3 or not parts[2].strip().isdecimal() or int(parts[2]) < 1:
        raise UserError(f"{text!r} is not a range of numbers: write start:stop:count, as in 0.1:0.9:9, or 0.1,0.5.")
    if int(parts[2]) > MOST:
        raise UserError(f"{text!r} asks for {parts[2].strip()} numbers; give at most {MOST:,}.")
    start, stop, count = _number(parts[0], text), _number(parts[1], text), int(parts[2])
    if count == 1 and start != stop:
        raise UserError(f"{text!r} asks for one number from {start:g} to {stop:g}; write that number alone.")
    between = (round(start + (stop - start) * index / (count - 1), 12) for index in range(1, count - 1))
    return (start, *between, stop) if count > 1 else (start,)


def parse_layers(text: str) -> tuple[int, ...]:
    """The layers that ``3,4,7`` names, each once, in ascending order. Raises ``UserError`` quoting the text."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{text!r} names no layers: write their numbers (from 1), as in 3,4,7.")
    return tuple(sorted({int(part) for part in parts}))


def _number(part: str, text: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{part.strip()!r} in {text!r} is not a number: write start:stop:count or numbers with commas.")
    return number
