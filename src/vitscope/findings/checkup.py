"""``checkup``: measure everything, and draw conclusions from it."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import xarray as xr
from typing_extensions import override

from vitscope.data import Images
from vitscope.diagnostics import default_diagnostics
from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.engine.curvature.curvature import AbstractCurvature
from vitscope.engine.grid import STUDIES, AbstractStudy
from vitscope.engine.measure import AsMeasurable, Measurement
from vitscope.engine.plan import Plan, check_plan
from vitscope.engine.question import AbstractQuestion, Answer, carry_out
from vitscope.engine.study import AsStudy, StudyQuestion, resolve_study
from vitscope.engine.work.work import Amount
from vitscope.findings.finding import FINDINGS, AbstractFinding
from vitscope.interventions.studies.frequency_noise import FrequencyNoiseStudy
from vitscope.interventions.studies.lesion import LesionStudy
from vitscope.interventions.studies.token_keep import TokenKeepStudy
from vitscope.measurement.claim import Claim, sort_claims
from vitscope.measurement.duration import format_duration
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import FALSE_ALARMS, rate_of
from vitscope.models.subject import Subject
from vitscope.runs.registry import resolve_names
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

_FAILED = (UserError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""Errors by which a study may fail without ending the checkup; a full disk is not among them."""
STUDIED = 256
"""Most images that the studies of a checkup use, because they run the model many times."""


def deep() -> tuple[tuple[AbstractCurvature, ...], tuple[AbstractStudy, ...]]:
    """The affordable curvature diagnostics and studies that a deep checkup adds to its single pass."""
    studies = (LesionStudy(), FrequencyNoiseStudy(), TokenKeepStudy(keep="0.9:0.3:4"))
    return (HessianSpectrum(batch=8),), studies


def checkup(
    subject: Subject,
    images: Images,
    diagnostics: AsMeasurable | Iterable[AsMeasurable] | None = None,
    plan: Plan | None = None,
    studies: AsStudy | Iterable[AsStudy] = (),
) -> Run:
    """Measure every diagnostic (or those given) in one pass, then ``studies``, and add the findings' claims.

    Diagnostics and studies are values or the names that ``vitscope list`` shows: ``studies=["lesion"]``.
    The run is saved in ``plan.folder`` if there is one. ``run.skipped`` names each study that does not suit the
    subject, with the reason; the others use at most :data:`STUDIED` of the images. Cost: that of
    :func:`vitscope.measure` and :func:`vitscope.study`.
    """
    measured = default_diagnostics() if diagnostics is None else diagnostics
    plan, question = check_plan(plan), Checkup.of(subject, images, measured, studies)
    if not (question.steps or question.refused):
        raise UserError("No diagnostic and no study was given; give some, or leave out diagnostics to run all of them.")
    return carry_out(question, plan)


@dataclass(frozen=True)
class Checkup(AbstractQuestion):
    """A checkup resolved for a subject and images: one pass, then studies, the cheapest first, then curvature.

    ``measurement`` is all that is measured outside studies; ``refused`` holds the studies that do not suit the subject,
    with the reasons.
    """

    measurement: Measurement
    studies: tuple[StudyQuestion, ...]
    refused: Mapping[str, str]

    @classmethod
    def of(
        cls,
        subject: Subject,
        images: Images,
        diagnostics: AsMeasurable | Iterable[AsMeasurable],
        studies: AsStudy | Iterable[AsStudy],
    ) -> "Checkup":
        """The checkup, with the images' labels fitted to the model's classes."""
        measurement = Measurement.of(subject, images, diagnostics)
        shown = measurement.images.sample(STUDIED) if len(images) > STUDIED else measurement.images
        suited: list[StudyQuestion] = []
        refused: dict[str, str] = {}
        for study in resolve_names(studies, STUDIES):
            try:
                suited.append(resolve_study(subject, shown, study, None, Plan()))
            except _FAILED as error:
                refused[study.name] = _reason(error)
        return cls(measurement, tuple(sorted(suited, key=lambda study: study.total)), refused)

    @property
    def steps(self) -> tuple[Measurement | StudyQuestion, ...]:
        """The steps in order: one pass, the studies, then curvature."""
        curvatures = self.measurement.curvatures
        plain = tuple(one for one in self.measurement.diagnostics if one not in curvatures)
        parts = [replace(self.measurement, diagnostics=some) for some in (plain, curvatures) if some]
        first = parts[:1] if plain else []
        return (*first, *self.studies, *parts[len(first) :])

    @property
    @override
    def title(self) -> str:
        return "Checkup"

    def make_spec(self) -> Spec:
        """The measurement's spec, with the settings of the studies."""
        spec = self.measurement.spec
        studies = {study.words.name: study.spec.settings for study in self.studies}
        return replace(spec, settings={**spec.settings, "studies": studies}) if studies or self.refused else spec

    @property
    def total(self) -> Amount:
        """The total work, in forward passes of one image."""
        return sum(step.total for step in self.steps)

    def kept_amount(self, plan: Plan) -> Amount:
        """How many of these passes an interrupted attempt saved in the plan's folder."""
        return sum(step.kept_amount(plan) for step in self.steps)

    def answer(self, plan: Plan) -> Answer:
        """The run of all steps; if a step after the first fails, ``run.skipped`` names it with the reason."""
        clock = Clock(plan, self.total)
        runs: list[Run] = []
        refused = dict(self.refused)
        for step in self.steps:
            clock.begin(step)
            try:
                runs.append(step.answer(clock.plan).run)
            except _FAILED as error:  # a failure after the first pass costs only its step
                if not runs:
                    raise
                lost = [step.words.name] if isinstance(step, StudyQuestion) else [one.name for one in step.diagnostics]
                refused |= dict.fromkeys(lost, _reason(error))
        if len(runs) == 1 and runs[0].spec.address == self.spec.address:
            return Answer(runs[0])
        notes = [
            f"{study.title}: measured on {len(study.images)} images."
            for study in self.studies
            if study.words.name not in refused
        ]
        joined = _join_runs(runs, self.spec, refused, notes)
        return Answer(joined, steps=tuple(step.spec for step in self.steps))

    def conclude(self, run: Run) -> Run:
        """The run with the findings' claims."""
        return conclude(run)


