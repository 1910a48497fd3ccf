"""``checkup``: measure everything, and say what it comes to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import xarray as xr

from vitscope.data import Images
from vitscope.diagnostics import default_diagnostics
from vitscope.engine.diagnostic import AnyDiagnostic
from vitscope.engine.grid import AbstractStudy
from vitscope.engine.measure import Plan, keep, kept, measure, spec_of
from vitscope.engine.shard import Pass
from vitscope.engine.study import Settled, settled
from vitscope.findings.finding import FINDINGS, AbstractFinding
from vitscope.measurement.claim import Claim
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject
from vitscope.runs.registry import import_all
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec


def checkup(
    subject: Subject,
    images: Images,
    diagnostics: Sequence[AnyDiagnostic] | None = None,
    plan: Plan | None = None,
    studies: Sequence[AbstractStudy] = (),
) -> Run:
    """One pass with every diagnostic (or those given), ``studies``, and the findings' claims, weightiest first.

    The run is kept in ``plan.folder`` where there is one. A study that does not suit the subject is named in
    ``run.skipped`` with the reason. Cost: that of :func:`vitscope.measure` and of :func:`vitscope.study`.
    """
    chosen = default_diagnostics() if diagnostics is None else diagnostics
    return Checkup.of(subject, images, chosen, studies).answer(plan or Plan())


@dataclass(frozen=True)
class Checkup:
    """A checkup settled for a subject and images; ``refused`` are the studies that do not suit it, with the reason."""

    subject: Subject
    images: Images
    diagnostics: tuple[AnyDiagnostic, ...]
    studies: tuple[Settled, ...]
    refused: Mapping[str, str]

    @classmethod
    def of(
        cls,
        subject: Subject,
        images: Images,
        diagnostics: Sequence[AnyDiagnostic],
        studies: Sequence[AbstractStudy],
    ) -> "Checkup":
        """The checkup, its images' labels fitted to the model's classes."""
        fitted = images.for_classes(subject.class_count, subject.classes) if subject.class_count else images
        suited: list[Settled] = []
        refused: dict[str, str] = {}
        for study in studies:
            try:
                suited.append(settled(subject, fitted, study, None, Plan()))
            except UserError as error:
                refused[study.name] = str(error).rstrip(".")
        return cls(subject, fitted, tuple(diagnostics), tuple(suited), refused)

    @cached_property
    def spec(self) -> Spec:
        """The question that is asked."""
        spec = spec_of(self.subject, self.images, self.diagnostics)
        studies = {study.name: study.spec.settings for study in self.studies}
        return replace(spec, settings={**spec.settings, "studies": studies}) if studies or self.refused else spec

    @property
    def passes(self) -> int:
        """How many images go through the model in all, which progress counts."""
        return len(self.images) + sum(study.passes() for study in self.studies)

    def kept(self, plan: Plan) -> int:
        """How many of the passes an interrupted attempt left in the plan's folder."""
        work = Pass(self.subject, self.images, self.diagnostics, plan.batch_size)
        studies = sum(kept(study.work(plan.batch_size), study.spec, plan) for study in self.studies)
        return kept(work, spec_of(self.subject, self.images, self.diagnostics), plan) + studies

    def answer(self, plan: Plan) -> Run:
        """The run with its claims, kept in the plan's folder."""
        before = 0

        def progress(done: int, total: int) -> None:
            del total
            plan.progress(before + done, self.passes)

        inner = replace(plan, progress=progress)
        run = measure(self.subject, self.images, self.diagnostics, inner)
        before = len(self.images)
        runs: list[Run] = []
        for study in self.studies:
            runs.append(study.answer(inner))
            before += study.passes()
        whole = _joined(run, runs, self.spec, self.refused) if self.studies or self.refused else run
        return concluded(whole, plan)


def concluded(run: Run, plan: Plan) -> Run:
    """The run with what the findings make of it, kept in the plan's folder."""
    return keep(run.with_claims(claims_of(run)), plan)


def _joined(run: Run, studies: Sequence[Run], spec: Spec, refused: Mapping[str, str]) -> Run:
    """One run with the groups of all."""
    groups = {name: node.to_dataset() for one in (run, *studies) for name, node in one.tree.children.items()}
    skipped = {name: reason for one in (run, *studies) for name, reason in one.skipped.items()}
    notes = [note for one in (run, *studies) for note in one.notes]
    seconds = sum(float(str(one.provenance["seconds"])) for one in (run, *studies))
    attributes = {
        **run.tree.attrs,
        "spec": spec.text,
        "skipped": json.dumps({**skipped, **refused}),
        "notes": json.dumps(list(dict.fromkeys(notes))),
        "provenance": json.dumps({**run.provenance, "seconds": round(seconds, 2)}),
    }
    return Run(xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups}))


def findings() -> tuple[AbstractFinding, ...]:
    """Every registered finding."""
    import_all("vitscope.findings")
    return tuple(finding() for _, finding in FINDINGS.items())


def claims_of(run: Run) -> tuple[Claim, ...]:
    """What every finding whose numbers the run holds makes of it, weightiest first."""
    claims = [claim for finding in findings() if (claim := finding.apply(run)) is not None]
    return tuple(sorted((replace(c, weight=round(c.weight, 3)) for c in claims), key=lambda claim: -claim.weight))
