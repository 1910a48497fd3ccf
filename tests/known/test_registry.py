"""Registries: what a name stands for, whose it is, and what may not be registered."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import pytest

from vitscope.engine.curvature.curvature import CURVATURES
from vitscope.engine.grid import STUDIES
from vitscope.engine.intervention import INTERVENTIONS
from vitscope.engine.reading.diagnostic import DIAGNOSTICS
from vitscope.findings.finding import FINDINGS
from vitscope.labs.lab import LABS
from vitscope.measurement.errors import UserError
from vitscope.measurement.nearest import nearest
from vitscope.runs.registry import Registry, resolve_names, value_of


class AbstractThing(ABC):
    """What things have in common."""

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def size(self) -> int:
        """How large it is."""


def thing(
    name: str, module: str = __name__, doc: str | None = "A thing.", base: type = AbstractThing, **members: object
) -> type:
    own = {"name": name, "title": "T", "size": lambda self: self.edge, "edge": 2, "__annotations__": {"edge": int}}
    members = {key: value for key, value in {**own, **members}.items() if value is not None}
    return dataclass(frozen=True)(type("Thing", (base,), {**members, "__module__": module, "__doc__": doc}))


@pytest.fixture
def things() -> Registry[AbstractThing]:
    found: Registry[AbstractThing] = Registry("thing", "vitscope.numerics", AbstractThing)
    found.add("cube")(thing("cube", "vitscope.things"))
    return found


def test_a_name_a_class_and_a_value_stand_for_the_same(things):
    cube = things["cube"]
    assert (
        resolve_names("cube", things)
        == resolve_names(cube, things)
        == resolve_names([cube(), "cube"], things)
        == (cube(),)
    )
    assert resolve_names((one for one in ("cube", cube(2))), things) == (cube(),)
    assert value_of(cube(3), things) == cube(3)


def test_what_stands_for_nothing_is_refused_with_what_there_is(things):
    refused = {
        "cub": r"no thing named 'cub' \(is it cube\?\); there are: cube\.",
        3: "3 is no thing; give a value, a class or one of these names: cube",
        None: "None is no thing",
        AbstractThing: "AbstractThing is no thing",
        Registry: "Registry is no thing",
    }
    for given, said in refused.items():
        with pytest.raises(UserError, match=said):
            resolve_names(given, things)
    with pytest.raises(UserError, match=r"\['cube'\] is no thing"):
        value_of(["cube"], things)
    with pytest.raises(UserError, match="'cube' was given twice with different settings"):
        resolve_names(["cube", things["cube"](3)], things)


def test_a_class_without_default_settings_must_be_given_as_a_value():
    with pytest.raises(UserError, match=r"Lesion has no default settings; give a value: Lesion\(layers=\.\.\.\)"):
        resolve_names("lesion", INTERVENTIONS)


def test_a_name_of_another_kind_is_told():
    with pytest.raises(UserError, match=r"no diagnostic named 'lesion' \(it is an intervention and a study\)"):
        resolve_names("lesion", DIAGNOSTICS, CURVATURES)


def test_ones_own_is_replaced_and_nobody_elses(things):
    first, again = thing("mine"), thing("mine")
    things.add("mine")(first)
    assert things.add("mine")(again) is things["mine"] is again
    with pytest.raises(UserError, match="'mine' is taken by Thing of tests_of_registry"):
        Registry.add(_holding(things, "mine", thing("mine", "tests_of_registry")), "mine")(thing("mine"))
    for module in ("vitscope.things", __name__, "vitscope"):
        with pytest.raises(UserError, match="'cube' is taken by Thing of vitscope itself; give Thing another"):
            things.add("cube")(thing("cube", module))


def _holding(registry: Registry[AbstractThing], name: str, cls: type) -> Registry[AbstractThing]:
    registry.forget([name])
    registry.add(name)(cls)
    return registry


def test_names_of_the_project_are_taken_before_anything_of_it_was_imported():
    fresh: Registry[object] = Registry("diagnostic", "vitscope.diagnostics")
    assert fresh._imported is False
    with pytest.raises(UserError, match="has no docstring"):
        fresh.add("mine")(thing("mine", doc=None))
    assert fresh._imported is True


def test_what_is_not_whole_is_refused_where_it_is_registered(things):
    plain = type("Plain", (AbstractThing,), {"name": "n", "title": "T", "size": lambda self: 1, "__doc__": "A thing."})
    cases = {
        "has no docstring": thing("n", doc=None),
        "lacks size, title, which AbstractThing requires": thing("n", size=None, title=None),
        r"has the attribute name = 'other'; make both names the same": thing("other"),
        "is not a subclass of AbstractThing; make it one": thing("n", base=object),
        "is not a dataclass; put @dataclass": plain,
        "has fields without a default: edge": thing("n", edge=None),
    }
    for said, cls in cases.items():
        with pytest.raises(UserError, match=said):
            things.add("n")(cls)
    with pytest.raises(UserError, match="Plain is not a dataclass"):
        resolve_names(plain(), things)
    with pytest.raises(UserError, match="a name of more than letters, digits"):
        things.add("a/b")(thing("a/b"))
    assert list(things) == ["cube"]


def test_registries_import_what_is_theirs_when_a_name_is_looked_for():
    first = {
        DIAGNOSTICS: "accuracy",
        CURVATURES: "hessian-density",
        STUDIES: "attention-shape",
        INTERVENTIONS: "attention-shape",
        FINDINGS: "accuracy",
        LABS: "attention-concentration",
    }
    assert {registry: next(iter(registry)) for registry in first} == first
    assert all(cls.__module__.startswith("vitscope.") for registry in first for _, cls in registry.items())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deit_tiny_patch16_244", " (is it deit_tiny_patch16_224?)"),
        ("Lesion", " (is it lesion?)"),
        ("token-rnk", " (is it token-rank?)"),
        ("token-rap", " (is it token-rank?)"),
        ("token", " (is it token-rank or token-keep?)"),
        ("zzz", ""),
    ],
)
def test_the_nearest_names_are_suggested(name, said):
    known = ["deit_tiny_patch16_224", "lesion", "token-keep", "token-rank"]
    assert nearest(name, known) == said
