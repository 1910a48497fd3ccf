"""Every numeric setting of all that is registered is a number that can be, or is refused in one sentence."""

import dataclasses
import math

import pytest

from vitscope.data.sampling import subset
from vitscope.engine.curvature.curvature import CURVATURES
from vitscope.engine.grid import STUDIES
from vitscope.engine.intervention import INTERVENTIONS
from vitscope.engine.plan import Plan
from vitscope.engine.reading.diagnostic import DIAGNOSTICS
from vitscope.labs.lab import LABS
from vitscope.measurement.bounds import SHARE, Bounds, bounded_field, check_bounds, check_number
from vitscope.measurement.errors import UserError
from vitscope.measurement.ranges import parse_numbers
from vitscope.models.own.vit import VitConfig
from vitscope.training.recipe import Recipe

NEVER = {float: (math.nan, math.inf, -math.inf, 1e308), int: (10**30, -(10**30))}
"""What no setting can be."""
SIGNED = {("weight-displacement", "alpha"), ("weight-displacement", "beta")}
"""Settings that can be negative."""


def settled():
    for registry in (DIAGNOSTICS, CURVATURES, STUDIES, LABS):
        yield from ((name, cls()) for name, cls in registry.items())
    yield from ((name, cls.examples()[0]) for name, cls in INTERVENTIONS.items())
    yield from (("recipe", Recipe()), ("vit", VitConfig()), ("plan", Plan()))


def numeric(value):
    for field in dataclasses.fields(value):
        if field.type in (int, float, int | None, float | None):
            yield field


@pytest.mark.parametrize(("name", "value"), [pytest.param(*one, id=one[0]) for one in settled()])
def test_a_number_that_cannot_be_is_refused_in_one_sentence(name, value):
    for field in numeric(value):
        if name == "vit" and field.name not in ("depth", "registers", "channels"):
            continue  # what the others must be of each other is said as the model is made
        kind = int if field.type in (int, int | None) else float
        negative = () if (name, field.name) in SIGNED else (kind(-1),)
        for wrong in (*NEVER[kind], *negative):
            with pytest.raises(UserError) as error:
                dataclasses.replace(value, **{field.name: wrong})
            assert str(error.value).count("\n") == 0, (name, field.name, wrong)
            assert str(error.value).endswith("."), (name, field.name, wrong)


def test_what_a_number_must_be_is_said():
    for bounds, number, said in (
        (SHARE, 2.0, "share is 2.0; it must be at least 0 and at most 1."),
        (Bounds(1, 2**31 - 1), 0, "share is 0; it must be at least 1."),
        (Bounds(1, 2**31 - 1), 2**31, "share is 2147483648; it must be at least 1 and at most 2147483647."),
        (Bounds(above=0, most=1), math.nan, "share is nan; it must be finite and above 0 and at most 1."),
    ):
        with pytest.raises(UserError) as error:
            check_number("share", number, bounds, whole=False)
        assert str(error.value) == said


def test_a_number_of_another_kind_is_refused():
    @dataclasses.dataclass
    class Settings:
        count: int | None = bounded_field(1, Bounds(1, 5))
        size: float = 1.0
        name: str = "any"

    check_bounds(Settings(count=None, size=2))
    for given, said in (
        ({"count": "3"}, "count is '3'; it must be a whole number."),
        ({"count": 2.5}, "count is 2.5; it must be a whole number."),
        ({"count": True}, "count is True; it must be a whole number."),
        ({"count": 6}, "count is 6; it must be at least 1 and at most 5."),
        ({"size": "1"}, "size is '1'; it must be a number."),
    ):
        with pytest.raises(UserError) as error:
            check_bounds(Settings(**given))
        assert str(error.value) == said


def test_ranges_and_samples_have_bounds_too():
    with pytest.raises(UserError, match="asks for 99999999999 numbers; give at most 10,000"):
        parse_numbers("1:2:99999999999")
    for seed in (-1, 2**70):
        with pytest.raises(UserError, match="The seed is"):
            subset(None, 5, 2, seed)
