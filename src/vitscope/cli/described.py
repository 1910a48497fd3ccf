"""Descriptions of registered classes; imports the classes, so only the index's writer and plugins use it."""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from vitscope.cli.documentation import fields_of
from vitscope.cli.entry import KINDS, Entry, home_of
from vitscope.findings.command import fill_in
from vitscope.measurement.claim import Verdict
from vitscope.measurement.estimate import FALSE_ALARMS, TOGETHER
from vitscope.measurement.quantity import Quantity
from vitscope.runs.registry import Registry


def describe(kind: str, name: str, cls: type[Any]) -> Entry:
    """One class in words."""
    facts = {"Findings": _finding, "Model families": _family}.get(kind, _references)
    return Entry(
        name=name,
        home=home_of(cls),
        definition=inspect.cleandoc(cls.__doc__ or ""),
        facts=tuple(facts(cls)),
        quantities=tuple(_quantities(cls)) if kind == "Diagnostics" else (),
        fields=fields_of(cls),
    )


def registered_entries() -> dict[str, dict[str, Entry]]:
    """All classes of the project's registries, by kind and name."""
    found: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS.values()}
    for registry in _registries():
        kind = KINDS[registry.kind]
        found[kind] |= {name: describe(kind, name, cls) for name, cls in registry.items()}
    return found


def _registries() -> tuple[Registry[Any], ...]:
    from vitscope.convex.block import BLOCKS
    from vitscope.convex.solver import SOLVERS
    from vitscope.deploy.backend import BACKENDS
    from vitscope.engine.curvature.curvature import CURVATURES
    from vitscope.engine.grid import STUDIES
    from vitscope.engine.intervention import INTERVENTIONS
    from vitscope.engine.reading.diagnostic import DIAGNOSTICS
    from vitscope.findings.finding import FINDINGS
    from vitscope.labs.lab import LABS
    from vitscope.models.adapter import ADAPTERS
    from vitscope.models.catalogue import import_installed_adapters

    import_installed_adapters()
    return (DIAGNOSTICS, CURVATURES, STUDIES, INTERVENTIONS, BLOCKS, SOLVERS, BACKENDS, LABS, FINDINGS, ADAPTERS)


def _references(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """Title and references, which most kinds have but a convex head or a solver may lack."""
    if title := getattr(cls, "title", ""):
        yield "title", title
    for text in getattr(cls, "references", ()):
        yield "reference", text


def _finding(cls: type[Any]) -> Iterator[tuple[str, str]]:
    finding = cls()
    yield "statement", finding.statement
    yield "rule", finding.rule
    yield "evidence", finding.evidence or "the run's spec"
    yield "reference", finding.reference
    share = f"{FALSE_ALARMS:.0%} at most, and {TOGETHER:.0%} for all tests of a run together"
    yield "false alarms", share if finding.is_test else "none: the rule is not a test"
    when = {Verdict.HOLDS: "if it holds", Verdict.FAILS: "if it fails", Verdict.UNDECIDED: "if undecided"}
    for verdict, outcome in finding.outcomes.each.items():
        yield when[verdict], f"{outcome.kind.value}: {outcome.headline} {fill_in(outcome.advice, None)}"


def _family(cls: type[Any]) -> Iterator[tuple[str, str]]:
    yield "tested on", ", ".join(example.name for example in cls.examples())


def _quantities(cls: type[Any]) -> Iterator[tuple[str, str, str, str]]:
    """The quantities that the class's file declares."""
    for one in vars(sys.modules[cls.__module__]).values():
        if isinstance(one, Quantity):
            yield one.name, one.unit, one.axis or "", f"{one.meaning} {one.better}"
