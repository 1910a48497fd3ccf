"""``checkup``: measure everything, and say what it comes to."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import xarray as xr

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
from vitscope.measurement.claim import Claim, foremost
from vitscope.measurement.duration import format_duration
from vitscope.measurement.errors import UserError
from vitscope.measurement.estimate import FALSE_ALARMS, rate_of
from vitscope.models.subject import Subject
from vitscope.runs.registry import resolve_names
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

_FAILED = (UserError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a study may fail by without taking the rest of the checkup with it; a full disk is none of these."""
STUDIED = 256
"""Images that the studies of a checkup take, of those it is given: they walk through the model many times."""


def deep() -> tuple[tuple[AbstractCurvature, ...], tuple[AbstractStudy, ...]]:
    """The curvature diagnostics and the studies that a deep checkup has besides its one pass: the affordable ones."""
    studies = (LesionStudy(), FrequencyNoiseStudy(), TokenKeepStudy(keep="0.9:0.3:4"))
    return (HessianSpectrum(batch=8),), studies


def checkup(
    subject: Subject,
    images: Images,
    diagnostics: AsMeasurable | Iterable[AsMeasurable] | None = None,
    plan: Plan | None = None,
    studies: AsStudy | Iterable[AsStudy] = (),
) -> Run:
    """One pass with every diagnostic (or those given), ``studies``, and the findings' claims.

    Diagnostics and studies are values or the names that ``vitscope list`` shows: ``studies=["lesion"]``.
    The run is kept in ``plan.folder`` if there is one. A study that does not suit the subject is named in
    ``run.skipped`` with the reason; the others take :data:`STUDIED` of the images. Cost: that of
    :func:`vitscope.measure` and of :func:`vitscope.study`.
    """
    measured = default_diagnostics() if diagnostics is None else diagnostics
    plan, question = check_plan(plan), Checkup.of(subject, images, measured, studies)
    if not (question.steps or question.refused):
        raise UserError("No diagnostic and no study was given; give some, or leave diagnostics out to have all.")
    return carry_out(question, plan)


@dataclass(frozen=True)
class Checkup(AbstractQuestion):
    """A checkup resolved for a subject and images: one pass, then studies, the cheapest first, then curvature.

    ``measurement`` is all that is measured without a study; ``refused`` are the studies that do not suit the subject,
    with the reason.
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
        """The checkup, its images' labels fitted to the model's classes."""
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
        """What is done one after the other, the dearest last."""
        curvatures = self.measurement.curvatures
        plain = tuple(one for one in self.measurement.diagnostics if one not in curvatures)
        parts = [replace(self.measurement, diagnostics=some) for some in (plain, curvatures) if some]
        first = parts[:1] if plain else []
        return (*first, *self.studies, *parts[len(first) :])

    @property
    def title(self) -> str:
        """What it is called while it is answered."""
        return "Checkup"

    def make_spec(self) -> Spec:
        """The measurement's, with the settings of the studies."""
        spec = self.measurement.spec
        studies = {study.words.name: study.spec.settings for study in self.studies}
        return replace(spec, settings={**spec.settings, "studies": studies}) if studies or self.refused else spec

    @property
    def total(self) -> Amount:
        """What there is to do in all, in forward passes of one image."""
        return sum(step.total for step in self.steps)

    def kept(self, plan: Plan) -> Amount:
        """How many of the passes an interrupted attempt left in the plan's folder."""
        return sum(step.kept(plan) for step in self.steps)

    def answer(self, plan: Plan) -> Answer:
        """The run of all steps; a step after the first that fails is named in ``run.skipped`` with the reason."""
        clock = Clock(plan, self.total)
        runs: list[Run] = []
        refused = dict(self.refused)
        for step in self.steps:
            clock.begin(step)
            try:
                runs.append(step.answer(clock.plan).run)
            except _FAILED as error:  # what is beyond the first pass is lost alone
                if not runs:
                    raise
                lost = [step.words.name] if isinstance(step, StudyQuestion) else [one.name for one in step.diagnostics]
                refused |= dict.fromkeys(lost, _reason(error))
        if len(runs) == 1 and runs[0].spec.address == self.spec.address:
            return Answer(runs[0])
        notes = [
            f"{study.title}: on {len(study.images)} images."
            for study in self.studies
            if study.words.name not in refused
        ]
        joined = _joined(runs, self.spec, refused, notes)
        return Answer(joined, steps=tuple(step.spec for step in self.steps))

    def conclude(self, run: Run) -> Run:
        """The run with what the findings make of it."""
        return conclude(run)


@dataclass(frozen=True)
class Concluded(AbstractQuestion):
    """Another question, its run with what the findings make of it."""

    question: AbstractQuestion

    @property
    def title(self) -> str:
        """The question's."""
        return self.question.title

    def make_spec(self) -> Spec:
        """The question's: findings follow from the numbers."""
        return self.question.spec

    @property
    def total(self) -> Amount:
        """The question's: findings cost nothing."""
        return self.question.total

    def kept(self, plan: Plan) -> Amount:
        """The question's."""
        return self.question.kept(plan)

    def answer(self, plan: Plan) -> Answer:
        """The question's."""
        return self.question.answer(plan)

    def conclude(self, run: Run) -> Run:
        """The run with what the findings make of it."""
        return conclude(self.question.conclude(run))


def _reason(error: Exception) -> str:
    """Why a study has no result."""
    if isinstance(error, UserError):
        return str(error).rstrip(".")
    first = (str(error).strip() or "no more is known").splitlines()[0].rstrip(".")
    return f"it failed, which is a fault of this program or of the model ({type(error).__name__}: {first})"


@dataclass
class Clock:
    """Counts what is done over several steps, and says before a step begins how long it will take.

    That is judged by what the steps before it took for a forward pass of one image.
    """

    whole: Plan
    total: Amount
    done: Amount = 0
    found: Amount = 0
    """What of it an attempt before had left, and took no time now."""
    began: float = field(default_factory=time.monotonic)

    @property
    def plan(self) -> Plan:
        """The plan of the step that comes next."""
        before, begins = self.done, True

        def progress(done: Amount, _: Amount) -> None:
            nonlocal begins
            self.found += done if begins else 0
            begins, self.done = False, before + done
            self.whole.progress(self.done, self.total)

        return replace(self.whole, progress=progress)

    def begin(self, step: AbstractQuestion) -> None:
        """Say what begins, and how long it will take as far as that can be known."""
        made = self.done - self.found
        long = f", about {format_duration((time.monotonic() - self.began) / made * step.total)}" if made else ""
        if step.total < self.total:
            self.whole.say(f"{step.title}{long}")


def conclude(run: Run) -> Run:
    """The run with the claims that the findings make of it; as it is if it has claims already."""
    return run if "claims" in run.tree.attrs else run.with_claims(claims_of(run))


def _joined(runs: Sequence[Run], spec: Spec, refused: Mapping[str, str], notes: Sequence[str]) -> Run:
    """One run with the groups of all."""
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
    """What every finding whose numbers the run holds makes of it, in the order in which they are shown.

    Those that are tests share the false-alarm rate of a run among them.
    """
    fitting = [finding for finding in findings() if finding.judge(run, FALSE_ALARMS) is not None]
    rate = rate_of(sum(finding.is_test for finding in fitting))
    claims = [claim for finding in fitting if (claim := finding.apply(run, rate)) is not None]
    return foremost(replace(claim, weight=round(claim.weight, 3)) for claim in claims)