@dataclass(frozen=True)
class Concluded(AbstractQuestion):
    """Another question, whose run also gets the findings' claims."""

    question: AbstractQuestion

    @property
    @override
    def title(self) -> str:
        return self.question.title

    def make_spec(self) -> Spec:
        """The spec of the question: findings follow from the numbers."""
        return self.question.spec

    @property
    def total(self) -> Amount:
        """The work of the question: findings cost nothing."""
        return self.question.total

    @override
    def kept_amount(self, plan: Plan) -> Amount:
        return self.question.kept_amount(plan)

    @override
    def answer(self, plan: Plan) -> Answer:
        return self.question.answer(plan)

    def conclude(self, run: Run) -> Run:
        """The run with the findings' claims."""
        return conclude(self.question.conclude(run))


def _reason(error: Exception) -> str:
    """Why a study has no result, in words."""
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    first = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return f"it failed through a fault of vitscope or of the model ({type(error).__name__}: {first})"


@dataclass
class Clock:
    """Counts the work done over several steps, and announces before each how long it will take.

    The estimate is the time per forward pass of one image in the steps before it.
    """

    whole: Plan
    total: Amount
    done: Amount = 0
    found: Amount = 0
    """Work that an earlier attempt had saved, which took no time now."""
    began: float = field(default_factory=time.monotonic)

    @property
    def plan(self) -> Plan:
        """The plan for the next step."""
        before, begins = self.done, True

        def progress(done: Amount, _: Amount) -> None:
            nonlocal begins
            self.found += done if begins else 0
            begins, self.done = False, before + done
            self.whole.progress(self.done, self.total)

        return replace(self.whole, progress=progress)

    def begin(self, step: AbstractQuestion) -> None:
        """Announce the step and, if it can be estimated, how long it will take."""
        made = self.done - self.found
        long = f", about {format_duration((time.monotonic() - self.began) / made * step.total)}" if made else ""
        if step.total < self.total:
            self.whole.say(f"{step.title}{long}")


def conclude(run: Run) -> Run:
    """The run with the findings' claims; unchanged if it already has claims."""
    return run if "claims" in run.tree.attrs else run.with_claims(claims_of(run))


def _join_runs(runs: Sequence[Run], spec: Spec, refused: Mapping[str, str], notes: Sequence[str]) -> Run:
    """One run with the groups of all these runs."""
    groups = {name: node.to_dataset() for run in runs for name, node in run.tree.children.items()}
    skipped = {name: reason for run in runs for name, reason in run.skipped.items()}
    seconds = sum(float(str(run.provenance["seconds"])) for run in runs)
    attributes = {
        **runs[0].tree.attrs,
        "spec": spec.text,
        "skipped": json.dumps({**skipped, **refused}),
        "notes": json.dumps(list(dict.fromkeys([*notes, *(note for run in runs for note in run.notes)]))),
        "provenance": json.dumps({**runs[0].provenance, "seconds": round(seconds, 2)}),
    }
    return Run(xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups}))


def findings() -> tuple[AbstractFinding, ...]:
    """Every registered finding."""
    return tuple(finding() for _, finding in FINDINGS.items())


def claims_of(run: Run) -> tuple[Claim, ...]:
    """The claims of every finding whose numbers the run holds, in the order in which they are shown.

    The tests among them share the false-alarm rate of the run.
    """
    fitting = [finding for finding in findings() if finding.judge(run, FALSE_ALARMS) is not None]
    rate = rate_of(sum(finding.is_test for finding in fitting))
    claims = [claim for finding in fitting if (claim := finding.apply(run, rate)) is not None]
    return sort_claims(replace(claim, weight=round(claim.weight, 3)) for claim in claims)
