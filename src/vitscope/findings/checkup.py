"""``checkup``: measure everything, and say what it comes to."""

from collections.abc import Sequence
from dataclasses import replace

from vitscope.data import Images
from vitscope.diagnostics import default_diagnostics
from vitscope.engine.diagnostic import AnyDiagnostic
from vitscope.engine.measure import Plan, keep, measure
from vitscope.findings.finding import FINDINGS, AbstractFinding
from vitscope.measurement.claim import Claim
from vitscope.models.subject import Subject
from vitscope.runs.registry import import_all
from vitscope.runs.run import Run


def checkup(
    subject: Subject, images: Images, diagnostics: Sequence[AnyDiagnostic] | None = None, plan: Plan | None = None
) -> Run:
    """One pass with every diagnostic (or those given), and the findings' claims about it, weightiest first.

    The run is kept in ``plan.folder`` where there is one. Cost: that of :func:`vitscope.measure`.
    """
    plan = plan or Plan()
    run = measure(subject, images, default_diagnostics() if diagnostics is None else diagnostics, plan)
    return keep(run.with_claims(claims_of(run)), plan)


def findings() -> tuple[AbstractFinding, ...]:
    """Every registered finding."""
    import_all("vitscope.findings")
    return tuple(finding() for _, finding in FINDINGS.items())


def claims_of(run: Run) -> tuple[Claim, ...]:
    """What every finding whose numbers the run holds makes of it, weightiest first."""
    claims = [claim for finding in findings() if (claim := finding.apply(run)) is not None]
    return tuple(sorted((replace(c, weight=round(c.weight, 3)) for c in claims), key=lambda claim: -claim.weight))
